//! OpenTelemetry's protocol (OTLP): incidents as log records and traces, and their delivery to a collector.
//!
//! [`encode`] does no I/O. [`run`] sends the incidents that wait in the store's outbox; it does not depend on
//! how they are made. docs/otlp.md documents the mapping and the guarantees of delivery.
//! <https://opentelemetry.io/docs/specs/otlp/>

mod exporter;
mod grpc;
mod http;
mod retry;
mod sender;

pub use exporter::{Error, Exporter};
pub use sender::run;

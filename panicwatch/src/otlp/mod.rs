//! OpenTelemetry's protocol: incidents as log records and traces, and their delivery to a collector.
//!
//! [`encode`] is pure. [`run`] sends what waits in the store's outbox; it must not know where incidents come from.
//! docs/otlp.md says what becomes what, and what is promised of the delivery.
//! <https://opentelemetry.io/docs/specs/otlp/>

mod exporter;
mod grpc;
mod http;
mod retry;
mod sender;

pub use exporter::{Error, Exporter};
pub use sender::run;

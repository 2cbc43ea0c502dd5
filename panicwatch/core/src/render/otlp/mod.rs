//! OpenTelemetry's form of incidents: log records and traces. Pure; the module `otlp` of panicwatch delivers
//! them. docs/otlp.md says what becomes what. <https://opentelemetry.io/docs/specs/otlp/>

pub mod encode;
mod resource;
mod stacktrace;
mod trace;
mod wall;

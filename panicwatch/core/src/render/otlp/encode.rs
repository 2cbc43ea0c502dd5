//! Encodes an incident as a log record and a trace of OTLP. Does no I/O: the same incident always gives the
//! same bytes.
//!
//! <https://opentelemetry.io/docs/specs/semconv/exceptions/exceptions-logs/>

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    trace::v1::{ResourceSpans, ScopeSpans},
};
use serde::Serialize;

use super::{
    resource, stacktrace, trace,
    wall::{Attributes, MAX_NAME, MAX_TEXT, Wall, cut, span_id, trace_id},
};
use crate::incident::{Frame, Host, Incident, Kind, Outcome, fingerprint, frame_class, title};

/// Schema of the attribute names.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";
/// Maximum number of goroutine labels to include.
const MAX_LABELS: usize = 32;
/// The "sampled" flag of W3C trace contexts: asks trace stores to keep the trace.
pub(super) const SAMPLED: u32 = 1;

/// Returns the log record, with the process as its resource.
pub fn logs(incident: &Incident, host: &Host) -> ResourceLogs {
    ResourceLogs {
        resource: Some(resource::of(incident, host)),
        scope_logs: vec![ScopeLogs {
            scope: Some(scope()),
            log_records: vec![record(incident)],
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    }
}

/// Returns the trace, with the process as its resource.
pub fn spans(incident: &Incident, host: &Host) -> ResourceSpans {
    ResourceSpans {
        resource: Some(resource::of(incident, host)),
        scope_spans: vec![ScopeSpans {
            scope: Some(scope()),
            spans: trace::spans(incident),
            schema_url: SCHEMA_URL.to_owned(),
        }],
        schema_url: SCHEMA_URL.to_owned(),
    }
}

/// Returns both in OTLP's JSON encoding: one object with `resourceLogs` and `resourceSpans`.
///
/// # Errors
/// Never for the messages built here, which consist of strings and numbers.
pub fn json(incident: &Incident, host: &Host) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Both {
        #[serde(flatten)]
        logs: ExportLogsServiceRequest,
        #[serde(flatten)]
        spans: ExportTraceServiceRequest,
    }
    let logs = ExportLogsServiceRequest { resource_logs: vec![logs(incident, host)] };
    let spans = ExportTraceServiceRequest { resource_spans: vec![spans(incident, host)] };
    serde_json::to_string_pretty(&Both { logs, spans })
}

fn scope() -> InstrumentationScope {
    let (name, version) = ("panicwatch".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    InstrumentationScope { name, version, ..InstrumentationScope::default() }
}

fn record(incident: &Incident) -> LogRecord {
    let time = Wall::of(incident).at(incident.start_ns);
    let (severity, text) = severity(incident.outcome);
    let mut attributes = Attributes::default();
    exception(incident, &mut attributes);
    attributes.text("exception.stacktrace", stacktrace::of(incident).as_deref());
    if let Some(site) = site(incident) {
        code(site, &mut attributes);
    }
    described(incident, &mut attributes);
    LogRecord {
        time_unix_nano: time,
        observed_time_unix_nano: time,
        severity_number: severity as i32,
        severity_text: text.to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(headline(incident))) }),
        attributes: attributes.0,
        flags: SAMPLED,
        trace_id: trace_id(incident),
        span_id: span_id(incident, trace::ROOT),
        event_name: "exception".to_owned(),
        ..LogRecord::default()
    }
}

/// Returns the severity: a recovered panic was handled, a fatal one killed its process.
fn severity(outcome: Outcome) -> (SeverityNumber, &'static str) {
    match outcome {
        Outcome::Fatal => (SeverityNumber::Fatal, "FATAL"),
        Outcome::Recovered => (SeverityNumber::Warn, "WARN"),
        Outcome::Goexit | Outcome::Exited | Outcome::Unknown => (SeverityNumber::Error, "ERROR"),
    }
}

/// Returns the first line of Go's message.
fn headline(incident: &Incident) -> String {
    let text = title::text(incident);
    let message = cut(&text, MAX_TEXT);
    match incident.kind {
        // The placeholder for an unknown text already names the kind.
        _ if title::is_unknown(incident) => message.to_owned(),
        Kind::Panic => format!("panic: {message}"),
        Kind::FatalError | Kind::Throw => format!("fatal error: {message}"),
        Kind::Signal => message.to_owned(),
    }
}

/// Adds `exception.type` and `exception.message`. The type of an incident without a panic value, such as a
/// fatal error, is its kind.
pub(super) fn exception(incident: &Incident, attributes: &mut Attributes) {
    let of_value = incident.panics.iter().find(|panic| !panic.goexit);
    let name = of_value.and_then(|panic| panic.value.type_name.as_deref()).unwrap_or(incident.kind.name());
    attributes.text("exception.type", Some(cut(name, MAX_NAME)));
    attributes.text("exception.message", incident.message.as_deref());
}

fn site(incident: &Incident) -> Option<&Frame> {
    let raised = incident.panics.first().and_then(|panic| panic.site.as_ref());
    let module = incident.process.module.as_deref();
    raised.or_else(|| frame_class::site(&incident.stack, module).and_then(|i| incident.stack.get(i)))
}

/// Adds the location of a frame. <https://opentelemetry.io/docs/specs/semconv/registry/attributes/code/>
pub(super) fn code(frame: &Frame, attributes: &mut Attributes) {
    attributes.text("code.function.name", Some(cut(&frame.function, MAX_NAME)));
    attributes.text("code.file.path", frame.file.as_deref().map(|file| cut(file, MAX_NAME)));
    attributes.number("code.line.number", frame.line);
}

/// Adds the attributes for which no semantic convention exists.
pub(super) fn described(incident: &Incident, attributes: &mut Attributes) {
    attributes.text("panicwatch.id", Some(&incident.id));
    attributes.text("panicwatch.fingerprint", Some(&incident.fingerprint));
    attributes.text("panicwatch.kind", Some(incident.kind.name()));
    attributes.text("panicwatch.outcome", Some(incident.outcome.name()));
    attributes.text("panicwatch.class", Some(cut(&fingerprint::class(incident), MAX_NAME)));
    attributes.number("panicwatch.panics", Some(incident.panics.len()));
    let exit = incident.exit.as_ref();
    attributes.number("panicwatch.exit.code", exit.and_then(|exit| exit.code));
    attributes.number("panicwatch.exit.signal", exit.and_then(|exit| exit.signal));
    attributes.text("panicwatch.build_id", incident.process.build_id.as_deref());
    attributes.text("panicwatch.vcs_revision", incident.process.vcs_revision.as_deref());
    let boot_id = incident.host.as_ref().and_then(|host| host.boot_id.as_deref());
    attributes.text("panicwatch.boot_id", boot_id);
    let Some(goroutine) = &incident.goroutine else { return };
    attributes.number("panicwatch.goroutine.id", Some(goroutine.id));
    attributes.number("panicwatch.goroutine.parent_id", goroutine.parent_id);
    attributes.number("thread.id", goroutine.thread_id);
    for (key, value) in goroutine.labels.iter().take(MAX_LABELS) {
        attributes
            .text(&format!("panicwatch.goroutine.label.{}", cut(key, MAX_NAME)), Some(cut(value, MAX_NAME)));
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! An incident in any of its forms: what `show` prints and the API serves. The same document gives the same bytes.

pub mod export;
mod folded;
pub mod otlp;
pub mod page;
mod perf_script;
mod perfetto;
pub mod report;
pub mod text;

use serde::Deserialize;

use self::text::Style;
pub use self::{folded::folded, perf_script::perf_script, perfetto::perfetto};
use crate::incident::{Host, Incident, escape, json, timeline::Timeline};

/// Forms of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// A report for people.
    Text,
    /// The document.
    Json,
    /// A trace for ui.perfetto.dev.
    Perfetto,
    /// Folded stacks, for flame graphs.
    Folded,
    /// What `perf script` prints.
    PerfScript,
    /// The page's view of it, as one file.
    Html,
    /// OpenTelemetry's JSON: a log record and a trace.
    Otlp,
}

impl Format {
    /// For HTTP.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Text | Format::Folded | Format::PerfScript => "text/plain; charset=utf-8",
            Format::Json | Format::Otlp => "application/json",
            Format::Html => "text/html; charset=utf-8",
            Format::Perfetto => "application/octet-stream",
        }
    }

    /// Of a file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Text => "txt",
            Format::Json => "json",
            Format::Html => "html",
            Format::Otlp => "otlp.json",
            Format::Perfetto => "pftrace",
            Format::Folded => "folded",
            Format::PerfScript => "perf",
        }
    }
}

/// It has no such form.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(String);

/// Renders it. `document` is what it was read from, if it was: it may have keys that are not known here.
///
/// # Errors
/// When it has no timeline, or nothing in it to fold.
pub fn render(
    format: Format,
    incident: &Incident,
    document: Option<&serde_json::Value>,
    style: &Style,
) -> Result<Vec<u8>, RenderError> {
    Ok(match format {
        Format::Text => report::full(incident, style).into_bytes(),
        Format::Json => match document {
            Some(document) => indented(document)?,
            None => indented(&serde_json::to_value(incident).map_err(not_json)?)?,
        }
        .into_bytes(),
        Format::Otlp => {
            let text = otlp::encode::json(incident, &Host::default()).map_err(not_json)?;
            (json::safe(text) + "\n").into_bytes()
        }
        Format::Html => page::file(incident).map_err(not_json)?.into_bytes(),
        Format::Perfetto => perfetto(incident, timeline_of(incident)?),
        Format::PerfScript => perf_script(incident, timeline_of(incident)?).into_bytes(),
        Format::Folded => {
            let text = folded(incident, timeline_of(incident)?);
            if text.is_empty() {
                let reason =
                    "its timeline has neither samples nor calls of functions: there is nothing to fold";
                return Err(RenderError(reason.to_owned()));
            }
            text.into_bytes()
        }
    })
}

fn timeline_of(incident: &Incident) -> Result<&Timeline, RenderError> {
    incident.timeline.as_ref().ok_or_else(|| {
        let reason = incident.missing.iter().find(|missing| missing.what == "timeline");
        match reason {
            Some(missing) => RenderError(format!(
                "the incident has no timeline: {}",
                escape::one_line_max(&missing.reason, 300)
            )),
            None => RenderError(
                "the incident has no timeline: none was recorded; --format text and json show the rest"
                    .to_owned(),
            ),
        }
    })
}

/// The document, indented.
fn indented(document: &serde_json::Value) -> Result<String, RenderError> {
    Ok(json::to_string_pretty(document).map_err(not_json)? + "\n")
}

fn not_json(error: serde_json::Error) -> RenderError {
    RenderError(format!("the document could not be written as JSON: {error}"))
}

/// The name of the incident's program.
fn program(incident: &Incident) -> String {
    let exe = incident.process.exe.as_deref();
    let arg = || incident.process.args.as_ref()?.first().map(String::as_str);
    let name = exe.or_else(arg).unwrap_or("?");
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

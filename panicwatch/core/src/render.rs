//! Renders an incident in any of its formats, for `show` and the API. The same document always gives the same
//! bytes.

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
    /// The text report.
    Text,
    /// The incident document.
    Json,
    /// A trace for ui.perfetto.dev.
    Perfetto,
    /// Folded stacks, for flame graphs.
    Folded,
    /// The output format of perf script.
    PerfScript,
    /// A self-contained page.
    Html,
    /// OpenTelemetry's JSON: a log record and a trace.
    Otlp,
}

impl Format {
    /// Returns the media type for HTTP.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Text | Format::Folded | Format::PerfScript => "text/plain; charset=utf-8",
            Format::Json | Format::Otlp => "application/json",
            Format::Html => "text/html; charset=utf-8",
            Format::Perfetto => "application/octet-stream",
        }
    }

    /// Returns the extension of file names, without the leading dot.
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

/// Why an incident cannot be rendered in a format.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RenderError(String);

/// Renders an incident. `document` is the JSON it was read from, if any: it may have keys unknown to this
/// version.
///
/// # Errors
/// When the format needs a timeline and the incident has none, or its timeline has no stacks to fold.
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

/// Formats the document as indented JSON with a final newline.
fn indented(document: &serde_json::Value) -> Result<String, RenderError> {
    Ok(json::to_string_pretty(document).map_err(not_json)? + "\n")
}

fn not_json(error: serde_json::Error) -> RenderError {
    RenderError(format!("cannot encode the document as JSON: {error}"))
}

/// The name of the incident's program.
fn program(incident: &Incident) -> String {
    let exe = incident.process.exe.as_deref();
    let arg = || incident.process.args.as_ref()?.first().map(String::as_str);
    exe.or_else(arg).and_then(crate::incident::base_name).unwrap_or("?").to_owned()
}

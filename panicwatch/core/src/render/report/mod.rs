//! Renders the report of one incident for a terminal.
//!
//! The reader is an on-call engineer: what happened, where in their own code, and how it ended precede
//! everything else. The report is a function of the incident document and a [`Style`]: no clock, no I/O, no
//! detection of the terminal, which is the command's task. Every string of the watched program passes through
//! [`crate::incident::escape`]: only `line::Line::target` accepts foreign text, and it escapes it.
mod compact;
mod full;
mod lanes;
mod machine;
mod stack;
mod story;
mod summary;
mod timeline;
mod words;

use super::text::Style;
use crate::incident::{Incident, Outcome};

/// Returns the report, which ends in a newline: [`compact`] for an incident that the program survived, else
/// [`full`].
pub fn render(incident: &Incident, style: &Style) -> String {
    match incident.outcome {
        Outcome::Recovered | Outcome::Goexit => compact(incident, style),
        Outcome::Fatal | Outcome::Exited | Outcome::Unknown => full(incident, style),
    }
}

/// Returns a report of a few lines, because there may be thousands of these.
pub fn compact(incident: &Incident, style: &Style) -> String {
    compact::render(incident, style)
}

/// Returns the full report; of the timeline it has lanes, durations and the last events.
pub fn full(incident: &Incident, style: &Style) -> String {
    full::render(incident, style)
}

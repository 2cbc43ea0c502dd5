//! The report of one incident, for a terminal.
//!
//! Who reads it is on call and tired: what happened, where in their own code, and how it ended come first; the rest
//! follows in the order in which one asks. Made of the incident document alone: no clock, no I/O, no guess at the
//! terminal (that is [`Style`], which the command decides). Every string of the watched program goes through
//! [`crate::incident::escape`]: only `line::Line::target` takes foreign text, and it escapes.
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

/// The report, ending in a newline: [`compact`] for what the program survived, [`full`] for the rest.
pub fn render(incident: &Incident, style: &Style) -> String {
    match incident.outcome {
        Outcome::Recovered | Outcome::Goexit => compact(incident, style),
        Outcome::Fatal | Outcome::Exited | Outcome::Unknown => full(incident, style),
    }
}

/// A few lines: there may be thousands of these.
pub fn compact(incident: &Incident, style: &Style) -> String {
    compact::render(incident, style)
}

/// Everything; of the timeline its picture, its numbers and the last events.
pub fn full(incident: &Incident, style: &Style) -> String {
    full::render(incident, style)
}

//! The short report, for incidents that the program survived.

use super::words::{self, Said, function_and_file, module, said};
use crate::{
    incident::{Incident, Outcome, Panic, State},
    render::text::{
        Nanos, Style,
        line::{Line, Page, Tone},
    },
};

/// Maximum number of terminal rows for a message.
const ROWS: usize = 3;
/// Indents the text below the mark of the first line, so that the report stands out from the program's own
/// output.
const INDENT: usize = 3;

pub(super) fn render(incident: &Incident, style: &Style) -> String {
    let mut page = Page::new(style);
    page.push_wrapped(&first(incident), INDENT + 2, ROWS);
    page.push_wrapped(&message(incident), INDENT + 2, ROWS);
    for (i, panic) in incident.panics.iter().enumerate().skip(1).take(8) {
        let line = Line::new().column(INDENT).own(Tone::Plain, "then panic ").number(Tone::Plain, i + 1);
        page.push_wrapped(&value(line.own(Tone::Plain, ": "), panic), INDENT + 2, ROWS);
    }
    if incident.panics.len() > 9 {
        let more =
            Line::new().column(INDENT).own(Tone::Note, "… ").number(Tone::Note, incident.panics.len() - 9);
        page.push(more.own(Tone::Note, " more panics"));
    }
    page.push_wrapped(&raised(incident), INDENT + 2, ROWS);
    page.push_wrapped(&ended(incident), INDENT + 2, ROWS);
    page.finish()
}

/// Returns the first line: outcome, time of day, program, goroutine.
fn first(incident: &Incident) -> Line {
    let (word, tone) = match incident.outcome {
        Outcome::Recovered => ("━━ recovered ", Tone::Good),
        Outcome::Goexit => ("━━ goexit ", Tone::Good),
        Outcome::Fatal => ("━━ FATAL ", Tone::Bad),
        Outcome::Exited => ("━━ EXITED ", Tone::Bad),
        Outcome::Unknown => ("━━ end not seen ", Tone::Note),
    };
    let line = Line::new().own(tone, word).own(Tone::Plain, " ");
    let line = match words::clock(&incident.time) {
        Some((_, clock)) => line.target(Tone::Plain, clock).own(Tone::Plain, "Z"),
        None => line.target(Tone::Plain, &incident.time),
    };
    let line = line.own(Tone::Plain, "  ").target(Tone::Plain, words::program(incident));
    let line = line.own(Tone::Plain, "[").number(Tone::Plain, incident.process.pid).own(Tone::Plain, "]");
    match &incident.goroutine {
        Some(goroutine) => line.own(Tone::Plain, "  goroutine ").number(Tone::Plain, goroutine.id),
        None => line,
    }
}

/// Returns the message as Go would print it.
fn message(incident: &Incident) -> Line {
    let line = Line::new().column(INDENT).own(Tone::Strong, words::prefix(incident));
    match (&incident.message, incident.panics.first()) {
        (Some(message), _) => line.target(Tone::Strong, message),
        (None, Some(panic)) => value(line, panic),
        (None, None) => line.own(Tone::Note, "message unknown"),
    }
}

/// Appends the value of a panic to `line`.
pub(super) fn value(line: Line, panic: &Panic) -> Line {
    match said(panic) {
        _ if panic.goexit => line.own(Tone::Plain, "runtime.Goexit"),
        Said::Text(text) => line.target(Tone::Strong, text),
        Said::Type(name) => line
            .own(Tone::Strong, "(")
            .target(Tone::Strong, name)
            .own(Tone::Strong, ")")
            .own(Tone::Note, " text unknown"),
        Said::Nothing => line.own(Tone::Note, "value unknown"),
    }
}

fn raised(incident: &Incident) -> Line {
    let line = Line::new().column(INDENT);
    let site = incident.panics.first().and_then(|p| p.site.as_ref());
    match site.or(incident.stack.first()) {
        Some(frame) => line.own(Tone::Plain, "raised in ").then(function_and_file(frame, module(incident))),
        None => line.own(Tone::Note, "raised at an unknown place"),
    }
}

fn ended(incident: &Incident) -> Line {
    let line = Line::new().column(INDENT);
    let last = incident.panics.iter().rfind(|p| p.state == State::Recovered);
    let line = match last.and_then(|p| p.recover.as_ref()) {
        Some(recover) => {
            let line = line.own(Tone::Good, "recovered").own(Tone::Plain, " after ");
            let line = line.number(Tone::Plain, Nanos(recover.ns_after_raise)).own(Tone::Plain, " by ");
            match &recover.by {
                Some(frame) => line.then(function_and_file(frame, module(incident))),
                None => line.own(Tone::Note, "an unknown function"),
            }
        }
        None if incident.outcome == Outcome::Goexit => {
            line.own(Tone::Plain, "runtime.Goexit ended the goroutine")
        }
        None => line.own(Tone::Note, "recovered by an unknown function"),
    };
    line.own(Tone::Plain, "  ").target(Tone::Dim, &incident.fingerprint)
}

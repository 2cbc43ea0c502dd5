//! The full report: everything known about one incident, the most important first.

use super::{
    compact::value,
    machine, stack, story, summary, timeline,
    words::{self, function_and_file, module},
};
use crate::{
    incident::{Incident, Kind, Outcome, escape},
    render::text::{
        Nanos, Style,
        line::{Line, Page, Tone},
    },
};

/// Maximum number of terminal rows for one value of the summary.
const ROWS: usize = 6;
/// Maximum number of panics of a chain at the top.
const CHAIN: usize = 6;
/// Maximum number of lines of a multi-line message.
const MESSAGE_LINES: usize = 30;

pub(super) fn render(incident: &Incident, style: &Style) -> String {
    let mut page = Page::new(style);
    header(&mut page, incident);
    message(&mut page, incident);
    page.blank();
    summary::render(&mut page, incident);
    if story::is_worth_telling(incident) {
        story::render(&mut page, incident);
    }
    if let Some(timeline) = &incident.timeline {
        timeline::render(&mut page, timeline);
    }
    let no_stack = incident.goroutine.is_none() || incident.missing.iter().any(|m| m.what == "stack");
    if !incident.stack.is_empty() || !no_stack {
        stack::render(&mut page, incident);
    }
    ancestry(&mut page, incident);
    machine::render(&mut page, incident);
    missing(&mut page, incident);
    footer(&mut page, incident);
    page.finish()
}

fn header(page: &mut Page<'_>, incident: &Incident) {
    let tone = if incident.outcome == Outcome::Recovered { Tone::Good } else { Tone::Bad };
    let (what, end) = words::headline(incident);
    let line = Line::new().own(tone, "━━ ").own(tone, what).own(tone, end).own(tone, " ");
    let name = Line::new().own(tone, "━━ ").target_tail(Tone::Strong, words::program(incident), 24);
    let name = name.own(Tone::Plain, "[").number(Tone::Plain, incident.process.pid).own(Tone::Plain, "] ");
    // To the millisecond: the footer has the exact time.
    let time = match words::clock(&incident.time) {
        Some((date, clock)) => format!("{date} {clock}Z"),
        None => incident.time.clone(),
    };
    let right = Line::new().own(Tone::Plain, " ").target(Tone::Plain, &time).own(tone, " ━━");
    let column = page.width().saturating_sub(right.width());
    if line.width() + 2 > column {
        page.push(line.rule_to(tone, page.width()));
        return;
    }
    let line = if line.width() + name.width() + 2 <= column { line.then(name) } else { line };
    page.push(line.rule_to(tone, column).then(right));
}

/// Prints the message as Go does. If the incident is not a panic, the panics in progress precede it, in the
/// order in which they happened.
fn message(page: &mut Page<'_>, incident: &Incident) {
    if incident.kind == Kind::Panic || incident.panics.is_empty() {
        text(page, incident, Line::new().own(Tone::Bad, words::prefix(incident)));
        if incident.kind == Kind::Panic {
            later_panics(page, incident);
        }
        return;
    }
    if let Some(panic) = incident.panics.first() {
        page.push_wrapped(&value(Line::new().own(Tone::Bad, "panic: "), panic), 2, ROWS);
    }
    later_panics(page, incident);
    let then = Line::new().own(Tone::Bad, "  then ").own(Tone::Bad, words::prefix(incident));
    text(page, incident, then);
}

/// Prints the message after `first`; its further lines start with a bar, so that no text can imitate the rest
/// of the report.
fn text(page: &mut Page<'_>, incident: &Incident, first: Line) {
    let Some(message) = &incident.message else {
        let line = match incident.panics.first().filter(|_| incident.kind == Kind::Panic) {
            Some(panic) => value(first, panic),
            None => first.own(Tone::Note, "message unknown"),
        };
        return page.push_wrapped(&line, 2, ROWS);
    };
    let (lines, more) = escape::lines(message, MESSAGE_LINES);
    let indent = first.width();
    for (i, text) in lines.iter().enumerate() {
        let start = if i == 0 { first.clone() } else { Line::new().own(Tone::Bad, "  │ ") };
        page.push_wrapped(&start.target(Tone::Strong, text), if i == 0 { indent } else { 6 }, ROWS);
    }
    if more > 0 {
        let line = Line::new().own(Tone::Bad, "  │ ").own(Tone::Note, "… ").number(Tone::Note, more);
        page.push(line.own(Tone::Note, if more == 1 { " more line" } else { " more lines" }));
    }
}

/// Prints the later panics, as Go prints them below the first.
fn later_panics(page: &mut Page<'_>, incident: &Incident) {
    let later = incident.panics.iter().skip(1).filter(|p| !p.goexit);
    let hidden = later.clone().count().saturating_sub(CHAIN);
    for panic in later.take(CHAIN) {
        page.push_wrapped(&value(Line::new().own(Tone::Bad, "  then panic: "), panic), 14, ROWS);
    }
    if hidden > 0 {
        let line = Line::new().own(Tone::Note, "  … then ").number(Tone::Note, hidden);
        page.push(line.own(Tone::Note, " more panics"));
    }
}

fn ancestry(page: &mut Page<'_>, incident: &Incident) {
    // The goroutine's row already names its parent.
    let told = incident.goroutine.as_ref().is_some_and(|g| g.created_by.is_some() && g.parent_id.is_some());
    if incident.ancestry.len() <= usize::from(told) {
        return;
    }
    page.title("Ancestors of the goroutine, nearest first");
    for ancestor in incident.ancestry.iter().take(20) {
        let line = Line::new().own(Tone::Plain, "  goroutine ");
        let line = match ancestor.goroutine_id {
            Some(id) => line.number(Tone::Plain, id),
            None => line.own(Tone::Note, "unknown"),
        };
        page.push_wrapped(
            &match &ancestor.created_at {
                Some(frame) => line.own(Tone::Plain, " at ").then(function_and_file(frame, module(incident))),
                None => line,
            },
            6,
            ROWS,
        );
    }
}

/// Prints the missing fields and the reasons; fields with the same reason share a line.
fn missing(page: &mut Page<'_>, incident: &Incident) {
    // Already reported in the goroutine's row.
    let said = |what: &str| matches!(what, "goroutine" | "stack") && incident.goroutine.is_none();
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for item in incident.missing.iter().filter(|m| !said(&m.what)).take(100) {
        match groups.iter_mut().find(|(reason, _)| *reason == item.reason) {
            Some((_, whats)) => whats.push(&item.what),
            None => groups.push((&item.reason, vec![&item.what])),
        }
    }
    if groups.is_empty() {
        return;
    }
    page.title("Missing");
    for (reason, whats) in groups {
        let line = Line::new().own(Tone::Plain, "  ").target(Tone::Note, &whats.join(", "));
        page.push_wrapped(&line.own(Tone::Plain, ": ").target(Tone::Plain, reason), 4, ROWS);
    }
}

fn footer(page: &mut Page<'_>, incident: &Incident) {
    page.blank();
    let mut line = Line::new().own(Tone::Dim, "incident ").target(Tone::Dim, &incident.id);
    line = line.own(Tone::Dim, ", fingerprint ").target(Tone::Dim, &incident.fingerprint);
    line = line.own(Tone::Dim, ", ").target(Tone::Dim, &incident.time);
    if let Some(delay) = incident.capture.delay_ns {
        line = line
            .own(Tone::Dim, ", captured ")
            .number(Tone::Dim, Nanos(delay))
            .own(Tone::Dim, " after the raise");
    }
    if let Some(cost) = incident.capture.cost_ns {
        line = line.own(Tone::Dim, ", capture cost ").number(Tone::Dim, Nanos(cost));
    }
    page.push_wrapped(&line, 2, ROWS);
}

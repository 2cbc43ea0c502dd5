//! The events of an incident in chronological order: raises, deferred calls, recovers, the end.

use super::{
    compact::value,
    words::{self, Since, function_and_file, module},
};
use crate::{
    incident::{Defer, DeferEnd, Frame, Incident, Kind, Outcome, Panic, State, frame_class},
    render::text::{
        Nanos,
        line::{Line, Page, Tone},
    },
};

/// Column at which text starts, after the times.
const COLUMN: usize = 14;
/// Maximum number of terminal rows for one value.
const ROWS: usize = 4;
/// A loop may have deferred thousands of calls: this many events at the start and at the end are printed.
const FIRST: usize = 60;
const LAST: usize = 20;

enum Event<'a> {
    Raise(usize, &'a Panic),
    Defer(&'a Defer),
    Recover(usize, &'a Panic),
    /// The fatal error, throw or signal, if the incident is not a panic.
    Other,
}

/// Reports whether there is more than the summary already shows: a single panic without deferred calls is
/// complete there.
pub(super) fn is_worth_telling(incident: &Incident) -> bool {
    incident.panics.len() > 1 || incident.panics.iter().any(|p| !p.defers.is_empty() || p.recover.is_some())
}

pub(super) fn render(page: &mut Page<'_>, incident: &Incident) {
    let events = events(incident);
    page.title("What happened");
    let hidden = events.len().saturating_sub(FIRST + LAST);
    for (i, (at, event)) in events.iter().enumerate() {
        if hidden > 0 && i == FIRST {
            let line = Line::new().column(COLUMN).own(Tone::Note, "… ").number(Tone::Note, hidden);
            page.push(line.own(Tone::Note, " more, all in the incident document …"));
        }
        if hidden == 0 || i < FIRST || i >= FIRST + hidden {
            tell(page, incident, *at, event);
        }
    }
    end(page, incident);
}

/// Returns all events by time. Events in the same nanosecond keep their causal order: raise, recover,
/// deferred call.
fn events(incident: &Incident) -> Vec<(u64, Event<'_>)> {
    let mut out = Vec::new();
    for (i, panic) in incident.panics.iter().enumerate() {
        out.push((panic.raised_ns, Event::Raise(i, panic)));
        if let Some(recover) = &panic.recover {
            out.push((panic.raised_ns.saturating_add(recover.ns_after_raise), Event::Recover(i, panic)));
        }
        out.extend(panic.defers.iter().map(|d| (d.start_ns, Event::Defer(d))));
    }
    if incident.kind != Kind::Panic {
        out.push((incident.start_ns, Event::Other));
    }
    out.sort_by_key(|(at, _)| *at);
    out
}

fn at(incident: &Incident, at: u64) -> Line {
    let since = Since { start: incident.start_ns, at };
    Line::new().column(2).number(Tone::Dim, since).column(COLUMN)
}

fn tell(page: &mut Page<'_>, incident: &Incident, time: u64, event: &Event<'_>) {
    let line = at(incident, time);
    match event {
        Event::Raise(i, panic) => raise(page, incident, line, *i, panic),
        Event::Defer(defer) => deferred(page, incident, line, defer),
        Event::Other => {
            let line = line.own(Tone::Bad, words::prefix(incident));
            let line = match &incident.message {
                Some(message) => line.target(Tone::Strong, message),
                None => line.own(Tone::Note, "message unknown"),
            };
            let line = match site_of_stack(incident) {
                Some(frame) => {
                    line.own(Tone::Plain, ", in ").then(function_and_file(frame, module(incident)))
                }
                None => line,
            };
            page.push_wrapped(&line, COLUMN + 2, ROWS);
        }
        Event::Recover(i, panic) => {
            let line = line.own(Tone::Good, "recover()").own(Tone::Plain, " in ");
            let by = panic.recover.as_ref().and_then(|r| r.by.as_ref());
            let line = match by {
                Some(frame) => line.then(function_and_file(frame, module(incident))),
                None => line.own(Tone::Note, "an unknown function"),
            };
            let line = line.own(Tone::Plain, " caught ").then(number(incident, *i));
            let after = panic.recover.as_ref().filter(|_| panic.raised_ns != incident.start_ns);
            let line = match after {
                Some(recover) => {
                    let line = line.own(Tone::Plain, ", ").number(Tone::Plain, Nanos(recover.ns_after_raise));
                    line.own(Tone::Plain, " after its raise")
                }
                None => line,
            };
            page.push_wrapped(&line, COLUMN + 2, ROWS);
        }
    }
}

fn raise(page: &mut Page<'_>, incident: &Incident, line: Line, i: usize, panic: &Panic) {
    // The message of a single panic is already at the top.
    let line = if incident.panics.len() == 1 && incident.kind != Kind::Panic {
        line.own(Tone::Plain, "the panic was raised")
    } else if incident.panics.len() == 1 {
        line.own(Tone::Plain, "raised")
    } else {
        let line = line.then(number(incident, i)).own(Tone::Plain, ": ");
        page.push_wrapped(&value(line, panic), COLUMN + 2, ROWS);
        Line::new().column(COLUMN + 2).own(Tone::Plain, "raised")
    };
    let line = match &panic.site {
        Some(frame) => line.own(Tone::Plain, " in ").then(function_and_file(frame, module(incident))),
        None => line.own(Tone::Note, " at an unknown place"),
    };
    let line = match &panic.value.type_name {
        Some(name) => line.own(Tone::Dim, ", type ").target(Tone::Dim, name),
        None => line,
    };
    page.push_wrapped(&line, COLUMN + 2, ROWS);
    let fate = match panic.state {
        State::Aborted => "aborted: replaced by a later panic",
        State::Repanicked => "recovered, re-panicked by the deferred call",
        State::Running if incident.outcome != Outcome::Unknown => "still in progress at the end",
        State::Running => "still in progress when last seen",
        State::Recovered | State::Fatal => return,
    };
    page.push_wrapped(&Line::new().column(COLUMN + 2).own(Tone::Note, fate), COLUMN + 2, ROWS);
}

/// Names a panic: "panic 2", or "the panic" if it is the only one.
fn number(incident: &Incident, i: usize) -> Line {
    if incident.panics.len() == 1 {
        return Line::new().own(Tone::Plain, "the panic");
    }
    Line::new().own(Tone::Plain, "panic ").number(Tone::Plain, i + 1)
}

fn deferred(page: &mut Page<'_>, incident: &Incident, line: Line, defer: &Defer) {
    let line = line.own(Tone::Plain, "deferred ");
    let line = match &defer.function {
        Some(frame) => line.then(function_and_file(frame, module(incident))),
        None if defer.nil => line.own(Tone::Strong, "nil function"),
        None => line.own(Tone::Note, "unknown function"),
    };
    let took = defer.end_ns.and_then(|end| end.checked_sub(defer.start_ns));
    let (tone, word) = match defer.ended {
        Some(DeferEnd::Returned) => (Tone::Plain, "returned"),
        Some(DeferEnd::Recovered) => (Tone::Good, "recovered the panic"),
        Some(DeferEnd::Panicked) => (Tone::Bad, "panicked"),
        Some(DeferEnd::Exited) => (Tone::Bad, "ended the process"),
        Some(DeferEnd::Goexit) => (Tone::Note, "called runtime.Goexit"),
        None => (Tone::Note, "still running when last seen"),
    };
    let mut line = line.own(Tone::Plain, ": ").own(tone, word);
    if let Some(took) = took {
        line = line.own(Tone::Plain, " after ").number(Tone::Plain, Nanos(took));
    }
    page.push_wrapped(&line, COLUMN + 2, ROWS);
    if let Some(frame) = &defer.registered_by {
        let line = Line::new().column(COLUMN + 2).own(Tone::Dim, "registered by ");
        page.push_wrapped(&line.then(function_and_file(frame, module(incident))), COLUMN + 2, ROWS);
    }
}

fn end(page: &mut Page<'_>, incident: &Incident) {
    let line = match incident.end_ns {
        Some(end) => at(incident, end),
        None => Line::new().column(COLUMN),
    };
    page.push_wrapped(&line.then(ending(incident)), COLUMN + 2, ROWS);
}

/// Returns the location of a fatal error, a throw or a signal: the innermost frame of the user's code. Frames
/// outside the frame of a panic are ignored: execution left them when that panic was raised.
pub(super) fn site_of_stack(incident: &Incident) -> Option<&Frame> {
    let own = incident.stack.split(|frame| frame.function == "panic").next().unwrap_or_default();
    let stack = if own.is_empty() || incident.kind == Kind::Panic { &incident.stack } else { own };
    frame_class::site(stack, module(incident)).and_then(|i| stack.get(i))
}

/// Describes the end of the incident in a sentence.
pub(super) fn ending(incident: &Incident) -> Line {
    let line = Line::new();
    match incident.outcome {
        Outcome::Fatal if incident.panics.is_empty() => line.then(words::exit(incident.exit)),
        Outcome::Fatal => {
            line.then(unrecovered(incident)).own(Tone::Plain, ": ").then(words::exit(incident.exit))
        }
        Outcome::Exited => {
            let caught = incident.panics.last().is_some_and(|panic| panic.recover.is_some());
            let before = if caught {
                "recover() caught it, but before the goroutine continued, "
            } else {
                "before anything recovered it, "
            };
            let line = line.own(Tone::Plain, before);
            match incident.exit {
                Some(_) => line.then(words::exit(incident.exit)),
                None => line.own(Tone::Bad, "the process executed another program (exec)"),
            }
        }
        Outcome::Recovered => line.own(Tone::Good, "recovered").own(Tone::Plain, ", the goroutine continued"),
        Outcome::Goexit => line.own(Tone::Plain, "runtime.Goexit ended the goroutine"),
        Outcome::Unknown => {
            let reason = incident.missing.iter().find(|m| m.what == "outcome").map(|m| m.reason.as_str());
            let reason = reason.unwrap_or("panicwatch lost track of the process");
            let line = line.own(Tone::Note, "unknown: ").target(Tone::Note, reason);
            match incident.exit {
                Some(_) => line.own(Tone::Plain, "; ").then(words::exit(incident.exit)),
                None => line,
            }
        }
    }
}

/// Names the panic that was not recovered and killed the process, which is the last one.
fn unrecovered(incident: &Incident) -> Line {
    let line = Line::new();
    if incident.kind != Kind::Panic {
        return line.own(Tone::Bad, "this is unrecoverable");
    }
    let earlier = incident.panics.iter().rev().skip(1).any(|panic| panic.recover.is_some());
    if earlier {
        let last = number(incident, incident.panics.len() - 1);
        return line.own(Tone::Bad, "nothing recovered ").then(last);
    }
    line.own(Tone::Bad, "nothing recovered it")
}

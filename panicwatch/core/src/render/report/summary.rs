//! The summary at the top of the full report: location, end, goroutine, process.

use super::{
    story,
    words::{self, function_and_file, module, place},
};
use crate::{
    incident::{Frame, Goroutine, Incident, Kind, Outcome, Signal},
    render::text::{
        Nanos,
        line::{Line, Page, Tone},
    },
};

/// Column at which values start.
const COLUMN: usize = 13;
/// Maximum number of terminal rows for one value.
const ROWS: usize = 6;

pub(super) fn render(page: &mut Page<'_>, incident: &Incident) {
    where_it_was(page, incident);
    row(page, "outcome", ended(incident));
    if let Some(init) = &incident.init {
        let line = match &init.package {
            Some(package) => {
                Line::new().own(Tone::Strong, "initialization of package ").target(Tone::Strong, package)
            }
            None => Line::new().own(Tone::Plain, "initialization of an unknown package"),
        };
        row(page, "during", line.own(Tone::Plain, ", before main.main"));
    }
    value_type(page, incident);
    let ended = matches!(incident.outcome, Outcome::Fatal | Outcome::Exited);
    if ended && !incident.panics.is_empty() && !story::is_worth_telling(incident) {
        row(page, "deferred", Line::new().own(Tone::Plain, "no deferred call ran"));
    }
    for signal in incident.panics.iter().filter_map(|p| p.signal.as_ref()) {
        row(page, "signal", signal_words(signal));
    }
    goroutine(page, incident);
    process(page, incident);
}

fn row(page: &mut Page<'_>, label: &'static str, line: Line) {
    let start = Line::new().column(2).own(Tone::Dim, label).column(COLUMN);
    page.push_wrapped(&start.then(line), COLUMN, ROWS);
}

fn more(page: &mut Page<'_>, line: Line) {
    page.push_wrapped(&Line::new().column(COLUMN).then(line), COLUMN, ROWS);
}

fn where_it_was(page: &mut Page<'_>, incident: &Incident) {
    let first = incident.panics.first().and_then(|p| p.site.as_ref());
    let of_stack = || story::site_of_stack(incident);
    // The stack of a fatal error, a throw or a signal shows its location; the panics in progress were raised
    // elsewhere.
    let is_panic = incident.kind == Kind::Panic;
    let site = if is_panic { first.or_else(of_stack) } else { of_stack().or(first) };
    let Some(frame) = site else {
        // Without goroutine and panics there is no location to report: the goroutine's row has the reason.
        if incident.goroutine.is_some() || !incident.panics.is_empty() {
            row(page, "where", Line::new().own(Tone::Note, "unknown"));
        }
        return;
    };
    site_rows(page, "where", frame);
    if let Some(first) = first.filter(|_| !is_panic) {
        site_rows(page, "panic in", first);
    }
    let last = incident.panics.iter().skip(1).rfind(|p| !p.goexit);
    let before = if is_panic { Some(frame) } else { first };
    if let Some(last) = last.and_then(|p| p.site.as_ref()).filter(|last| Some(*last) != before) {
        site_rows(page, "then in", last);
    }
}

/// Prints a frame on two rows: function, then file and line.
fn site_rows(page: &mut Page<'_>, label: &'static str, frame: &Frame) {
    let room = page.width().saturating_sub(COLUMN);
    row(page, label, Line::new().target(Tone::Strong, &frame.function));
    more(page, place(frame, room, Tone::Strong));
}

fn ended(incident: &Incident) -> Line {
    let line = story::ending(incident);
    match incident.end_ns.and_then(|end| end.checked_sub(incident.start_ns)) {
        Some(ns) => line.own(Tone::Plain, ", ").number(Tone::Plain, Nanos(ns)).own(
            Tone::Plain,
            match incident.kind {
                Kind::Panic => " after the raise",
                Kind::FatalError | Kind::Throw | Kind::Signal => " later",
            },
        ),
        None => line,
    }
}

/// Prints the type of the value, unless the list of events has it.
fn value_type(page: &mut Page<'_>, incident: &Incident) {
    let Some(panic) = incident.panics.first().filter(|_| !story::is_worth_telling(incident)) else { return };
    if let Some(name) = &panic.value.type_name {
        row(page, "value", Line::new().own(Tone::Plain, "of type ").target(Tone::Plain, name));
    }
}

fn signal_words(signal: &Signal) -> Line {
    let line = Line::new().target(Tone::Plain, &signal.name).own(Tone::Plain, " (");
    let mut line = line.number(Tone::Plain, signal.number).own(Tone::Plain, ")");
    if let Some(code) = signal.code {
        line = line.own(Tone::Plain, ", code ").number(Tone::Plain, code);
    }
    if let Some(addr) = signal.addr {
        line = line.own(Tone::Plain, ", address ").number(Tone::Strong, addr);
    }
    if let Some(pc) = signal.pc {
        line = line.own(Tone::Plain, ", raised by the instruction at ").number(Tone::Plain, pc);
    }
    line
}

fn goroutine(page: &mut Page<'_>, incident: &Incident) {
    let Some(goroutine) = &incident.goroutine else {
        let reason = incident.missing.iter().find(|m| m.what == "goroutine").map(|m| m.reason.as_str());
        let line = Line::new().own(Tone::Note, "none");
        return row(
            page,
            "goroutine",
            match reason {
                Some(reason) => line.own(Tone::Plain, ": ").target(Tone::Plain, reason),
                None => line,
            },
        );
    };
    row(page, "goroutine", identity(goroutine));
    let module = module(incident);
    if let Some(frame) = &goroutine.start {
        more(page, Line::new().own(Tone::Plain, "runs ").then(function_and_file(frame, module)));
    }
    if let Some(frame) = &goroutine.created_by {
        let line = Line::new().own(Tone::Plain, "created by ").then(function_and_file(frame, module));
        more(
            page,
            match goroutine.parent_id {
                Some(id) => line.own(Tone::Plain, " in goroutine ").number(Tone::Plain, id),
                None => line,
            },
        );
    }
    if !goroutine.labels.is_empty() {
        let mut line = Line::new().own(Tone::Plain, "labels");
        for (key, value) in goroutine.labels.iter().take(20) {
            line = pair(line, key, value);
        }
        more(page, line);
    }
    if let (Some(lo), Some(hi)) = (goroutine.stack_lo, goroutine.stack_hi) {
        let line = Line::new()
            .own(Tone::Dim, "stack ")
            .number(Tone::Dim, lo)
            .own(Tone::Dim, "–")
            .number(Tone::Dim, hi);
        more(
            page,
            match goroutine.stackguard0 {
                Some(guard) => line.own(Tone::Dim, ", guard ").number(Tone::Dim, guard),
                None => line,
            },
        );
    }
}

/// Appends "key=value", separated by a space from what precedes it.
fn pair(line: Line, key: &str, value: &str) -> Line {
    let line = if line.is_empty() { line } else { line.own(Tone::Plain, " ") };
    line.target(Tone::Dim, key).own(Tone::Dim, "=").target(Tone::Plain, value)
}

fn identity(goroutine: &Goroutine) -> Line {
    let mut line = Line::new().number(Tone::Plain, goroutine.id);
    if let Some(status) = &goroutine.status {
        line = line.own(Tone::Plain, " [").target(Tone::Plain, status);
        if let Some(reason) = &goroutine.wait_reason {
            line = line.own(Tone::Plain, ", ").target(Tone::Plain, reason);
        }
        line = line.own(Tone::Plain, "]");
    }
    if goroutine.locked_to_thread == Some(true) {
        line = line.own(Tone::Plain, ", locked to its thread");
    }
    if let Some(thread) = goroutine.thread_id {
        line = line.own(Tone::Plain, ", thread ").number(Tone::Plain, thread);
    }
    match goroutine.defer_depth {
        Some(0) => line.own(Tone::Plain, ", no deferred calls pending"),
        Some(1) => line.own(Tone::Plain, ", 1 deferred call pending"),
        Some(n) => {
            line.own(Tone::Plain, ", ").number(Tone::Plain, n).own(Tone::Plain, " deferred calls pending")
        }
        None => line,
    }
}

fn process(page: &mut Page<'_>, incident: &Incident) {
    let process = &incident.process;
    let line = Line::new().target(Tone::Plain, words::program(incident)).own(Tone::Plain, ", pid ");
    let mut line = line.number(Tone::Plain, process.pid);
    if let Some(version) = &process.go_version {
        line = line.own(Tone::Plain, ", ").target(Tone::Plain, version);
    }
    if let Some(module) = &process.module {
        line = line.own(Tone::Plain, ", ").target(Tone::Plain, module);
        for part in [process.module_version.as_deref(), process.vcs_revision.as_deref().map(short)] {
            line = part.map_or(line.clone(), |p| line.own(Tone::Plain, " ").target(Tone::Plain, p));
        }
    }
    row(page, "process", line);
    let command = process.args.as_ref().map(|args| {
        args.iter().take(50).fold(Line::new(), |line, arg| {
            let line = if line.is_empty() { line } else { line.own(Tone::Plain, " ") };
            line.target(Tone::Dim, arg)
        })
    });
    match (command, &process.exe) {
        (Some(line), _) if !line.is_empty() => more(page, line),
        (_, Some(exe)) => more(page, Line::new().target(Tone::Dim, exe)),
        _ => {}
    }
    for (label, place) in [("container", &process.container), ("pod", &process.kubernetes)] {
        if let Some(serde_json::Value::Object(object)) = place {
            row(page, label, fields(object));
        }
    }
    host(page, incident);
    if let Some(env) = process.env.as_ref().filter(|e| !e.is_empty()) {
        row(page, "env", env.iter().take(20).fold(Line::new(), |line, (k, v)| pair(line, k, v)));
    }
}

/// Prints the host, if the document names it.
fn host(page: &mut Page<'_>, incident: &Incident) {
    let Some(host) = &incident.host else { return };
    let line = match &host.name {
        Some(name) => Line::new().target(Tone::Plain, name),
        None => Line::new().own(Tone::Note, "name unknown"),
    };
    row(
        page,
        "host",
        match &host.boot_id {
            Some(boot) => line.own(Tone::Dim, ", boot ").target(Tone::Dim, boot),
            None => line,
        },
    );
}

/// Returns the first twelve digits of a revision, which suffice to identify it.
fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

/// Formats the scalar fields of an object as "key=value".
pub(super) fn fields(object: &serde_json::Map<String, serde_json::Value>) -> Line {
    use serde_json::Value::{Array, Null, Object, String};
    object.iter().take(24).fold(Line::new(), |line, (key, value)| match value {
        String(text) => pair(line, key, text),
        Null | Object(_) | Array(_) => line,
        other => pair(line, key, &other.to_string()),
    })
}

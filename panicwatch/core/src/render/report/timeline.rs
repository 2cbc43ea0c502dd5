//! Renders the window before the raise: lanes, durations, the last events.

use super::{lanes, words::Since};
use crate::{
    incident::timeline::{Doing, STACK_SCAN, Share, Timeline, Track, TrackKind},
    recorder::Source,
    render::text::{
        Nanos,
        line::{Line, Page, Tone},
    },
};

/// Column at which lanes start, after their names.
const COLUMN: usize = 16;
/// Maximum number of thread lanes and of CPU lanes.
const ROWS: usize = 2;
/// Maximum number of terminal rows for one sentence.
const LINES: usize = 5;
/// Maximum number of gaps, and of reasons for missing sources, printed individually.
const REASONS: usize = 8;

pub(super) fn render(page: &mut Page<'_>, timeline: &Timeline) {
    let Some(span) = timeline.raise_ns.checked_sub(timeline.from_ns).filter(|span| *span > 0) else {
        page.title("Timeline");
        return page.push(Line::new().column(2).own(Tone::Note, "nothing was recorded"));
    };
    page.title_line(Line::new().own(Tone::Title, "Timeline, last ").number(Tone::Title, Round(span)));
    picture(page, timeline, span);
    page.blank();
    numbers(page, timeline);
    incidents(page, timeline);
    unknown(page, timeline);
    last(page, timeline);
}

/// A duration in nanoseconds, printed without decimals if it is a whole number of milliseconds or seconds.
struct Round(u64);

impl crate::render::text::line::Number for Round {}

impl std::fmt::Display for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            ns if ns % 1_000_000 == 0 && ns < 1_000_000_000 => write!(f, "{} ms", ns / 1_000_000),
            ns if ns % 1_000_000_000 == 0 => write!(f, "{} s", ns / 1_000_000_000),
            ns => Nanos(ns).fmt(f),
        }
    }
}

fn picture(page: &mut Page<'_>, timeline: &Timeline, span: u64) {
    let columns = page.width().saturating_sub(COLUMN);
    let rows = rows(timeline);
    let drawn: Vec<_> = rows.iter().map(|track| lanes::lane(timeline, track, columns)).collect();
    page.push(axis(span, columns));
    for (track, lane) in rows.iter().zip(&drawn) {
        page.push(name(track).column(COLUMN).then(lanes::draw(lane)));
    }
    let mut line = Line::new().column(COLUMN);
    for (i, piece) in lanes::legend(&drawn).into_iter().enumerate() {
        if line.width() + 3 + piece.width() > page.width() {
            page.push(std::mem::replace(&mut line, Line::new().column(COLUMN)));
        } else if i > 0 {
            line = line.own(Tone::Plain, "   ");
        }
        line = line.then(piece);
    }
    page.push(line);
}

fn axis(span: u64, columns: usize) -> Line {
    let line = Line::new().column(COLUMN).own(Tone::Dim, "-").number(Tone::Dim, Round(span));
    let middle = COLUMN + columns / 2;
    let line = line.column(middle).own(Tone::Dim, "-").number(Tone::Dim, Nanos(span / 2));
    line.column(COLUMN + columns - "raise".len()).own(Tone::Bad, "raise")
}

fn name(track: &Track) -> Line {
    let line = Line::new().column(2);
    match track.kind {
        TrackKind::Goroutine => line.own(Tone::Strong, "goroutine ").number(Tone::Strong, track.id),
        TrackKind::Thread => line.own(Tone::Plain, "thread ").number(Tone::Plain, track.id),
        TrackKind::Cpu => line.own(Tone::Plain, "CPU ").number(Tone::Plain, track.id),
        TrackKind::Gc => line.own(Tone::Plain, "GC"),
        TrackKind::Process => line.own(Tone::Plain, "process"),
    }
}

/// Returns the tracks to draw: the goroutine, the threads and CPUs that ran it longest, and the GC if it was
/// active.
fn rows(timeline: &Timeline) -> Vec<&Track> {
    let goroutine = timeline.summary.goroutine;
    let of = |kind| timeline.tracks.iter().filter(move |track| track.kind == kind);
    let its = |track: &&Track| goroutine.is_some() && Some(track.id) == goroutine;
    let mut rows: Vec<&Track> = of(TrackKind::Goroutine).filter(its).take(1).collect();
    if rows.is_empty() {
        rows.extend(of(TrackKind::Process).take(1));
    }
    for kind in [TrackKind::Thread, TrackKind::Cpu] {
        let mut ranked: Vec<(u64, &Track)> =
            of(kind).map(|track| (had(track, goroutine, timeline), track)).collect();
        ranked.retain(|(ns, _)| *ns > 0);
        ranked.sort_by_key(|(ns, track)| (std::cmp::Reverse(*ns), track.id));
        rows.extend(ranked.into_iter().take(ROWS).map(|(_, track)| track));
    }
    let busy = |track: &&Track| {
        let told = |state: Doing| matches!(state, Doing::Marking | Doing::Stopped);
        track.states.iter().any(|s| told(s.state) && s.from_ns < timeline.raise_ns)
    };
    rows.extend(of(TrackKind::Gc).filter(busy).take(1));
    rows
}

/// Returns how long a thread or CPU ran the goroutine before the raise; any goroutine if the incident has
/// none.
fn had(track: &Track, goroutine: Option<u64>, timeline: &Timeline) -> u64 {
    let states = track.states.iter().filter(|s| match goroutine {
        Some(_) => s.goroutine == goroutine,
        None => s.state == Doing::Running,
    });
    states.fold(0, |sum, s| {
        let (from, to) = (s.from_ns.max(timeline.from_ns), s.to_ns.min(timeline.raise_ns));
        sum.saturating_add(to.saturating_sub(from))
    })
}

/// Prints the time that the goroutine spent in each state, with the largest shares first where available.
fn numbers(page: &mut Page<'_>, timeline: &Timeline) {
    let summary = &timeline.summary;
    let Some(id) = summary.goroutine else {
        let line = Line::new().column(2).own(Tone::Note, "no goroutine was involved");
        return page.push(line);
    };
    let mut line = Line::new().column(2).own(Tone::Plain, "goroutine ").number(Tone::Plain, id);
    line = line.own(Tone::Plain, ":");
    let mut first = true;
    let mut tell = |line: Line, state: &'static str, ns: u64, shares: &[Share], note: Line| {
        if ns == 0 {
            return line;
        }
        let line = line.own(Tone::Plain, if std::mem::take(&mut first) { " " } else { ", " });
        let line = line.own(Tone::Plain, state);
        // The reason stands by the state; several have a part of the time each, which stands behind the sum.
        match shares {
            [_] => parts(line, shares).own(Tone::Plain, " ").number(Tone::Strong, Nanos(ns)).then(note),
            _ => parts(line.own(Tone::Plain, " ").number(Tone::Strong, Nanos(ns)), shares).then(note),
        }
    };
    let no_calls = timeline.off.iter().any(|off| off.source == Source::Syscall.name());
    let running = notes(summary.inferred_ns, no_calls);
    line = tell(line, "running", summary.running_ns, &[], running);
    line = tell(line, "runnable", summary.runnable_ns, &[], Line::new());
    line = tell(line, "syscall", summary.syscall_ns, &summary.syscalls, Line::new());
    line = tell(line, "waiting", summary.waiting_ns, &summary.waiting, Line::new());
    line = tell(line, "stopped", summary.stopped_ns, &stops(&summary.stopped), Line::new());
    let not_running = notes(summary.not_running_inferred_ns, false);
    line = tell(line, "not running", summary.not_running_ns, &[], not_running);
    line = tell(line, "not created yet", summary.ended_ns, &[], Line::new());
    line = tell(line, "unknown", summary.unknown_ns, &[], Line::new());
    page.push_wrapped(&line, 4, LINES);
}

/// Returns a note such as " (165 µs inferred, syscalls included)".
fn notes(inferred_ns: u64, with_calls: bool) -> Line {
    let line = Line::new();
    let line = match inferred_ns {
        0 if !with_calls => return line,
        0 => line.own(Tone::Note, " ("),
        ns => line.own(Tone::Note, " (").number(Tone::Note, Nanos(ns)).own(Tone::Note, " inferred"),
    };
    let line = match (inferred_ns, with_calls) {
        (0, _) => line.own(Tone::Note, "syscalls included"),
        (_, true) => line.own(Tone::Note, ", syscalls included"),
        (_, false) => line,
    };
    line.own(Tone::Note, ")")
}

/// Names the reasons for being stopped: all but the scan of the goroutine's own stack are reasons to stop the
/// world.
fn stops(shares: &[Share]) -> Vec<Share> {
    let what = |what: &str| if what == STACK_SCAN { what.to_owned() } else { format!("STW, {what}") };
    shares.iter().map(|share| Share { what: what(&share.what), ..share.clone() }).collect()
}

/// Appends shares such as " (read 3 × 900 µs, …)".
fn parts(line: Line, shares: &[Share]) -> Line {
    const SHOWN: usize = 5;
    let mut line = line;
    for (i, share) in shares.iter().take(SHOWN).enumerate() {
        line = line.own(Tone::Plain, if i == 0 { " (" } else { ", " }).target(Tone::Plain, &share.what);
        if share.count > 1 {
            line = line.own(Tone::Plain, " ").number(Tone::Plain, share.count).own(Tone::Plain, " times");
        }
        if shares.len() > 1 {
            line = line.own(Tone::Plain, " ").number(Tone::Plain, Nanos(share.ns));
        }
    }
    if shares.len() > SHOWN {
        line = line
            .own(Tone::Plain, ", and ")
            .number(Tone::Plain, shares.len() - SHOWN)
            .own(Tone::Plain, " more");
    }
    if shares.is_empty() { line } else { line.own(Tone::Plain, ")") }
}

/// Prints the counts of events such as preemptions and signals, and what woke the goroutine last.
fn incidents(page: &mut Page<'_>, timeline: &Timeline) {
    let summary = &timeline.summary;
    let counts = [
        (summary.preemptions, "kernel preemption", "kernel preemptions"),
        (summary.yields, "Go preemption or yield", "Go preemptions or yields"),
        (summary.migrations, "CPU migration", "CPU migrations"),
        (Some(summary.thread_changes), "thread change", "thread changes"),
        (summary.page_faults, "page fault", "page faults"),
        (summary.gc_assists, "mark assist", "mark assists"),
    ];
    let mut line = Line::new().column(2);
    let mut any = false;
    let mut add =
        |line: Line| line.own(Tone::Plain, if std::mem::replace(&mut any, true) { ", " } else { "" });
    for (n, one, many) in
        counts.into_iter().filter_map(|(n, one, many)| Some((n.filter(|n| *n > 0)?, one, many)))
    {
        line = add(line)
            .number(Tone::Plain, n)
            .own(Tone::Plain, " ")
            .own(Tone::Plain, if n == 1 { one } else { many });
    }
    for signal in summary.signals.iter().take(REASONS) {
        line = add(line).number(Tone::Plain, signal.count).own(Tone::Plain, " × ");
        line = match &signal.name {
            Some(name) => line.target(Tone::Plain, name),
            None => line.own(Tone::Plain, "signal ").number(Tone::Plain, signal.number),
        };
        if signal.name.as_deref() == Some("SIGURG") {
            line = line.own(Tone::Plain, " (Go's preemption signal)");
        }
    }
    if any {
        page.push_wrapped(&line, 4, LINES);
    }
    if let Some(woken) = &summary.woken {
        let line = Line::new().column(2).own(Tone::Plain, "last woken ");
        let before = timeline.raise_ns.saturating_sub(woken.time_ns);
        let line = line.number(Tone::Plain, Nanos(before)).own(Tone::Plain, " before the raise by ");
        let line = match (woken.goroutine, woken.thread) {
            (Some(id), Some(tid)) => {
                let line = line.own(Tone::Plain, "goroutine ").number(Tone::Plain, id);
                line.own(Tone::Plain, " on thread ").number(Tone::Plain, tid)
            }
            (Some(id), None) => line.own(Tone::Plain, "goroutine ").number(Tone::Plain, id),
            (None, Some(tid)) => line.own(Tone::Plain, "thread ").number(Tone::Plain, tid),
            (None, None) => line.own(Tone::Plain, "an interrupt"),
        };
        let line = match &woken.syscall {
            Some(name) => line.own(Tone::Plain, ", in ").target(Tone::Plain, name),
            None => line,
        };
        page.push_wrapped(&line, 4, LINES);
    }
}

/// Prints the gaps and the sources that were disabled.
fn unknown(page: &mut Page<'_>, timeline: &Timeline) {
    for gap in timeline.gaps.iter().take(REASONS) {
        let since = |at| Since { start: timeline.raise_ns, at };
        let line = Line::new().column(2).own(Tone::Note, "CPU ").number(Tone::Note, gap.cpu);
        let line = line.own(Tone::Note, " from ").number(Tone::Note, since(gap.from_ns));
        let line = line.own(Tone::Note, " to ").number(Tone::Note, since(gap.to_ns)).own(Tone::Note, ": ");
        let line = match gap.lost {
            0 => line.own(Tone::Note, "not recorded"),
            lost => line.number(Tone::Note, lost).own(Tone::Note, " records lost"),
        };
        page.push_wrapped(&line, 4, LINES);
    }
    if timeline.gaps.len() > REASONS {
        let line = Line::new().column(2).own(Tone::Note, "… and ");
        page.push(line.number(Tone::Note, timeline.gaps.len() - REASONS).own(Tone::Note, " more gaps"));
    }
    // Sources with the same reason share a line.
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for off in timeline.off.iter().take(64) {
        let source = source_words(&off.source);
        match groups.iter_mut().find(|(reason, _)| *reason == off.reason) {
            Some((_, sources)) => sources.push(source),
            None => groups.push((&off.reason, vec![source])),
        }
    }
    for (reason, sources) in groups.into_iter().take(REASONS) {
        let line =
            Line::new().column(2).own(Tone::Note, "not recorded: ").target(Tone::Note, &sources.join(", "));
        page.push_wrapped(
            &line.own(Tone::Plain, " (").target(Tone::Plain, reason).own(Tone::Plain, ")"),
            4,
            LINES,
        );
    }
}

/// Returns the description of a recorder source.
fn source_words(source: &str) -> &str {
    match source {
        "switch" => "context switches",
        "wakeup" => "wake-ups",
        "migrate" => "CPU migrations",
        "signal" => "signals",
        "syscall" => "system calls",
        "fault" => "page faults",
        "send" => "socket sends",
        "sample" => "CPU samples",
        "gc" => "GC phases",
        "assist" => "mark assists",
        "goroutine" => "Go scheduler events",
        "function" => "function entries",
        other => other,
    }
}

fn last(page: &mut Page<'_>, timeline: &Timeline) {
    let steps = &timeline.summary.last;
    if steps.is_empty() {
        return;
    }
    page.blank();
    page.push(Line::new().column(2).own(Tone::Plain, "last steps"));
    for step in steps.iter().rev().take(20).rev() {
        let since = Since { start: timeline.raise_ns, at: step.time_ns };
        let line = Line::new().column(4).number(Tone::Dim, since).column(COLUMN);
        page.push_wrapped(&line.target(Tone::Plain, &step.words), COLUMN + 2, LINES);
    }
}

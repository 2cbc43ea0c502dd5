//! States of goroutines over time, read from Go's execution trace and from a timeline, and compared.
//!
//! Independent of files, processes and incidents: the input is text and spans, the output differences.

pub(crate) mod compare;
pub(crate) mod old;
pub(crate) mod parsed;

use std::collections::BTreeMap;

/// State of a goroutine, in terms common to Go's tracer and the timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// Running on a thread.
    Running,
    /// Ready to run, waiting to be scheduled.
    Runnable,
    /// Blocked, with a wait reason.
    Waiting,
    /// In a system call.
    Syscall,
}

/// A state over a period of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// Beginning: CLOCK_MONOTONIC, in nanoseconds.
    pub(crate) from_ns: u64,
    /// End, exclusive: the first nanosecond after it.
    pub(crate) to_ns: u64,
    /// State of the goroutine.
    pub(crate) state: State,
    /// Wait reason, or why a runnable goroutine does not run; empty if not recorded.
    pub(crate) reason: String,
    /// States that the other account may have instead, where the two cannot be told apart.
    pub(crate) also: &'static [State],
}

impl Span {
    /// Returns a span without alternative states.
    pub(crate) fn new(from_ns: u64, to_ns: u64, state: State, reason: &str) -> Span {
        Span { from_ns, to_ns, state, reason: reason.to_owned(), also: &[] }
    }

    /// Returns the part inside a window, if any.
    pub(crate) fn within(&self, window: (u64, u64)) -> Option<Span> {
        let (from_ns, to_ns) = (self.from_ns.max(window.0), self.to_ns.min(window.1));
        (from_ns < to_ns).then(|| Span { from_ns, to_ns, ..self.clone() })
    }

    /// Returns its length in nanoseconds.
    pub(crate) fn ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// A period that is not a goroutine's state: a stop-the-world pause or a mark phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// Beginning: CLOCK_MONOTONIC, in nanoseconds.
    pub(crate) from_ns: u64,
    /// End, in the same clock.
    pub(crate) to_ns: u64,
    /// For a stop-the-world pause, its reason, as Go names it.
    pub(crate) name: String,
}

/// A log line that the program wrote into the trace: its own reading of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Time in the trace's own clock, in nanoseconds.
    pub(crate) time_ns: u64,
    /// One of `start`, `panic`, `stop`.
    pub(crate) what: String,
    /// CLOCK_MONOTONIC shortly before the line was written, in nanoseconds.
    pub(crate) clock_ns: u64,
    /// goid of the goroutine that wrote it.
    pub(crate) goroutine: u64,
}

/// The compared part of an execution trace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// States of each goroutine, in order.
    pub(crate) goroutines: BTreeMap<u64, Vec<Span>>,
    /// Times in which the world was stopped.
    pub(crate) stopped: Vec<Range>,
    /// Concurrent mark phases.
    pub(crate) marking: Vec<Range>,
    /// The program's log lines, in order.
    pub(crate) notes: Vec<Note>,
    /// Time of the last event.
    pub(crate) end_ns: u64,
    /// Whether the format records the end of a system call that kept its P.
    pub(crate) has_syscalls: bool,
    open: BTreeMap<u64, (u64, State, String)>,
    open_stop: Option<(u64, String)>,
    open_mark: Option<u64>,
}

impl Trace {
    /// Changes a goroutine's state; `None` if the goroutine ended.
    fn turn(&mut self, goroutine: u64, time_ns: u64, to: Option<(State, &str)>) {
        if let Some((from_ns, state, reason)) = self.open.remove(&goroutine) {
            let span = Span::new(from_ns, time_ns, state, &reason);
            self.goroutines.entry(goroutine).or_default().push(span);
        }
        if let Some((state, reason)) = to {
            self.open.insert(goroutine, (time_ns, state, reason.to_owned()));
        }
    }

    fn stop(&mut self, time_ns: u64, reason: &str) {
        self.open_stop = Some((time_ns, reason.to_owned()));
    }

    fn start(&mut self, time_ns: u64) {
        if let Some((from_ns, name)) = self.open_stop.take() {
            self.stopped.push(Range { from_ns, to_ns: time_ns, name });
        }
    }

    fn mark(&mut self, time_ns: u64, begins: bool) {
        if begins {
            self.open_mark = Some(time_ns);
        } else if let Some(from_ns) = self.open_mark.take() {
            self.marking.push(Range { from_ns, to_ns: time_ns, name: "mark".to_owned() });
        }
    }

    /// Closes the states that are open when the trace ends.
    fn close(&mut self, end_ns: u64) {
        self.end_ns = end_ns;
        for goroutine in self.open.keys().copied().collect::<Vec<_>>() {
            self.turn(goroutine, end_ns, None);
        }
    }

    /// Returns the log line that the program wrote just before it panicked.
    pub(crate) fn panic(&self) -> Option<&Note> {
        self.notes.iter().find(|note| note.what == "panic")
    }

    /// Returns by how much the program's clock is ahead of the trace's: the largest and the smallest
    /// difference. Each line was written shortly after the clock was read, so the largest difference is the
    /// most accurate; the smallest shows how inaccurate the others may be.
    pub(crate) fn clock_ahead(&self) -> Option<(i64, i64)> {
        let ahead = self.notes.iter().map(|note| note.clock_ns.cast_signed() - note.time_ns.cast_signed());
        ahead.clone().max().zip(ahead.min())
    }

    /// Shifts every time by `by` nanoseconds.
    fn moved(mut self, by: i64) -> Trace {
        let add = |time: &mut u64| *time = time.saturating_add_signed(by);
        for span in self.goroutines.values_mut().flatten() {
            add(&mut span.from_ns);
            add(&mut span.to_ns);
        }
        for range in self.stopped.iter_mut().chain(&mut self.marking) {
            add(&mut range.from_ns);
            add(&mut range.to_ns);
        }
        self.notes.iter_mut().for_each(|note| add(&mut note.time_ns));
        add(&mut self.end_ns);
        self
    }
}

/// Returns the value after `name=`: a word, or a text in quotation marks.
fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let at = line.match_indices(name).find(|(at, _)| {
        line[at + name.len()..].starts_with('=') && (*at == 0 || line.as_bytes()[at - 1] == b' ')
    })?;
    let value = &line[at.0 + name.len() + 1..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').map(|(value, _)| value),
        None => value.split_whitespace().next(),
    }
}

fn number<T: std::str::FromStr>(line: &str, name: &str) -> Option<T> {
    field(line, name)?.parse().ok()
}

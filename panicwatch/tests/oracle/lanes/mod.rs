//! What goroutines did over time, as Go's execution tracer says and as a time line says: read, and compared.
//!
//! Knows nothing of files, processes and incidents: text and spans go in, differences come out.

pub(crate) mod compare;
pub(crate) mod old;
pub(crate) mod parsed;

use std::collections::BTreeMap;

/// What a goroutine does, in the words that Go's tracer and the time line share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum State {
    /// It has a thread.
    Running,
    /// It could run and waits for its turn.
    Runnable,
    /// It waits for something that another does.
    Waiting,
    /// It is in a system call.
    Syscall,
}

/// A state that lasted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub(crate) from_ns: u64,
    /// First nanosecond after it.
    pub(crate) to_ns: u64,
    /// The state.
    pub(crate) state: State,
    /// What a waiting goroutine waits for, or why a runnable one does not run; empty when nobody said.
    pub(crate) reason: String,
    /// What the other account may call this state: the two do not tell everything apart.
    pub(crate) also: &'static [State],
}

impl Span {
    /// A state that is what it is.
    pub(crate) fn new(from_ns: u64, to_ns: u64, state: State, reason: &str) -> Span {
        Span { from_ns, to_ns, state, reason: reason.to_owned(), also: &[] }
    }

    /// Its part inside a window.
    pub(crate) fn within(&self, window: (u64, u64)) -> Option<Span> {
        let (from_ns, to_ns) = (self.from_ns.max(window.0), self.to_ns.min(window.1));
        (from_ns < to_ns).then(|| Span { from_ns, to_ns, ..self.clone() })
    }

    /// How long it lasted.
    pub(crate) fn ns(&self) -> u64 {
        self.to_ns.saturating_sub(self.from_ns)
    }
}

/// Something with a beginning and an end that is not a goroutine's state: the world stopped, a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub(crate) from_ns: u64,
    /// The end.
    pub(crate) to_ns: u64,
    /// For a stop of the world its reason, as Go names it.
    pub(crate) name: String,
}

/// A line that the program wrote into the trace: its own reading of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Time in the trace's own clock.
    pub(crate) time_ns: u64,
    /// `start`, `panic`, `stop`.
    pub(crate) what: String,
    /// CLOCK_MONOTONIC a moment before it.
    pub(crate) clock_ns: u64,
    /// The goroutine that wrote it.
    pub(crate) goroutine: u64,
}

/// An execution trace, as far as it is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// Per goroutine, in order.
    pub(crate) goroutines: BTreeMap<u64, Vec<Span>>,
    /// The world stopped.
    pub(crate) stopped: Vec<Range>,
    /// Concurrent marking.
    pub(crate) marking: Vec<Range>,
    /// In order.
    pub(crate) notes: Vec<Note>,
    /// Last time in it.
    pub(crate) end_ns: u64,
    /// The format tells when a system call that kept its P ended.
    pub(crate) has_syscalls: bool,
    open: BTreeMap<u64, (u64, State, String)>,
    open_stop: Option<(u64, String)>,
    open_mark: Option<u64>,
}

impl Trace {
    /// The goroutine changes its state; `None`: it is gone.
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

    /// What is under way when the trace ends.
    fn close(&mut self, end_ns: u64) {
        self.end_ns = end_ns;
        for goroutine in self.open.keys().copied().collect::<Vec<_>>() {
            self.turn(goroutine, end_ns, None);
        }
    }

    /// What the goroutine wrote that was about to panic.
    pub(crate) fn panic(&self) -> Option<&Note> {
        self.notes.iter().find(|note| note.what == "panic")
    }

    /// How far the clock of the program is ahead of the trace's: the notes were written a moment after the clock was
    /// read, so the largest difference is the nearest to the truth. The least tells how far from it another may be.
    pub(crate) fn clock_ahead(&self) -> Option<(i64, i64)> {
        let ahead = self.notes.iter().map(|note| note.clock_ns.cast_signed() - note.time_ns.cast_signed());
        ahead.clone().max().zip(ahead.min())
    }

    /// The same with every time moved.
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

/// The value behind `name=`: a word, or what stands between quotation marks.
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

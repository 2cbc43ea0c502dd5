//! The timeline of an incident: what its goroutine, other goroutines, threads, CPUs and the garbage collector
//! did in the window before it.
//!
//! Builds a [`Timeline`] from records of the flight recorder. No I/O, no clock: every race can be a table of
//! records in a test. Time that was not recorded is a separate state, with the reason; docs/timeline.md
//! describes which states are inferred from which records. Must not know rings, files or processes; names are
//! looked up through [`Names`].

mod bound;
mod cpu;
mod events;
mod functions;
mod gc;
mod last;
mod names;
mod panics;
mod replay;
mod samples;
mod states;
mod steps;
mod summary;
#[cfg(test)]
mod tests;
mod thread;
mod turns;
mod words;

use panicwatch_common::recorder::{Sample, Slot};

pub use self::names::{signal_name, syscall_name};
use crate::{
    incident::{
        Frame, Outcome, Panic,
        timeline::{Gap, Off, Timeline},
    },
    recorder::Source,
};

/// Input of [`build`].
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// Requested length of the window before the raise.
    pub window_ns: u64,
    /// Beginning of the window.
    pub from_ns: u64,
    /// Time of the incident's first raise.
    pub raise_ns: u64,
    /// End of the timeline; not before the raise.
    pub to_ns: u64,
    /// Records and the CPUs they were made on, in order of time. Those before `from_ns` determine the states
    /// at the beginning. Outside `gaps`, records from `from_ns` to `to_ns` are complete; those of other
    /// processes are ignored.
    pub records: &'a [(u32, Slot)],
    /// Samples, in order of time.
    pub samples: &'a [(u32, Sample)],
    /// Intervals in which records of a CPU were lost or the CPU was not recorded.
    pub gaps: &'a [Gap],
    /// Sources that were not recorded all the time, by the names of [`Source`].
    pub off: &'a [Off],
    /// Process whose timeline is built.
    pub pid: u32,
    /// The panicking goroutine.
    pub goroutine: Option<u64>,
    /// Thread that ran the goroutine at the raise.
    pub thread: Option<u32>,
    /// CPU on which that thread ran at the raise.
    pub cpu: Option<u32>,
    /// Panics of the incident.
    pub panics: &'a [Panic],
    /// Outcome of the incident.
    pub outcome: Outcome,
    /// Time of the incident's end, if known.
    pub end_ns: Option<u64>,
    /// Lookup of names.
    pub names: &'a dyn Names,
}

/// Names for the numbers in records. Unknown names are `None` or empty.
pub trait Names {
    /// Returns the frames at `pc`, innermost first. `exact` means that `pc` is an instruction, not a return
    /// address.
    fn frames(&self, pc: u64, exact: bool) -> Vec<Frame>;
    /// Returns symbol and offset of an address in the kernel.
    fn kernel(&self, pc: u64) -> Option<String>;
    /// Returns the text of a goroutine's wait reason.
    fn wait_reason(&self, number: u32) -> Option<&str>;
    /// Returns the text of a stop-the-world (STW) reason.
    fn stw_reason(&self, number: u32) -> Option<&str>;
    /// Returns the name of a thread.
    fn thread_name(&self, tid: u32) -> Option<String>;
    /// Returns the name of a system call; see [`syscall_name`].
    fn syscall(&self, number: u32) -> Option<&str>;
}

impl<'a> Input<'a> {
    /// Iterates over the records of the process.
    fn own_records(&self) -> impl Iterator<Item = (u32, &'a Slot)> {
        let (pid, to) = (self.pid, self.to_ns);
        self.records
            .iter()
            .filter(move |(_, slot)| slot.tgid == pid && slot.time_ns <= to)
            .map(|(cpu, slot)| (*cpu, slot))
    }

    /// Iterates over the samples of the process.
    fn own_samples(&self) -> impl Iterator<Item = (u32, &'a Sample)> {
        let (pid, to) = (self.pid, self.to_ns);
        self.samples
            .iter()
            .filter(move |(_, sample)| sample.tgid == pid && sample.time_ns <= to)
            .map(|(cpu, sample)| (*cpu, sample))
    }

    /// Reports whether a source was not recorded all the time: a lack of its records then has no meaning.
    fn lacks(&self, source: Source) -> bool {
        self.off.iter().any(|off| off.source == source.name())
    }

    fn is_shown(&self, at: u64) -> bool {
        self.from_ns <= at && at <= self.to_ns
    }
}

/// Builds the timeline from `input`.
pub fn build(input: &Input<'_>) -> Timeline {
    let raise_ns = input.raise_ns.max(input.from_ns);
    let to_ns = input.to_ns.max(raise_ns);
    let input = &Input { raise_ns, to_ns, ..*input };
    let replay = replay::replay(input);
    let gc = gc::gc(input);
    let mut tracks = states::goroutines(input, &replay, &gc);
    tracks.extend(states::threads(input, &replay));
    tracks.extend(cpu::tracks(input, &replay));
    tracks.push(gc::track(input, &gc));
    tracks.push(states::process(input, &replay));
    functions::add(input, &mut tracks);
    panics::add(input, &mut tracks);
    samples::add(input, &replay, &mut tracks);
    let mut events = events::events(input, &replay);
    let summary = summary::summary(input, &replay, &tracks, &events);
    // Gaps before the window only invalidate what was recorded before them.
    let gaps: Vec<Gap> = input.gaps.iter().filter(|gap| gap.to_ns > input.from_ns).copied().collect();
    let tracks_left_out = bound::tracks(input, &mut tracks);
    let events_left_out = bound::events(input, &mut events);
    Timeline {
        window_ns: input.window_ns,
        from_ns: input.from_ns,
        raise_ns,
        to_ns,
        lost: gaps.iter().fold(0, |sum, gap| sum.saturating_add(gap.lost)),
        gaps,
        off: input.off.to_vec(),
        summary,
        tracks,
        tracks_left_out,
        events,
        events_left_out,
    }
}

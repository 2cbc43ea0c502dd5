//! The timeline of an incident: what its goroutine, the others, threads, CPUs and the collector did in the window before.
//!
//! Records of the flight recorder go in, [`Timeline`] comes out. No I/O, no clock: every race can be a table of records
//! in a test. What was not recorded is a state of its own, with the reason; docs/timeline.md says what is concluded
//! from what. Must not know rings, files or processes; names come through [`Names`].

mod bound;
mod cpu;
mod event;
mod events;
mod folded;
mod functions;
mod gc;
mod last;
mod model;
mod names;
mod panics;
mod perf_script;
mod perfetto;
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

pub(crate) use self::words::STACK_SCAN;
pub use self::{
    event::{Event, What},
    folded::folded,
    model::{
        Doing, Gap, KernelFrame, Last, Off, Share, SignalCount, Slice, SliceKind, Stack, State, Summary,
        Timeline, Track, TrackKind, Woken,
    },
    names::{signal_name, syscall_name},
    perf_script::perf_script,
    perfetto::perfetto,
};
use crate::{
    incident::{Frame, Incident, Outcome, Panic},
    recorder::Source,
};

/// What a timeline is built from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// How long before the raise the window was to begin.
    pub window_ns: u64,
    /// Where it begins.
    pub from_ns: u64,
    /// The first raise of the incident.
    pub raise_ns: u64,
    /// Where to end; not before the raise.
    pub to_ns: u64,
    /// Records and the CPUs they were made on, in order of time. Those before `from_ns` tell what held then. Outside
    /// `gaps`, records from `from_ns` to `to_ns` are complete; those of other processes are left alone.
    pub records: &'a [(u32, Slot)],
    /// Samples, in order of time.
    pub samples: &'a [(u32, Sample)],
    /// Where records are missing, and where a CPU was not recorded.
    pub gaps: &'a [Gap],
    /// What was not recorded, or not all the time; sources by the names of [`Source`].
    pub off: &'a [Off],
    /// The process.
    pub pid: u32,
    /// The panicking goroutine.
    pub goroutine: Option<u64>,
    /// The thread that had it at the raise.
    pub thread: Option<u32>,
    /// The CPU that ran that thread at the raise.
    pub cpu: Option<u32>,
    /// The incident's panics.
    pub panics: &'a [Panic],
    /// How it ended.
    pub outcome: Outcome,
    /// When it ended.
    pub end_ns: Option<u64>,
    /// Names.
    pub names: &'a dyn Names,
}

/// The names of what records give numbers of. A name that is not known is none.
pub trait Names {
    /// The frames at an address, innermost first. `exact`: it is an instruction, not a return address.
    fn frames(&self, pc: u64, exact: bool) -> Vec<Frame>;
    /// Symbol and offset of an address of the kernel.
    fn kernel(&self, pc: u64) -> Option<String>;
    /// The text of a goroutine's wait reason.
    fn wait_reason(&self, number: u32) -> Option<&str>;
    /// The text of a reason for stopping the world.
    fn stw_reason(&self, number: u32) -> Option<&str>;
    /// A thread's name.
    fn thread_name(&self, tid: u32) -> Option<String>;
    /// A system call's name; [`syscall_name`] has them.
    fn syscall(&self, number: u32) -> Option<&str>;
}

impl<'a> Input<'a> {
    /// Those of the process.
    fn own_records(&self) -> impl Iterator<Item = (u32, &'a Slot)> {
        let (pid, to) = (self.pid, self.to_ns);
        self.records
            .iter()
            .filter(move |(_, slot)| slot.tgid == pid && slot.time_ns <= to)
            .map(|(cpu, slot)| (*cpu, slot))
    }

    /// Those of the process.
    fn own_samples(&self) -> impl Iterator<Item = (u32, &'a Sample)> {
        let (pid, to) = (self.pid, self.to_ns);
        self.samples
            .iter()
            .filter(move |(_, sample)| sample.tgid == pid && sample.time_ns <= to)
            .map(|(cpu, sample)| (*cpu, sample))
    }

    /// A source was not listened to all the time: that it told nothing means nothing.
    fn lacks(&self, source: Source) -> bool {
        self.off.iter().any(|off| off.source == source.name())
    }

    fn is_shown(&self, at: u64) -> bool {
        self.from_ns <= at && at <= self.to_ns
    }
}

/// The name of the incident's program.
fn program(incident: &Incident) -> String {
    let exe = incident.process.exe.as_deref();
    let arg = || incident.process.args.as_ref()?.first().map(String::as_str);
    let name = exe.or_else(arg).unwrap_or("?");
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

/// The timeline of these records.
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
    // Those before the window have only undone what was recorded before them.
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

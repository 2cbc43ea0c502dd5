//! The flight recorder of a session: drains the recorder's rings when an event is found, keeps what led to
//! the event, and builds the timeline of an incident from it.
//!
//! Decides when to drain; `timeline` interprets the records.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use panicwatch_common::{
    event::kind,
    recorder::{Sample, Slot},
};

use super::{
    names::{KernelNames, Names},
    reader::{Listener, begins},
    shares::{self, Shares},
};
use crate::{
    capture::Program,
    clock,
    event::Event,
    incident::{Incident, Outcome, timeline as document, timeline::Timeline},
    probe::rings::MappedRings,
    recorder::{
        Options, Source,
        history::{Gap, History},
    },
    timeline,
};

/// Time for which drained records are kept in addition to the window, nanoseconds: the correlator may be
/// late.
const KEPT_NS: u64 = 500_000_000;
/// Most records before the window that are kept, to know the states at its beginning.
const MAX_BEFORE: usize = 20_000;
/// Most cuts that wait for the end of their incident.
const MAX_CUTS: usize = 512;

/// The recorder's rings, and the records drained from them.
pub(super) struct Recorder {
    pub(super) rings: MappedRings,
    history: Mutex<History>,
    window_ns: u64,
    /// Intervals in which sources were disabled.
    off: Mutex<Vec<Off>>,
}

/// Interval in which a source was disabled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Off {
    pub(super) source: Source,
    pub(super) from_ns: u64,
    /// End of the interval; `None` if the source is still disabled.
    pub(super) to_ns: Option<u64>,
    pub(super) reason: String,
}

/// Most intervals that are remembered.
const MAX_OFF: usize = 256;

/// The records before an event that may begin an incident.
#[derive(Debug)]
pub(super) struct Cut {
    tgid: u32,
    /// Whether the process began to die at that event.
    dies: bool,
    /// See [`shares::group`].
    group: u64,
    /// Time of the event, CLOCK_MONOTONIC nanoseconds.
    pub(super) at_ns: u64,
    pub(super) slots: Vec<(u32, Slot)>,
    pub(super) samples: Vec<(u32, Sample)>,
    pub(super) gaps: Vec<Gap>,
}

impl Recorder {
    pub(super) fn new(rings: MappedRings, options: &Options) -> Recorder {
        let window_ns = u64::try_from(options.window.as_nanos()).unwrap_or(u64::MAX);
        let asked_for = options.sources();
        let left_out = |source: &Source| !asked_for.contains(source);
        let off = Source::ALL.into_iter().filter(left_out).map(|source| Off {
            source,
            from_ns: 0,
            to_ns: None,
            reason: "not requested".to_owned(),
        });
        let off = Mutex::new(off.collect());
        Recorder { rings, history: Mutex::new(History::new()), window_ns, off }
    }

    fn off(&self) -> MutexGuard<'_, Vec<Off>> {
        self.off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `source` is disabled from now on.
    pub(super) fn is_off(&self, source: Source, reason: String) {
        let mut off = self.off();
        if off.len() >= MAX_OFF
            && let Some(over) = off.iter().position(|off| off.to_ns.is_some())
        {
            off.remove(over);
        }
        off.push(Off { source, from_ns: clock::monotonic_ns(), to_ns: None, reason });
    }

    /// Returns the sources that were disabled at some time from `from_ns` to `to_ns`.
    fn off_between(&self, from_ns: u64, to_ns: u64) -> Vec<document::Off> {
        let off = self.off();
        let touching =
            off.iter().filter(|off| off.from_ns < to_ns && off.to_ns.is_none_or(|end| end > from_ns));
        touching
            .map(|off| document::Off { source: off.source.name().to_owned(), reason: off.reason.clone() })
            .collect()
    }

    /// Notes that `source` is enabled again from now on.
    pub(super) fn is_on(&self, source: Source) {
        let now = clock::monotonic_ns();
        self.off().iter_mut().filter(|off| off.source == source).for_each(|off| {
            off.to_ns.get_or_insert(now);
        });
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn catch_up(&self) {
        let kept = self.window_ns.saturating_add(KEPT_NS);
        self.history().catch_up(&self.rings, clock::monotonic_ns().saturating_sub(kept));
    }
}

/// Listener of the event ring's reader: drains the recorder's rings when an incident may begin.
pub(super) struct Ear {
    recorder: Arc<Recorder>,
}

impl Ear {
    pub(super) fn new(recorder: Arc<Recorder>) -> Ear {
        Ear { recorder }
    }
}

impl Listener for Ear {
    fn looking(&mut self) -> bool {
        self.recorder.history().poll(&self.recorder.rings, clock::monotonic_ns())
    }

    fn found(&mut self, kind: u32) {
        if begins(kind) {
            self.recorder.catch_up();
        }
    }
}

/// The cuts of a session, from which timelines are built.
pub(super) struct Flight {
    recorder: Arc<Recorder>,
    cuts: VecDeque<Cut>,
    /// What processes execute: the binary's row, and the load bias.
    runs: HashMap<u32, (u32, u64)>,
    kernel: KernelNames,
    shares: Shares,
}

impl Flight {
    pub(super) fn new(recorder: Arc<Recorder>) -> Flight {
        Flight {
            recorder,
            cuts: VecDeque::new(),
            runs: HashMap::new(),
            kernel: KernelNames::default(),
            shares: Shares::default(),
        }
    }

    /// Handles an event, which happened in `program` if that is known: keeps the records before it if it may
    /// begin an incident.
    pub(super) fn event(&mut self, event: &Event, program: Option<&Program>) {
        let head = &event.head;
        if let Some(program) = program {
            self.runs.insert(head.tgid, (head.binary, program.view(event).bias));
        }
        // A process dies only once, so its last cut is exempt from the rate limit.
        let dies = matches!(head.kind, kind::THROW | kind::DIE | kind::FATAL_SIGNAL);
        if !begins(head.kind) {
            return;
        }
        let bias = self.runs.get(&head.tgid).map_or(0, |(_, bias)| *bias);
        let group = shares::group(event, bias);
        if !self.shares.take(group, head.time_ns) && !dies {
            return;
        }
        let cut = self.cut(head.tgid, head.time_ns, dies, group);
        self.cuts.push_back(cut);
        if self.cuts.len() > MAX_CUTS {
            self.evict();
        }
    }

    /// Drops the oldest cut of the group that has most cuts.
    fn evict(&mut self) {
        let mut cuts: HashMap<u64, usize> = HashMap::new();
        self.cuts.iter().filter(|cut| !cut.dies).for_each(|cut| *cuts.entry(cut.group).or_default() += 1);
        let most = cuts.into_iter().max_by_key(|(_, n)| *n).map(|(group, _)| group);
        let oldest = self.cuts.iter().position(|cut| !cut.dies && Some(cut.group) == most);
        self.cuts.remove(oldest.unwrap_or(0));
    }

    /// Drops the state of an exited process.
    pub(super) fn forget(&mut self, pid: u32) {
        self.runs.remove(&pid);
        self.cuts.retain(|cut| cut.tgid != pid);
    }

    /// Returns the row of the binary that the process executes.
    pub(super) fn binary_of(&self, pid: u32) -> Option<u32> {
        self.runs.get(&pid).map(|(row, _)| *row)
    }

    fn cut(&self, tgid: u32, at_ns: u64, dies: bool, group: u64) -> Cut {
        let from_ns = at_ns.saturating_sub(self.recorder.window_ns);
        let mut history = self.recorder.history();
        let until = history.slots_until(at_ns);
        let (before, window) = until.split_at(until.partition_point(|(_, slot)| slot.time_ns < from_ns));
        let before = before.iter().rev().filter(|(_, slot)| slot.tgid == tgid).take(MAX_BEFORE);
        let mut slots: Vec<_> = before.copied().collect();
        slots.reverse();
        slots.extend_from_slice(window);
        let samples = history.samples_between(from_ns, at_ns).to_vec();
        // If records were lost between those before the window and the window, the states at its beginning
        // are unknown.
        let reaches_ns = slots.first().map_or(from_ns, |(_, slot)| slot.time_ns.min(from_ns));
        let gaps = history.gaps_between(reaches_ns, at_ns);
        Cut { tgid, dies, group, at_ns, slots, samples, gaps }
    }

    /// Returns the records before the incident of process `tgid` that began at `raise_ns`, together with
    /// those that followed until `end_ns`, at most for another window, and the end of that time; `None` if
    /// they were not kept.
    ///
    /// A fatal incident has them even if its group's share was used up at the raise: they are still in the
    /// history if the process died soon afterwards. Otherwise the cut made when the process began to die is
    /// used, if the raise is within that cut's window.
    fn take(&mut self, tgid: u32, raise_ns: u64, end_ns: u64, fatal: bool) -> Option<(Cut, u64)> {
        let window_ns = self.recorder.window_ns;
        let exact = |cut: &Cut| cut.tgid == tgid && cut.at_ns == raise_ns;
        let dying = |cut: &Cut| {
            cut.tgid == tgid
                && cut.dies
                && (raise_ns..raise_ns.saturating_add(window_ns).min(end_ns)).contains(&cut.at_ns)
        };
        let from_ns = raise_ns.saturating_sub(window_ns);
        let mut cut = match self.cuts.iter().position(exact) {
            Some(at) => self.cuts.remove(at)?,
            None if fatal && self.recorder.history().reaches(from_ns) => self.cut(tgid, raise_ns, true, 0),
            None => self.cuts.iter().rposition(dying).and_then(|at| self.cuts.remove(at))?,
        };
        let at_ns = cut.at_ns;
        let to_ns = end_ns.min(raise_ns.saturating_add(window_ns)).max(at_ns);
        self.recorder.catch_up();
        let mut history = self.recorder.history();
        let until = history.slots_until(to_ns);
        cut.slots.extend_from_slice(&until[until.partition_point(|(_, slot)| slot.time_ns <= at_ns)..]);
        cut.samples.extend_from_slice(history.samples_between(at_ns.saturating_add(1), to_ns));
        cut.gaps = [cut.gaps, history.gaps_between(at_ns, to_ns)].concat();
        cut.gaps.dedup();
        Some((cut, to_ns))
    }

    /// Builds the timeline of an incident in `program`.
    ///
    /// # Errors
    /// Returns a sentence with the reason if there is none.
    pub(super) fn timeline(&mut self, incident: &Incident, program: &Program) -> Result<Timeline, String> {
        let pid = incident.process.pid;
        let raise_ns = incident.start_ns;
        let end_ns = incident.end_ns.unwrap_or(u64::MAX);
        let fatal = incident.outcome == Outcome::Fatal;
        let (cut, to_ns) = self.take(pid, raise_ns, end_ns, fatal).ok_or_else(|| {
            let most = shares::PER_SECOND;
            format!("at most {most} timelines are built per second, and this group's share was used up")
        })?;
        let bias = self.runs.get(&pid).map_or(0, |(_, bias)| *bias);
        let from_ns = cut.at_ns.saturating_sub(self.recorder.window_ns);
        let goroutine = incident.goroutine.as_ref();
        let thread = goroutine.and_then(|goroutine| goroutine.thread_id);
        let gaps: Vec<document::Gap> = cut.gaps.iter().map(gap).collect();
        Ok(timeline::build(&timeline::Input {
            window_ns: self.recorder.window_ns,
            from_ns,
            raise_ns,
            to_ns,
            records: &cut.slots,
            samples: &cut.samples,
            gaps: &gaps,
            off: &self.recorder.off_between(from_ns, to_ns),
            pid,
            goroutine: goroutine.map(|goroutine| goroutine.id),
            thread,
            cpu: thread.and_then(|thread| cpu_of(&cut.slots, thread, raise_ns)),
            panics: &incident.panics,
            outcome: incident.outcome,
            end_ns: incident.end_ns,
            names: &Names::new(program, bias, pid, &self.kernel, &cut.slots),
        }))
    }
}

fn gap(gap: &Gap) -> document::Gap {
    document::Gap { cpu: gap.cpu, from_ns: gap.from_ns, to_ns: gap.to_ns, lost: gap.lost }
}

/// Returns the CPU on which `thread` ran at `at_ns`: that of its last record that the thread itself made.
fn cpu_of(slots: &[(u32, Slot)], thread: u32, at_ns: u64) -> Option<u32> {
    use panicwatch_common::recorder::kind::{MIGRATE, SIGNAL_SENT, WAKING};
    let own = |slot: &Slot| slot.tid == thread && !matches!(slot.kind, WAKING | MIGRATE | SIGNAL_SENT);
    slots.iter().rev().find(|(_, slot)| slot.time_ns <= at_ns && own(slot)).map(|(cpu, _)| *cpu)
}

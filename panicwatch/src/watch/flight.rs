//! The flight recorder of a session: reads the rings when something has happened, keeps what led to it, and makes the
//! timeline of an incident of that.
//!
//! Knows when to look; what the records mean is `timeline`'s business.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use panicwatch_common::{
    event::kind,
    recorder::{Sample, Slot},
};

use super::reader::Listener;
use crate::{
    clock::Clock,
    probe::rings::MappedRings,
    recorder::{
        Options, Source,
        history::{Gap, History},
    },
};

/// What is read stays for that long besides the window, nanoseconds: the correlator may be late.
const KEPT_NS: u64 = 500_000_000;
/// Records before the window that are kept to know how things stood at its beginning.
const MAX_BEFORE: usize = 20_000;
/// Cuts that wait for the end of their incident.
const MAX_CUTS: usize = 512;

/// The rings, and what has been read of them.
pub(super) struct Recorder {
    pub(super) rings: MappedRings,
    history: Mutex<History>,
    window_ns: u64,
    /// Sources that were not listened to for a time.
    off: Mutex<Vec<Off>>,
}

/// A source that was not listened to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Off {
    pub(super) source: Source,
    pub(super) from_ns: u64,
    /// `None`: it still is not.
    pub(super) to_ns: Option<u64>,
    pub(super) reason: String,
}

/// Times that are remembered.
const MAX_OFF: usize = 256;

/// What led to a raise.
#[derive(Debug)]
pub(super) struct Cut {
    tgid: u32,
    /// The raise.
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
            reason: "not asked for".to_owned(),
        });
        let off = Mutex::new(off.collect());
        Recorder { rings, history: Mutex::new(History::new()), window_ns, off }
    }

    fn off(&self) -> MutexGuard<'_, Vec<Off>> {
        self.off.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `source` is not listened to.
    pub(super) fn is_off(&self, source: Source, reason: String) {
        let mut off = self.off();
        if off.len() >= MAX_OFF
            && let Some(over) = off.iter().position(|off| off.to_ns.is_some())
        {
            off.remove(over);
        }
        off.push(Off { source, from_ns: Clock::monotonic_ns(), to_ns: None, reason });
    }

    /// From now on `source` is listened to again.
    pub(super) fn is_on(&self, source: Source) {
        let now = Clock::monotonic_ns();
        self.off().iter_mut().filter(|off| off.source == source).for_each(|off| {
            off.to_ns.get_or_insert(now);
        });
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn catch_up(&self) {
        let kept = self.window_ns.saturating_add(KEPT_NS);
        self.history().catch_up(&self.rings, Clock::monotonic_ns().saturating_sub(kept));
    }
}

/// Hears what the ring's reader finds.
pub(super) struct Ear {
    recorder: Arc<Recorder>,
}

impl Ear {
    pub(super) fn new(recorder: Arc<Recorder>) -> Ear {
        Ear { recorder }
    }
}

impl Listener for Ear {
    fn looking(&mut self) {
        self.recorder.history().poll(&self.recorder.rings, Clock::monotonic_ns());
    }

    fn found(&mut self, kind: u32) {
        if begins(kind) {
            self.recorder.catch_up();
        }
    }
}

/// May an incident begin with an event of that kind?
fn begins(kind: u32) -> bool {
    matches!(
        kind,
        kind::PANIC | kind::THROW | kind::DIE | kind::SIGNAL | kind::FATAL_SIGNAL | kind::START_PANIC
    )
}

/// The cuts of a session.
pub(super) struct Flight {
    recorder: Arc<Recorder>,
    cuts: VecDeque<Cut>,
    /// Run-time address minus link-time address, by process.
    pub(super) bias: HashMap<u32, u64>,
}

impl Flight {
    pub(super) fn new(recorder: Arc<Recorder>) -> Flight {
        Flight { recorder, cuts: VecDeque::new(), bias: HashMap::new() }
    }

    /// An event of that kind happened: keeps what led to it, if an incident may begin with it.
    pub(super) fn event(&mut self, event_kind: u32, tgid: u32, at_ns: u64) {
        if event_kind == kind::PROCESS_EXIT {
            return;
        }
        if !begins(event_kind) {
            return;
        }
        let cut = self.cut(tgid, at_ns);
        self.cuts.push_back(cut);
        while self.cuts.len() > MAX_CUTS {
            self.cuts.pop_front();
        }
    }

    fn cut(&self, tgid: u32, at_ns: u64) -> Cut {
        let from_ns = at_ns.saturating_sub(self.recorder.window_ns);
        let mut history = self.recorder.history();
        let until = history.slots_until(at_ns);
        let (before, window) = until.split_at(until.partition_point(|(_, slot)| slot.time_ns < from_ns));
        let before = before.iter().rev().filter(|(_, slot)| slot.tgid == tgid).take(MAX_BEFORE);
        let mut slots: Vec<_> = before.copied().collect();
        slots.reverse();
        slots.extend_from_slice(window);
        let samples = history.samples_between(from_ns, at_ns).to_vec();
        let gaps = history.gaps_between(from_ns, at_ns);
        Cut { tgid, at_ns, slots, samples, gaps }
    }

    /// What led to the incident of process `tgid` that began at `at_ns`, and what followed until `end_ns`, for another
    /// window at most; `None` when it was not kept.
    pub(super) fn take(&mut self, tgid: u32, at_ns: u64, end_ns: u64) -> Option<(Cut, u64)> {
        let at = self.cuts.iter().position(|cut| cut.tgid == tgid && cut.at_ns == at_ns)?;
        let mut cut = self.cuts.remove(at)?;
        let to_ns = end_ns.min(at_ns.saturating_add(self.recorder.window_ns));
        self.recorder.catch_up();
        let mut history = self.recorder.history();
        let until = history.slots_until(to_ns);
        cut.slots.extend_from_slice(&until[until.partition_point(|(_, slot)| slot.time_ns <= at_ns)..]);
        cut.samples.extend_from_slice(history.samples_between(at_ns + 1, to_ns));
        cut.gaps = [cut.gaps, history.gaps_between(at_ns, to_ns)].concat();
        cut.gaps.dedup();
        Some((cut, to_ns))
    }

    pub(super) fn window_ns(&self) -> u64 {
        self.recorder.window_ns
    }
}

//! Replays all records in order of time and derives the state of each thread and goroutine.
//!
//! Knows the kinds of records; must not know names, texts or the document.

use std::collections::BTreeMap;

use panicwatch_common::recorder::{PREEMPTED, Sample, Slot, TASK_STATE, kind, pair};

use super::{
    Input,
    steps::Steps,
    thread::{Blind, Call, Cause, RanLast, SOME_CPU, Sched, Sees, Task, Thread, Why},
};
use crate::recorder::Source;

/// State of a goroutine, according to the runtime's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Go {
    Unknown(Why),
    Running,
    /// Made ready, new, preempted or yielded.
    Runnable(Ready),
    /// Waiting, with the number of the wait reason if its parking was recorded.
    Waiting(Option<u32>),
    /// Stopped by the garbage collector to scan its stack.
    Scanned,
    NotBegun,
    Ended,
}

/// How a goroutine became runnable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ready {
    Woken,
    New,
    Preempted,
    Yielded,
    /// Before its first record.
    Before,
}

/// States of threads and goroutines over time.
pub(super) struct Replay {
    pub(super) threads: BTreeMap<u32, Thread>,
    pub(super) goroutines: BTreeMap<u64, Steps<Go>>,
}

enum Item<'a> {
    Gap(usize),
    Record(u32, &'a Slot),
    Sample(u32, &'a Sample),
    Raise,
}

struct State<'a> {
    input: &'a Input<'a>,
    out: Replay,
    /// End of the intervals with lost records, of any CPU and of each CPU.
    blind_ns: u64,
    blind_cpu: BTreeMap<u32, u64>,
    /// The most recent gap.
    blind_by: Why,
    /// Whether the readying of goroutines is recorded, so that a goroutine without such a record was ready
    /// before.
    sees_ready: bool,
    sees: Sees,
}

/// Replays all records, samples and gaps.
pub(super) fn replay(input: &Input<'_>) -> Replay {
    let mut items: Vec<(u64, u8, Item<'_>)> = Vec::new();
    items.extend(input.gaps.iter().enumerate().map(|(i, gap)| (gap.from_ns, 0, Item::Gap(i))));
    items.extend(input.own_records().map(|(cpu, slot)| (slot.time_ns, 1, Item::Record(cpu, slot))));
    items.extend(input.own_samples().map(|(cpu, sample)| (sample.time_ns, 2, Item::Sample(cpu, sample))));
    items.push((input.raise_ns, 3, Item::Raise));
    items.sort_by_key(|(time, order, _)| (*time, *order));
    let sees = |kinds: &[u32]| input.own_records().any(|(_, slot)| kinds.contains(&slot.kind));
    let mut state = State {
        input,
        out: Replay { threads: BTreeMap::new(), goroutines: BTreeMap::new() },
        blind_ns: 0,
        blind_cpu: BTreeMap::new(),
        blind_by: None,
        sees_ready: sees(&[kind::GO_READY]),
        sees: Sees {
            switches: !input.lacks(Source::Switch),
            calls: !input.lacks(Source::Syscall) && sees(&[kind::SYSCALL_ENTER, kind::SYSCALL_EXIT]),
            turns: !input.lacks(Source::Goroutine) && sees(&[kind::GO_RUN]),
        },
    };
    for (time, _, item) in items {
        match item {
            Item::Gap(i) => state.gap(time, i),
            Item::Record(cpu, slot) => state.record(cpu, slot),
            Item::Sample(cpu, sample) => state.sample(cpu, sample),
            Item::Raise => state.raise(time),
        }
    }
    state.close();
    state.out
}

impl State<'_> {
    fn blind(&self, cpu: u32) -> Blind {
        Blind { cpu_ns: self.blind_cpu.get(&cpu).copied().unwrap_or(0), any_ns: self.blind_ns }
    }

    /// Returns the time of the earliest record or the window's beginning; records before the window only
    /// determine the states at its beginning.
    fn origin(&self) -> u64 {
        self.input.from_ns.min(self.input.records.first().map_or(u64::MAX, |(_, slot)| slot.time_ns))
    }

    fn thread(&mut self, tid: u32) -> &mut Thread {
        let (origin, why, sees) = (self.origin(), self.blind_by, self.sees);
        self.out.threads.entry(tid).or_insert_with(|| Thread::new(origin, why, sees))
    }

    fn goroutine(&mut self, goid: u64) -> &mut Steps<Go> {
        let (origin, why) = (self.origin(), self.blind_by);
        self.out.goroutines.entry(goid).or_insert_with(|| Steps::new(origin, Go::Unknown(why)))
    }

    /// Handles a gap. The state of a thread that runs on another CPU stays known, because its switch-out is
    /// recorded there. Any other thread may have run on this CPU without a record.
    fn gap(&mut self, at: u64, i: usize) {
        let gap = self.input.gaps[i];
        let mut kept = Vec::new();
        for thread in self.out.threads.values_mut() {
            match thread.sched.last() {
                Sched::On(cpu) if *cpu != gap.cpu => kept.extend(thread.holds.last().id()),
                _ => thread.lost(at, i),
            }
        }
        for (goid, go) in &mut self.out.goroutines {
            if !kept.contains(goid) && !matches!(go.last(), Go::Ended | Go::NotBegun) {
                go.set(at, Go::Unknown(Some(i)));
            }
        }
        self.blind_ns = self.blind_ns.max(gap.to_ns);
        self.blind_by = Some(i);
        let cpu = self.blind_cpu.entry(gap.cpu).or_default();
        *cpu = (*cpu).max(gap.to_ns);
    }

    /// Ends the replay: the goroutines of all threads but the panicking one are only inferred since their
    /// last records.
    fn close(&mut self) {
        let gaps = self.input.gaps.iter().enumerate().map(|(i, gap)| (gap.from_ns, gap.to_ns, i));
        let mut gaps: Vec<(u64, u64, usize)> = gaps.collect();
        gaps.sort_unstable();
        for (tid, thread) in &mut self.out.threads {
            if self.input.thread != Some(*tid) {
                thread.closes(self.input.to_ns, &gaps);
            }
        }
    }

    fn raise(&mut self, at: u64) {
        if let (Some(tid), Some(goid)) = (self.input.thread, self.input.goroutine) {
            let blind = Blind { cpu_ns: self.blind_ns, any_ns: self.blind_ns };
            let cpu = self.input.cpu.unwrap_or(SOME_CPU);
            let thread = self.thread(tid);
            thread.executes(at, cpu, blind);
            thread.holds(at, goid, blind);
            thread.in_user_mode(at, blind);
        }
    }

    fn sample(&mut self, cpu: u32, sample: &Sample) {
        let blind = self.blind(cpu);
        let thread = self.thread(sample.tid);
        thread.executes(sample.time_ns, cpu, blind);
        if sample.goid != 0 {
            thread.holds(sample.time_ns, sample.goid, blind);
        }
    }

    fn record(&mut self, cpu: u32, slot: &Slot) {
        let (at, goid, blind) = (slot.time_ns, slot.goid, self.blind(cpu));
        match slot.kind {
            kind::SWITCH_OUT => self.thread(slot.tid).leaves(at, cpu, slot, blind),
            kind::SWITCH_IN => self.thread(slot.tid).switched_in(at, cpu, goid, blind),
            kind::WAKING => {
                self.thread(slot.tid).woken(at, blind);
                self.wakes(cpu, slot);
            }
            kind::THREAD_BEGIN => self.thread(slot.tid).begins(at, blind),
            kind::THREAD_END => self.thread(slot.tid).ends(at, cpu, blind),
            kind::SYSCALL_ENTER | kind::SYSCALL_EXIT => {
                let thread = self.thread(slot.tid);
                thread.executes(at, cpu, blind);
                thread.holds(at, goid, blind);
                if slot.kind == kind::SYSCALL_ENTER {
                    thread.enters(at, slot.extra, blind);
                } else {
                    thread.exits(at, slot.extra, blind);
                }
            }
            kind::SIGNAL_DELIVERED | kind::PAGE_FAULT => {
                self.own(cpu, slot, goid, slot.kind == kind::PAGE_FAULT)
            }
            kind::SEND => self.own(cpu, slot, goid, false),
            kind::GC_START..=kind::GC_ASSIST | kind::FUNCTION => self.own(cpu, slot, goid, true),
            kind::GO_CREATE => {
                self.own(cpu, slot, slot.args[2], true);
                self.go(at, goid, Go::NotBegun, Go::Runnable(Ready::New));
            }
            kind::GO_READY => {
                self.own(cpu, slot, slot.args[0], true);
                self.go(at, goid, Go::Waiting(None), Go::Runnable(Ready::Woken));
            }
            kind::GO_PARK => self.gives_up(cpu, slot, Go::Waiting(Some(slot.extra))),
            kind::GO_END => self.gives_up(cpu, slot, Go::Ended),
            kind::GO_YIELD => self.gives_up(
                cpu,
                slot,
                match slot.extra {
                    1 => Go::Runnable(Ready::Preempted),
                    3 => Go::Scanned,
                    _ => Go::Runnable(Ready::Yielded),
                },
            ),
            kind::GO_RUN => {
                self.own(cpu, slot, 0, true);
                self.thread(slot.tid).became(at, goid);
                let before = if self.sees_ready { Go::Runnable(Ready::Before) } else { Go::Unknown(None) };
                self.go(at, goid, before, Go::Running);
            }
            // Sent signals and migrations change no state.
            _ => {}
        }
    }

    /// Handles a record that the thread itself made; `goid` is its goroutine, 0 if the record has none.
    fn own(&mut self, cpu: u32, slot: &Slot, goid: u64, user: bool) {
        let blind = self.blind(cpu);
        let thread = self.thread(slot.tid);
        thread.executes(slot.time_ns, cpu, blind);
        if goid != 0 {
            thread.holds(slot.time_ns, goid, blind);
        }
        if user {
            thread.in_user_mode(slot.time_ns, blind);
        }
    }

    /// Handles the waker of a wake-up: its goroutine is that of its thread, even if an interrupt on that
    /// thread caused the wake-up.
    fn wakes(&mut self, cpu: u32, slot: &Slot) {
        let (waker, goid) = (slot.args[0], slot.args[1]);
        let tid = waker as u32;
        if goid != 0 && waker == pair(tid, self.input.pid) && tid != slot.tid {
            let blind = self.blind(cpu);
            let thread = self.thread(tid);
            thread.executes(slot.time_ns, cpu, blind);
            thread.holds(slot.time_ns, goid, blind);
        }
    }

    /// Handles a goroutine that leaves its thread.
    fn gives_up(&mut self, cpu: u32, slot: &Slot, to: Go) {
        self.own(cpu, slot, slot.goid, true);
        self.thread(slot.tid).became(slot.time_ns, 0);
        self.go(slot.time_ns, slot.goid, Go::Running, to);
    }

    fn go(&mut self, at: u64, goid: u64, before: Go, now: Go) {
        // If the source was disabled for a time, what it recorded before may be outdated.
        if goid == 0 || self.input.lacks(Source::Goroutine) {
            return;
        }
        let blind_ns = self.blind_ns;
        let go = self.goroutine(goid);
        if matches!(go.last(), Go::Unknown(_)) && blind_ns.max(go.since()) < at {
            go.rewrite(blind_ns, before);
        }
        go.set(at, now);
    }
}

impl Thread {
    fn leaves(&mut self, at: u64, cpu: u32, slot: &Slot, blind: Blind) {
        match RanLast::of(slot) {
            Some(last) => self.rests(at, last, blind),
            None => self.holds(at, slot.goid, blind),
        }
        let follows = Task(slot.args);
        let to = match slot.extra & (PREEMPTED | TASK_STATE) {
            state if state & PREEMPTED != 0 => Sched::Ready(Cause::Preempted(follows)),
            0 => Sched::Ready(Cause::Yielded(follows)),
            state => Sched::Blocked(state),
        };
        self.switched_out(at, cpu, to, blind);
    }
}

impl Replay {
    /// Returns the goroutine that a thread had just before and at `at`.
    pub(super) fn goroutine_of(&self, tid: u32, at: u64) -> Option<u64> {
        let holds = self.threads.get(&tid)?.holds.at(at);
        holds.id().filter(|id| *id != 0)
    }

    /// Returns the system call that a thread was in at `at`.
    pub(super) fn call_of(&self, tid: u32, at: u64) -> Option<u32> {
        match self.threads.get(&tid)?.call.at(at) {
            Call::In(number) => Some(*number),
            Call::User | Call::Unknown(_) => None,
        }
    }
}

//! Tracks of CPUs: each ran threads of the process, or others, of which only the first and the last were
//! recorded.

use std::collections::{BTreeMap, BTreeSet};

use panicwatch_common::recorder::{Slot, kind};

use super::{
    Input,
    replay::Replay,
    states::{Lane, around_gaps, reason, state},
    thread::{Sched, Task},
    words,
};
use crate::{
    incident::timeline::{Doing, State, Track, TrackKind},
    recorder::Source,
};

/// Which task followed ours on a CPU, and which one preceded our next.
#[derive(Default, Clone, Copy)]
struct Others {
    first: Option<Task>,
    last: Option<Task>,
}

/// Returns a track for each CPU that a thread of the process ran on.
pub(super) fn tracks(input: &Input<'_>, replay: &Replay) -> Vec<Track> {
    let mut ours: BTreeMap<u32, Vec<State>> = BTreeMap::new();
    for (&tid, thread) in &replay.threads {
        for (from, to, sched) in thread.sched.parts(input.from_ns, input.to_ns) {
            let Sched::On(cpu) = *sched else { continue };
            for (from, to, holds) in thread.holds.parts(from, to) {
                let goroutine = holds.id().filter(|id| *id != 0);
                let running = State { thread: Some(tid), goroutine, ..state(from, to, Doing::Running, None) };
                ours.entry(cpu).or_default().push(running);
            }
        }
    }
    let switches: Vec<(u32, &Slot)> = input
        .own_records()
        .filter(|(_, slot)| matches!(slot.kind, kind::SWITCH_OUT | kind::SWITCH_IN))
        .collect();
    let mut seen: BTreeSet<u32> = switches.iter().map(|(cpu, _)| *cpu).collect();
    if input.lacks(Source::Switch) {
        seen.clear();
    }
    ours.retain(|cpu, _| *cpu != super::thread::SOME_CPU);
    ours.into_iter().map(|(cpu, states)| track(input, cpu, states, &switches, seen.contains(&cpu))).collect()
}

fn track(input: &Input<'_>, cpu: u32, mut ours: Vec<State>, switches: &[(u32, &Slot)], seen: bool) -> Track {
    ours.sort_by_key(|state| (state.from_ns, state.to_ns));
    let here: Vec<&Slot> = switches.iter().filter(|(on, _)| *on == cpu).map(|(_, slot)| *slot).collect();
    let mut lane = Lane::default();
    let mut at = input.from_ns;
    let hole = |lane: &mut Lane, from: u64, to: u64| {
        for (from, to, gap) in around_gaps(input, from, to) {
            let gap = gap.filter(|i| input.gaps[*i].cpu == cpu);
            lane.push(match gap {
                Some(i) => state(from, to, Doing::Unknown, Some(reason(input, Some(i)))),
                None if seen => state(from, to, Doing::Other, others(&here, from, to).words()),
                None => {
                    state(from, to, Doing::Unknown, Some("its context switches were not recorded".to_owned()))
                }
            });
        }
    };
    // When the next thread is switched in, the previous one has left, even if that was not recorded.
    let next: Vec<u64> = ours.iter().skip(1).map(|state| state.from_ns).chain([u64::MAX]).collect();
    for (mut ran, next) in ours.into_iter().zip(next) {
        ran.to_ns = ran.to_ns.min(next);
        if ran.from_ns < ran.to_ns {
            hole(&mut lane, at, ran.from_ns);
            at = ran.to_ns;
            lane.push(ran);
        }
    }
    hole(&mut lane, at, input.to_ns);
    Track::new(TrackKind::Cpu, cpu.into(), lane.finish())
}

/// Returns the tasks of the switches at both ends of an interval in which no thread of ours was on the CPU.
fn others(here: &[&Slot], from: u64, to: u64) -> Others {
    let out = here[..here.partition_point(|slot| slot.time_ns <= from)].last();
    let into = here[here.partition_point(|slot| slot.time_ns < to)..].first();
    Others {
        first: out.filter(|slot| slot.kind == kind::SWITCH_OUT).map(|slot| Task(slot.args)),
        last: into.filter(|slot| slot.kind == kind::SWITCH_IN).map(|slot| Task(slot.args)),
    }
}

impl Others {
    fn words(self) -> Option<String> {
        let name = |task: Task| if task.tid() == 0 { "idle".to_owned() } else { words::task(task) };
        match (self.first, self.last) {
            (Some(first), Some(last)) if first.tid() == last.tid() => Some(name(first)),
            (Some(first), Some(last)) => Some(format!("{} first, {} last", name(first), name(last))),
            (Some(first), None) => Some(format!("{} first", name(first))),
            (None, Some(last)) => Some(format!("{} last", name(last))),
            (None, None) => None,
        }
    }
}

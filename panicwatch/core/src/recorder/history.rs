//! What the rings held, in order of time, for as long back as they reach: read a piece at a time, only when something
//! happened.
//!
//! A record that could not be read (overwritten, or being written) is counted where its neighbours say it was.

use std::collections::VecDeque;

use panicwatch_common::recorder::{Sample, Slot};

/// A ring of one CPU, in memory that the kernel writes to.
pub trait Rings {
    /// CPUs that have rings.
    fn cpus(&self) -> u32;
    /// Slots ever begun on `cpu`.
    fn slots_begun(&self, cpu: u32) -> u64;
    /// Samples ever begun on `cpu`.
    fn samples_begun(&self, cpu: u32) -> u64;
    /// Slots of a ring.
    fn slots(&self) -> u64;
    /// Samples of a ring.
    fn samples(&self) -> u64;
    /// Slot number `n` of `cpu`; `None` when it is not there (any more, or yet).
    fn slot(&self, cpu: u32, n: u64) -> Option<Slot>;
    /// Sample number `n` of `cpu`.
    fn sample(&self, cpu: u32, n: u64) -> Option<Sample>;
}

/// A time for which a CPU's records are not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// CPU.
    pub cpu: u32,
    /// After this moment (the record before), 0 when nothing before is known.
    pub from_ns: u64,
    /// Before this one (the record after).
    pub to_ns: u64,
    /// Records that are missing, at least.
    pub lost: u64,
}

/// Positions in one CPU's rings.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    slots: u64,
    samples: u64,
    /// Time of the last slot read.
    last_ns: u64,
}

/// Everything read so far that may still be needed.
#[derive(Debug, Default)]
pub struct History {
    positions: Vec<Position>,
    slots: VecDeque<(u32, Slot)>,
    samples: VecDeque<(u32, Sample)>,
    gaps: VecDeque<Gap>,
    /// How far the rings had come at moments of the past.
    polls: VecDeque<Poll>,
    /// Records before this moment were dropped.
    kept_from_ns: u64,
}

/// How far every CPU's ring had come.
#[derive(Debug)]
struct Poll {
    time_ns: u64,
    begun: Vec<u64>,
}

/// Gaps that are remembered.
const MAX_GAPS: usize = 1024;
/// Part of a ring's slots that is a long way between two polls.
const FAR: u64 = 16;
/// Moments that are remembered.
const MAX_POLLS: usize = 64;

impl History {
    /// Nothing read yet.
    pub fn new() -> History {
        History::default()
    }

    /// Remembers how far the rings have come now: should records be overwritten, it is known when they were written. Returns
    /// whether a ring has come far since the last time: a sixteenth of its slots ([`FAR`]).
    pub fn poll(&mut self, rings: &dyn Rings, now_ns: u64) -> bool {
        let begun: Vec<u64> = (0..rings.cpus()).map(|cpu| rings.slots_begun(cpu)).collect();
        let before = self.polls.back().map_or(&[][..], |poll| &poll.begun);
        let far = |(begun, before): (&u64, &u64)| begun.saturating_sub(*before) > rings.slots() / FAR;
        let come_far = begun.iter().zip(before).any(far);
        self.polls.push_back(Poll { time_ns: now_ns, begun });
        while self.polls.len() > MAX_POLLS {
            self.polls.pop_front();
        }
        come_far
    }

    /// Reads what was written since the last time. What is older than `keep_ns` (a moment) is dropped.
    pub fn catch_up(&mut self, rings: &dyn Rings, keep_ns: u64) {
        self.positions.resize(rings.cpus() as usize, Position::default());
        let (mut slots, mut samples) = (Vec::new(), Vec::new());
        for cpu in 0..rings.cpus() {
            self.read_slots(rings, cpu, &mut slots);
            self.read_samples(rings, cpu, &mut samples);
        }
        slots.sort_by_key(|(_, slot)| slot.time_ns);
        samples.sort_by_key(|(_, sample)| sample.time_ns);
        merge(&mut self.slots, slots, |slot| slot.time_ns);
        merge(&mut self.samples, samples, |sample| sample.time_ns);
        self.drop_before(keep_ns);
    }

    fn read_slots(&mut self, rings: &dyn Rings, cpu: u32, to: &mut Vec<(u32, Slot)>) {
        let position = &mut self.positions[cpu as usize];
        let end = rings.slots_begun(cpu);
        let oldest = end.saturating_sub(rings.slots());
        let mut lost = 0;
        if oldest > position.slots {
            // Split at the moments of which it is known how far the ring had come.
            for poll in &self.polls {
                let begun = poll.begun.get(cpu as usize).copied().unwrap_or(0);
                if begun > position.slots && begun <= oldest {
                    let (from_ns, lost) = (position.last_ns, begun - position.slots);
                    self.gaps.push_back(Gap { cpu, from_ns, to_ns: poll.time_ns, lost });
                    (position.slots, position.last_ns) = (begun, poll.time_ns);
                }
            }
            lost = oldest - position.slots;
            position.slots = oldest;
        }
        for n in position.slots..end {
            let Some(slot) = rings.slot(cpu, n) else {
                lost += 1;
                continue;
            };
            if lost > 0 {
                let gap = Gap { cpu, from_ns: position.last_ns, to_ns: slot.time_ns, lost };
                self.gaps.push_back(gap);
                lost = 0;
            }
            position.last_ns = position.last_ns.max(slot.time_ns);
            to.push((cpu, slot));
        }
        // The last ones may be under way: they are asked for again, unless they are too far back for that.
        position.slots = end - lost.min(end).min(PENDING);
        if lost > PENDING {
            self.gaps.push_back(Gap {
                cpu,
                from_ns: position.last_ns,
                to_ns: u64::MAX,
                lost: lost - PENDING,
            });
        }
        while self.gaps.len() > MAX_GAPS {
            self.gaps.pop_front();
        }
    }

    fn read_samples(&mut self, rings: &dyn Rings, cpu: u32, to: &mut Vec<(u32, Sample)>) {
        let position = &mut self.positions[cpu as usize];
        let end = rings.samples_begun(cpu);
        let oldest = end.saturating_sub(rings.samples());
        to.extend((position.samples.max(oldest)..end).filter_map(|n| Some((cpu, rings.sample(cpu, n)?))));
        position.samples = end;
    }

    /// Reports whether nothing after the moment `from_ns` was dropped.
    pub fn reaches(&self, from_ns: u64) -> bool {
        self.kept_from_ns <= from_ns
    }

    fn drop_before(&mut self, keep_ns: u64) {
        self.kept_from_ns = self.kept_from_ns.max(keep_ns);
        while self.slots.front().is_some_and(|(_, slot)| slot.time_ns < keep_ns) {
            self.slots.pop_front();
        }
        while self.samples.front().is_some_and(|(_, sample)| sample.time_ns < keep_ns) {
            self.samples.pop_front();
        }
        while self.gaps.front().is_some_and(|gap| gap.to_ns < keep_ns) {
            self.gaps.pop_front();
        }
    }

    /// Slots up to the moment `to_ns`, in order of time.
    pub fn slots_until(&mut self, to_ns: u64) -> &[(u32, Slot)] {
        let all: &[(u32, Slot)] = self.slots.make_contiguous();
        &all[..all.partition_point(|(_, slot)| slot.time_ns <= to_ns)]
    }

    /// Samples from `from_ns` to `to_ns`.
    pub fn samples_between(&mut self, from_ns: u64, to_ns: u64) -> &[(u32, Sample)] {
        let all: &[(u32, Sample)] = self.samples.make_contiguous();
        let first = all.partition_point(|(_, sample)| sample.time_ns < from_ns);
        let end = all.partition_point(|(_, sample)| sample.time_ns <= to_ns);
        all.get(first..end).unwrap_or(&[])
    }

    /// Gaps that touch the time from `from_ns` to `to_ns`.
    pub fn gaps_between(&self, from_ns: u64, to_ns: u64) -> Vec<Gap> {
        self.gaps.iter().filter(|gap| gap.to_ns > from_ns && gap.from_ns < to_ns).copied().collect()
    }
}

/// Records at a ring's end that may be in the middle of being written.
const PENDING: u64 = 64;

/// Appends sorted `new` to sorted `all`; only the end of `all` can be younger than the start of `new`.
fn merge<T>(all: &mut VecDeque<(u32, T)>, new: Vec<(u32, T)>, time: impl Fn(&T) -> u64) {
    let Some(first) = new.first().map(|(_, record)| time(record)) else { return };
    let start = all.len() - all.iter().rev().take_while(|(_, record)| time(record) > first).count();
    let mixed = start < all.len();
    all.extend(new);
    if mixed {
        all.make_contiguous()[start..].sort_by_key(|(_, record)| time(record));
    }
}

#[cfg(test)]
mod tests;

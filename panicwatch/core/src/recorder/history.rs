//! Contents of the rings, in order of time: drained incrementally, and only when an event occurred.
//!
//! A record that could not be read (overwritten, or still being written) is counted as lost between its
//! neighbours.

use std::collections::VecDeque;

use panicwatch_common::recorder::{Sample, Slot};

/// Read access to the rings of all CPUs, in memory that the kernel writes to.
pub trait Rings {
    /// Returns the number of CPUs that have rings.
    fn cpus(&self) -> u32;
    /// Returns the number of slots begun on `cpu` since the start.
    fn slots_begun(&self, cpu: u32) -> u64;
    /// Returns the number of samples begun on `cpu` since the start.
    fn samples_begun(&self, cpu: u32) -> u64;
    /// Returns the number of slots in a CPU's ring.
    fn slots(&self) -> u64;
    /// Returns the number of samples in a CPU's ring.
    fn samples(&self) -> u64;
    /// Returns slot number `n` of `cpu`; `None` if it was overwritten or is not complete yet.
    fn slot(&self, cpu: u32, n: u64) -> Option<Slot>;
    /// Returns sample number `n` of `cpu`; `None` if it was overwritten or is not complete yet.
    fn sample(&self, cpu: u32, n: u64) -> Option<Sample>;
}

/// Interval in which records of a CPU were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// CPU whose ring held the record.
    pub cpu: u32,
    /// Time of the record before the gap, 0 if none is known.
    pub from_ns: u64,
    /// Time of the record after the gap.
    pub to_ns: u64,
    /// Number of lost records, at least.
    pub lost: u64,
}

/// Read positions in one CPU's rings.
#[derive(Debug, Clone, Copy, Default)]
struct Position {
    slots: u64,
    samples: u64,
    /// Time of the last slot that was read.
    last_ns: u64,
}

/// All records read so far that may still be needed.
#[derive(Debug, Default)]
pub struct History {
    positions: Vec<Position>,
    slots: VecDeque<(u32, Slot)>,
    samples: VecDeque<(u32, Sample)>,
    gaps: VecDeque<Gap>,
    /// Positions of the rings at earlier times.
    polls: VecDeque<Poll>,
    /// Records before this time were dropped.
    kept_from_ns: u64,
}

/// Positions of all CPUs' rings at one time.
#[derive(Debug)]
struct Poll {
    time_ns: u64,
    begun: Vec<u64>,
}

/// Most gaps that are remembered.
const MAX_GAPS: usize = 1024;
/// Divisor of a ring's size: a ring that advanced by more than this part between two polls has come far.
const FAR: u64 = 16;
/// Most polls that are remembered.
const MAX_POLLS: usize = 64;

impl History {
    /// Returns an empty history.
    pub fn new() -> History {
        History::default()
    }

    /// Remembers the current positions of the rings: if records are overwritten later, it is known when they
    /// were written. Returns whether a ring has advanced far since the last poll: by more than a sixteenth of
    /// its slots.
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

    /// Drains the records written since the last call. Records older than the time `keep_ns` are dropped.
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
            // Split the gap at the times for which the ring's position is known.
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
        // The last slots may still be being written: they are read again the next time, unless they are too
        // old for that.
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

    /// Reports whether nothing at or after the time `from_ns` was dropped.
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

    /// Returns the slots up to the time `to_ns`, in order of time.
    pub fn slots_until(&mut self, to_ns: u64) -> &[(u32, Slot)] {
        let all: &[(u32, Slot)] = self.slots.make_contiguous();
        &all[..all.partition_point(|(_, slot)| slot.time_ns <= to_ns)]
    }

    /// Returns the samples from `from_ns` to `to_ns`.
    pub fn samples_between(&mut self, from_ns: u64, to_ns: u64) -> &[(u32, Sample)] {
        let all: &[(u32, Sample)] = self.samples.make_contiguous();
        let first = all.partition_point(|(_, sample)| sample.time_ns < from_ns);
        let end = all.partition_point(|(_, sample)| sample.time_ns <= to_ns);
        all.get(first..end).unwrap_or(&[])
    }

    /// Returns the gaps that overlap the interval from `from_ns` to `to_ns`.
    pub fn gaps_between(&self, from_ns: u64, to_ns: u64) -> Vec<Gap> {
        self.gaps.iter().filter(|gap| gap.to_ns > from_ns && gap.from_ns < to_ns).copied().collect()
    }
}

/// Number of records at a ring's end that may still be being written.
const PENDING: u64 = 64;

/// Merges sorted `new` into sorted `all`; only the end of `all` can be newer than the start of `new`.
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

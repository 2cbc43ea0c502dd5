//! Execs of watched processes that the gate saw, kept until the kernel reports them.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::messages::LetGo;
use crate::watch::armed::lock;

/// Most processes that are remembered; when the map is full, it is cleared, and what happened to their execs
/// is unknown.
const MAX_SEEN: usize = 65_536;

/// What the gate did with an exec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The gate did not see it: the file system has no mark.
    Unseen,
    /// The gate held it as long as necessary.
    Held,
    /// The gate released it before its probes were attached.
    Released(LetGo),
    /// Unknown: some reports were lost, or the gate was open for a while.
    Unknown,
}

/// Time in CLOCK_MONOTONIC nanoseconds, and why the exec was not held.
type Exec = (u64, Option<LetGo>);

#[derive(Debug, Default)]
pub(super) struct Seen {
    by_pid: Mutex<HashMap<u32, Vec<Exec>>>,
    ran_go: AtomicBool,
    incomplete: AtomicBool,
}

impl Seen {
    /// Adds an exec of watched process `pid`, which was held unless `released` has a reason.
    pub(super) fn add(&self, pid: u32, time_ns: u64, released: Option<LetGo>) {
        let mut by_pid = lock(&self.by_pid);
        if by_pid.len() >= MAX_SEEN {
            by_pid.clear();
            self.lost();
        }
        by_pid.entry(pid).or_default().push((time_ns, released));
    }

    /// Marks all held execs as released by a watchdog. Returns their number.
    pub(super) fn release_all(&self) -> u64 {
        let mut by_pid = lock(&self.by_pid);
        let held = by_pid.values_mut().flatten().filter(|(_, released)| released.is_none());
        held.map(|(_, released)| *released = Some(LetGo::Watchdog)).count() as u64
    }

    /// Notes that some execs were not reported, or that the gate was open for a while.
    pub(super) fn lost(&self) {
        self.incomplete.store(true, Ordering::Relaxed);
    }

    /// Notes that a watched process executes a Go program that has probes.
    pub(super) fn go(&self) {
        self.ran_go.store(true, Ordering::Relaxed);
    }

    pub(super) fn ran_go(&self) -> bool {
        self.ran_go.load(Ordering::Relaxed)
    }

    /// Returns what happened to the exec that the kernel reported at `exec_ns`. One exec can have several
    /// entries here: a script, its interpreter and the interpreter's loader.
    pub(super) fn take(&self, pid: u32, exec_ns: u64) -> Sight {
        let mut by_pid = lock(&self.by_pid);
        let unseen = if self.incomplete.load(Ordering::Relaxed) { Sight::Unknown } else { Sight::Unseen };
        let Some(execs) = by_pid.get_mut(&pid) else { return unseen };
        let (seen, later): (Vec<Exec>, Vec<Exec>) = execs.drain(..).partition(|(time, _)| *time <= exec_ns);
        *execs = later;
        match seen.iter().rev().find_map(|(_, released)| *released) {
            Some(reason) => Sight::Released(reason),
            None if seen.is_empty() => unseen,
            None => Sight::Held,
        }
    }

    /// Drops the execs of process `pid`, which has ended.
    pub(super) fn forget(&self, pid: u32) {
        lock(&self.by_pid).remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exec_takes_what_was_seen_before_it() {
        let seen = Seen::default();
        assert_eq!(seen.take(7, 100), Sight::Unseen);
        seen.add(7, 10, None);
        seen.add(7, 20, None);
        seen.add(7, 300, None);
        assert_eq!(seen.take(7, 100), Sight::Held);
        assert_eq!(seen.take(7, 100), Sight::Unseen, "it was consumed");
        assert_eq!(seen.take(7, 300), Sight::Held);
        seen.add(7, 400, Some(LetGo::Deadline));
        seen.add(7, 401, None);
        assert_eq!(seen.take(7, 500), Sight::Released(LetGo::Deadline), "its loader was known");
        seen.add(7, 600, None);
        assert_eq!((seen.release_all(), seen.release_all()), (1, 0));
        assert_eq!(seen.take(7, 600), Sight::Released(LetGo::Watchdog));
        seen.add(7, 650, None);
        seen.forget(7);
        assert_eq!(seen.take(7, 700), Sight::Unseen);
    }

    #[test]
    fn what_was_lost_is_not_taken_for_unseen() {
        let seen = Seen::default();
        (0..MAX_SEEN as u32).for_each(|pid| seen.add(pid, 1, None));
        assert_eq!(seen.take(3, 2), Sight::Held);
        seen.add(u32::MAX, 1, None);
        assert_eq!(seen.take(4, 2), Sight::Unknown);
        assert_eq!(seen.take(u32::MAX, 2), Sight::Held);
    }
}

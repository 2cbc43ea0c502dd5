//! The watchdog in the gate's process: removes the marks when an exec waits and the loop has not come round for 100 ms.
//!
//! The loop can wait for the kernel only, where it reads about an exec and the kernel opens the file. The main process watches the
//! whole process in the same way ([`super::link`]); this one is there when that is stopped too.

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use super::{
    BEAT, MAX_FDS,
    fanotify::Group,
    messages::{FromGate, encode},
};
use crate::helper::Socket;

/// What the loop does.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<State>);

#[derive(Debug, Default)]
struct State {
    turns: AtomicU64,
    /// It reads about execs, or decides about them.
    busy: AtomicBool,
}

impl Pulse {
    /// The loop has come round.
    pub(super) fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The loop begins or ends to read about execs.
    pub(super) fn busy(&self, busy: bool) {
        self.0.busy.store(busy, Ordering::Relaxed);
    }
}

/// What a thread waits for, as its state in /proc says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// For a CPU.
    Cpu,
    /// For something else, or it is stopped.
    Else,
}

impl Waits {
    /// Of the `stat` file of a thread or process. <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
    pub(super) fn read(stat: &str) -> Waits {
        let stat = fs::read_to_string(stat).unwrap_or_default();
        // Behind the name in parentheses, which may hold anything.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state == Some('R') { Waits::Cpu } else { Waits::Else }
    }
}

/// Tells a loop that stands still from one that runs.
#[derive(Debug, Default)]
pub(super) struct Still {
    count: u64,
    looks: u32,
}

/// Looks, each [`BEAT`] after the last, between which a loop must have come round. A process that was stopped itself looks once
/// too early, never twice.
const LOOKS: u32 = 2;
/// The same for a loop that waits for a CPU: on a busy machine everything else is late as well.
const LOOKS_FOR_CPU: u32 = 20;

impl Still {
    /// Looks at the count of turns; `true` when the loop stands still.
    pub(super) fn look(&mut self, count: u64, waits: impl FnOnce() -> Waits) -> bool {
        self.looks = if count == self.count { self.looks + 1 } else { 0 };
        self.count = count;
        self.looks >= LOOKS_FOR_CPU || (self.looks >= LOOKS && waits() == Waits::Else)
    }
}

/// Starts the thread. The calling thread is the loop's.
///
/// # Errors
/// Without threads.
pub(super) fn start(group: Arc<Group>, pulse: Pulse, socket: Socket) -> io::Result<()> {
    // SAFETY: no preconditions.
    let stat = format!("/proc/self/task/{}/stat", unsafe { libc::gettid() });
    let watch = move || {
        let (mut still, mut reported) = (Still::default(), false);
        loop {
            thread::sleep(BEAT);
            let is_still = still.look(pulse.0.turns.load(Ordering::Relaxed), || Waits::read(&stat));
            if !is_still {
                reported = false;
            } else if pulse.0.busy.load(Ordering::Relaxed) || group.has_execs() {
                // Said first: the kernel's report of an exec that goes on must not come before it.
                reported = reported || socket.send(&encode(&FromGate::Unmarked), &[]).is_ok();
                // Again and again: an exec may have met a mark before it was removed.
                group.release_all(MAX_FDS);
            }
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(watch).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_stands_still_when_two_looks_find_no_turn() {
        let mut still = Still::default();
        let mut look = |count| still.look(count, || Waits::Else);
        assert!(!look(1), "it came round");
        assert!(!look(1), "perhaps it was about to");
        assert!(look(1) && look(1));
        assert!(!look(2) && !look(3));
    }

    #[test]
    fn a_loop_that_waits_for_a_cpu_gets_more_time() {
        let mut still = Still::default();
        let looks = (0..100).take_while(|_| !still.look(1, || Waits::Cpu)).count();
        assert_eq!(looks as u32, LOOKS_FOR_CPU);
    }

    #[test]
    fn states_of_threads() {
        assert_eq!(Waits::read("/proc/thread-self/stat"), Waits::Cpu);
        assert_eq!(Waits::read("/nowhere"), Waits::Else);
    }
}

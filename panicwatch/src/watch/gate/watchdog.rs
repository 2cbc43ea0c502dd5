//! The watchdog in the gate process: removes the marks if an exec is held and the loop has not completed a
//! turn for 100 ms.
//!
//! The loop can only block in the kernel, which opens the file when the loop reads an event. The main process
//! monitors the whole gate process in the same way ([`super::link`]); this watchdog is for the time when the
//! main process is stopped, too.

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

/// Progress of the loop, shared with the watchdog.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse(Arc<State>);

#[derive(Debug, Default)]
struct State {
    turns: AtomicU64,
    /// Whether the loop is reading events or deciding about them.
    busy: AtomicBool,
}

impl Pulse {
    /// Counts a turn of the loop.
    pub(super) fn turn(&self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// Called when the loop begins or ends to handle events.
    pub(super) fn busy(&self, busy: bool) {
        self.0.busy.store(busy, Ordering::Relaxed);
    }
}

/// What a thread waits for, according to its state in /proc.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waits {
    /// Only a CPU: the thread is runnable.
    Cpu,
    /// Anything else, or the thread is stopped.
    Else,
}

impl Waits {
    /// Reads the `stat` file of a thread or process.
    /// <https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html>
    pub(super) fn read(stat: &str) -> Waits {
        let stat = fs::read_to_string(stat).unwrap_or_default();
        // The state follows the name in parentheses, which may contain anything.
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        if state == Some('R') { Waits::Cpu } else { Waits::Else }
    }
}

/// Detects a loop that makes no progress.
#[derive(Debug, Default)]
pub(super) struct Still {
    count: u64,
    looks: u32,
}

/// Number of checks, one every [`BEAT`], within which the loop must complete a turn. A watchdog that was
/// itself stopped may check too early once, but not twice.
const LOOKS: u32 = 2;
/// The same for a loop that waits for a CPU: on a busy machine everything else is late as well.
const LOOKS_FOR_CPU: u32 = 20;

impl Still {
    /// Compares the number of turns with that of the last check; returns `true` if the loop makes no
    /// progress.
    pub(super) fn look(&mut self, count: u64, waits: impl FnOnce() -> Waits) -> bool {
        self.looks = if count == self.count { self.looks + 1 } else { 0 };
        self.count = count;
        self.looks >= LOOKS_FOR_CPU || (self.looks >= LOOKS && waits() == Waits::Else)
    }
}

/// Starts the watchdog thread, which monitors the calling thread.
///
/// # Errors
/// Fails if the thread cannot be started.
pub(super) fn start(group: Arc<Group>, pulse: Pulse, socket: Socket) -> io::Result<()> {
    // SAFETY: gettid has no preconditions.
    let stat = format!("/proc/self/task/{}/stat", unsafe { libc::gettid() });
    let watch = move || {
        let (mut still, mut reported) = (Still::default(), false);
        loop {
            thread::sleep(BEAT);
            let is_still = still.look(pulse.0.turns.load(Ordering::Relaxed), || Waits::read(&stat));
            if !is_still {
                reported = false;
            } else if pulse.0.busy.load(Ordering::Relaxed) || group.has_execs() {
                // Sent first: the kernel's event of an allowed exec must not arrive before it.
                reported = reported || socket.send(&encode(&FromGate::Unmarked), &[]).is_ok();
                // Repeated in every round: an exec may have hit a mark before it was removed.
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

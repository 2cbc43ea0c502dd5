//! Signal state that panicwatch was started with, which the programs it starts must inherit.
//!
//! Rust's runtime ignores SIGPIPE before `main`, `std::process` resets SIGPIPE and the mask in every child,
//! glibc's posix_spawn ignores signal 32, and panicwatch installs handlers, which exec resets to the default.
//! A constructor therefore records the state before any of that, and [`AtStart::restore`] restores it between
//! fork and exec.

use std::{
    mem, ptr,
    sync::atomic::{AtomicU64, Ordering},
};

/// Signals that were ignored: bit n - 1 for signal n, as SigIgn in /proc/PID/status.
static IGNORED: AtomicU64 = AtomicU64::new(0);
/// Signals that were blocked, in the same format.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
/// Highest signal number. <https://man7.org/linux/man-pages/man7/signal.7.html>
const SIGNALS: i32 = 64;

/// Constructor that the C library runs before `main`.
#[used]
// SAFETY: the section contains pointers to functions that the C library calls once each; this one makes
// system calls only.
#[unsafe(link_section = ".init_array")]
static RECORD: extern "C" fn() = record;

extern "C" fn record() {
    let mut ignored = 0;
    for signal in 1..=SIGNALS {
        // SAFETY: all zeroes is a valid sigaction.
        let mut now: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: this only queries; `now` outlives the call. The call fails for signals that the C library
        // reserves.
        let done = unsafe { libc::sigaction(signal, ptr::null(), &raw mut now) };
        if done == 0 && now.sa_sigaction == libc::SIG_IGN {
            ignored |= bit(signal);
        }
    }
    IGNORED.store(ignored, Ordering::Relaxed);
    // SAFETY: all zeroes is the empty sigset_t.
    let mut blocked: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: this only queries; `blocked` outlives the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, ptr::null(), &raw mut blocked) };
    // SAFETY: the set is initialised, and sigismember rejects unknown numbers.
    let is_blocked = |signal: &i32| unsafe { libc::sigismember(&raw const blocked, *signal) } == 1;
    BLOCKED.store((1..=SIGNALS).filter(is_blocked).map(bit).sum(), Ordering::Relaxed);
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Ignored and blocked signals at the start of panicwatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtStart {
    ignored: u64,
    blocked: u64,
}

/// Returns what was recorded before `main`.
pub(super) fn at_start() -> AtStart {
    AtStart { ignored: IGNORED.load(Ordering::Relaxed), blocked: BLOCKED.load(Ordering::Relaxed) }
}

impl AtStart {
    /// Applies this state to the calling process. Async-signal-safe.
    pub(super) fn restore(self) {
        for signal in (1..=SIGNALS).filter(|signal| self.ignored & bit(*signal) != 0) {
            // SAFETY: a system call; it replaces a handler of ours that nothing else in this process refers
            // to.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        // SAFETY: all zeroes is the empty sigset_t.
        let mut blocked: libc::sigset_t = unsafe { mem::zeroed() };
        for signal in (1..=SIGNALS).filter(|signal| self.blocked & bit(*signal) != 0) {
            // SAFETY: the set is initialised, and sigaddset rejects unknown numbers.
            unsafe { libc::sigaddset(&raw mut blocked, signal) };
        }
        // SAFETY: the set outlives the call.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const blocked, ptr::null_mut()) };
    }
}

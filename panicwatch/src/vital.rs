//! Threads without which the rest is worth nothing, or does harm: should one panic, the process ends at once.
//!
//! The helper process then detaches the probes and the kernel lets every held exec go on, and the service manager (systemd, a
//! kubelet) restarts panicwatch; what is in the store is safe. A process that went on without its reader, or without the thread that answers
//! held execs, would do neither.

use std::{
    io, panic,
    process::abort,
    thread::{self, JoinHandle},
};

/// Starts a thread of that name.
///
/// # Errors
/// When the system has none.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let of_thread = name.to_owned();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nothing is used again after a panic.
        if panic::catch_unwind(panic::AssertUnwindSafe(run)).is_err() {
            log::error!("the thread \"{of_thread}\" panicked: panicwatch exits, so that it can be restarted");
            abort();
        }
    })
}

/// How late the timers of a thread that is in no hurry may be, nanoseconds: longer than a tick of kernels with 250 a second.
const SLACK_NS: libc::c_ulong = 5_000_000;

/// The calling thread, which wakes up again and again, may be woken some milliseconds late: together with the scheduler's tick,
/// so that no interrupt more strikes a busy CPU. Not for threads that start programs, which would inherit it.
/// <https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html>
pub fn in_no_hurry() {
    // SAFETY: takes a number; where it is refused timers stay exact.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    /// Only this test sets it, for the process that is to end.
    const INNER: &str = "PANICWATCH_TEST_VITAL";

    #[test]
    fn a_panic_ends_the_process() {
        let name = "vital::tests::a_panic_ends_the_process";
        if std::env::var_os(INNER).is_some() {
            let thread = super::spawn("vital", || panic!("in a vital thread")).expect("a thread");
            let _ = thread.join();
            return;
        }
        let this = std::env::current_exe().expect("this test");
        let inner = Command::new(this).args(["--exact", name]).env(INNER, "1").output().expect("run");
        assert_eq!(inner.status.signal(), Some(6), "{:?}", inner.status);
    }
}

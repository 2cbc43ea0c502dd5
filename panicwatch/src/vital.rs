//! Abort-on-panic threads: threads without which the rest of panicwatch is useless or harmful. If one panics,
//! the process aborts.
//!
//! The helper process then detaches the probes, the kernel allows every held exec, and the service manager
//! (systemd, a kubelet) restarts panicwatch; the incident files in the store are safe. If the process
//! continued without its ring reader, or without the thread that answers held execs, none of this would
//! happen.

use std::{
    io, panic,
    process::abort,
    thread::{self, JoinHandle},
};

/// Starts an abort-on-panic thread named `name`.
///
/// # Errors
/// Fails when the system cannot create a thread.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let of_thread = name.to_owned();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Unwind safety does not matter: nothing is used after a panic.
        if panic::catch_unwind(panic::AssertUnwindSafe(run)).is_err() {
            log::error!("the thread \"{of_thread}\" panicked: panicwatch exits, so that it can be restarted");
            abort();
        }
    })
}

/// Timer slack of periodic threads without deadlines, nanoseconds: longer than one tick of a kernel with
/// HZ=250.
const SLACK_NS: libc::c_ulong = 5_000_000;

/// Lets the kernel delay timers of the calling thread by up to 5 ms, for threads that wake up periodically:
/// their timers then expire with the scheduler tick instead of interrupting a busy CPU once more. Not for
/// threads that start programs: child processes inherit the slack.
/// <https://man7.org/linux/man-pages/man2/PR_SET_TIMERSLACK.2const.html>
pub fn in_no_hurry() {
    // SAFETY: prctl takes a number here, no pointer; if it fails, timers stay exact.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS) };
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    /// Set by this test only, for the child process that is expected to abort.
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

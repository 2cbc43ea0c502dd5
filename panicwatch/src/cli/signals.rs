//! Forwards the signals sent to panicwatch to the program it started.
//!
//! Signals from the terminal (Ctrl-C) reach the program directly, because it is in the same process group;
//! signals that another process sends to our PID are forwarded.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use signal_hook::{
    consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2, SIGWINCH},
    iterator::{
        SignalsInfo,
        exfiltrator::origin::{Origin, WithOrigin},
    },
    low_level::siginfo::{Cause, Sent},
};

/// Forwards signals to the child from when its PID is set until it has ended.
pub(super) struct Forwarding {
    child: Arc<AtomicU32>,
    stop: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

/// Value of `child` after the child has ended.
const ENDED: u32 = u32::MAX;

impl Forwarding {
    /// Sets the PID of the child.
    pub(super) fn child_is(&self, pid: u32) {
        self.child.store(pid, Ordering::SeqCst);
    }

    /// Stops forwarding: the child has ended and was waited for, so its PID may be reused from now on.
    pub(super) fn child_ended(&self) {
        self.child.store(ENDED, Ordering::SeqCst);
    }

    /// Sets the action of SIGINT, SIGTERM, SIGHUP and SIGQUIT once the child has ended.
    pub(super) fn after_the_child(&self, stop: impl Fn() + Send + Sync + 'static) {
        // Called once, so it cannot fail.
        let _ = self.stop.set(Box::new(stop));
    }
}

/// Starts the thread that forwards signals.
pub(super) fn forward_to_child() -> io::Result<Forwarding> {
    let all = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM, SIGWINCH, SIGTSTP];
    let mut signals = SignalsInfo::<WithOrigin>::new(all)?;
    let child = Arc::new(AtomicU32::new(0));
    let stop: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>> = Arc::default();
    let (to, at_end) = (child.clone(), stop.clone());
    thread::Builder::new().name("signals".into()).spawn(move || {
        for origin in signals.forever() {
            let pid = match to.load(Ordering::SeqCst) {
                ENDED => {
                    if matches!(origin.signal, SIGINT | SIGTERM | SIGHUP | SIGQUIT)
                        && let Some(stop) = at_end.get()
                    {
                        stop();
                    }
                    0
                }
                pid => pid,
            };
            if pid != 0 && was_sent_to_us(&origin) {
                // SAFETY: plain system call. The PID is our child's; after the child has ended, no signal is
                // forwarded.
                unsafe { libc::kill(pid as libc::pid_t, origin.signal) };
            }
            if origin.signal == SIGTSTP {
                // Returns when panicwatch is resumed.
                // SAFETY: plain system call.
                unsafe { libc::raise(libc::SIGSTOP) };
                if pid != 0 {
                    // SAFETY: as above. The terminal's SIGCONT reaches the child directly; one sent to us
                    // must reach it too.
                    unsafe { libc::kill(pid as libc::pid_t, libc::SIGCONT) };
                }
            }
        }
    })?;
    Ok(Forwarding { child, stop })
}

fn was_sent_to_us(origin: &Origin) -> bool {
    matches!(origin.cause, Cause::Sent(Sent::User | Sent::Queue | Sent::TKill))
}

/// Calls `stop` on SIGINT, SIGTERM and SIGHUP.
pub(super) fn on_stop(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.forever().for_each(|_| stop()))
        .map(drop)
}

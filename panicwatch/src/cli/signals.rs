//! Signals sent to panicwatch are meant for the program.
//!
//! What the terminal sends (Ctrl-C) reaches the program by itself, for it is in the same process group; what somebody
//! sends to our pid is passed on.

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

/// Passes signals on to the child, once it is known and until it has ended.
pub(super) struct Forwarding {
    child: Arc<AtomicU32>,
    stop: Arc<OnceLock<Box<dyn Fn() + Send + Sync>>>,
}

/// In the place of a child's pid: it has ended.
const ENDED: u32 = u32::MAX;

impl Forwarding {
    /// Says who the child is.
    pub(super) fn child_is(&self, pid: u32) {
        self.child.store(pid, Ordering::SeqCst);
    }

    /// The child has ended and was waited for: its pid can be another's from now on.
    pub(super) fn child_ended(&self) {
        self.child.store(ENDED, Ordering::SeqCst);
    }

    /// Sets what SIGINT, SIGTERM, SIGHUP and SIGQUIT do once the child has ended.
    pub(super) fn after_the_child(&self, stop: impl Fn() + Send + Sync + 'static) {
        // It is set once.
        let _ = self.stop.set(Box::new(stop));
    }
}

/// Starts the thread.
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
                // SAFETY: plain system call. The pid is our child's; after its end nothing waits to be forwarded.
                unsafe { libc::kill(pid as libc::pid_t, origin.signal) };
            }
            if origin.signal == SIGTSTP {
                // Returns when somebody lets us go on.
                // SAFETY: plain system call.
                unsafe { libc::raise(libc::SIGSTOP) };
                if pid != 0 {
                    // SAFETY: as above. The terminal's SIGCONT reaches it anyway; one sent to us must too.
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

/// Calls `stop` when somebody wants us to end.
pub(super) fn on_stop(stop: impl Fn() + Send + 'static) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || signals.forever().for_each(|_| stop()))
        .map(drop)
}

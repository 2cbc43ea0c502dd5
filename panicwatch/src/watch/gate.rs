//! The exec gate: attaches probes to Go binaries that watched processes are about to execute, before their
//! first instruction.
//!
//! fanotify reports a file before it is opened for execution (FAN_OPEN_EXEC_PERM) and waits for an answer,
//! which is always to allow. A separate process answers ([`process`]), so that execs continue while the main
//! process is stopped or busy. It holds an exec only while the main process attaches probes, and never for
//! longer than [`deadline`]; an exec of an unwatched process is allowed at once. If the gate process does not
//! answer, the main process removes the marks ([`link`]); if it dies, the kernel allows every held exec.
//! [`mounts`](super::mounts) decides which file systems are marked; execs on others are not held, and
//! `follow` attaches probes after them.
//! <https://man7.org/linux/man-pages/man7/fanotify.7.html>

mod decide;
mod fanotify;
mod link;
mod marks;
mod messages;
mod pauses;
pub mod process;
mod seen;
mod stall;
mod watchdog;

use std::{fs::File, io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

pub use self::{link::Counts, messages::LetGo, seen::Sight};
use self::{link::Link, marks::Marks, messages::ToGate, seen::Seen};
use super::armory::{ArmError, Armory};

/// Interval of heartbeats of the gate's loop.
const BEAT: Duration = Duration::from_millis(50);
/// Limit of the descriptor numbers in the gate process.
const MAX_FDS: i32 = 1024;
/// How long an exec is held for its probes at most.
const DEADLINE: Duration = Duration::from_secs(2);
/// Environment variable for tests: another deadline, milliseconds.
const FORCED_DEADLINE_MS: &str = "PANICWATCH_GATE_DEADLINE_MS";

/// Returns how long an exec is held at most while its probes are attached.
pub(super) fn deadline() -> Duration {
    let forced = std::env::var(FORCED_DEADLINE_MS).ok().and_then(|ms| ms.parse().ok());
    forced.map_or(DEADLINE, Duration::from_millis)
}

/// Attaches probes to the file that a process is about to execute, if the process is to be watched.
pub(super) type Arm = dyn Fn(u32, &File, &Path) -> Result<(), ArmError> + Send + Sync;
/// Called with binaries to which probes could not be attached.
pub(super) type OnRefusal = dyn Fn(ArmError) + Send + Sync;
/// Called with a message for the user, as a sentence. Must not block.
pub(super) type OnNote = dyn Fn(String) + Send + Sync;

/// Dependencies of a gate.
pub(super) struct Parts {
    pub(super) armory: Arc<Armory>,
    /// Descriptor of the table of watched processes; without it, the main process decides about every exec.
    pub(super) watched: Option<OwnedFd>,
    pub(super) arm: Arc<Arm>,
    pub(super) refused: Arc<OnRefusal>,
    pub(super) note: Arc<OnNote>,
}

/// The running gate. Dropping it ends the gate process, and no exec is held any more.
pub struct Gate {
    link: Arc<Link>,
    marks: Arc<Marks>,
    seen: Arc<Seen>,
}

impl Gate {
    /// Marks the file systems of the mount namespace of process `pid`, if that is not panicwatch's own.
    pub(super) fn cover(&self, pid: u32) {
        self.marks.cover(pid);
    }

    /// Returns what the gate did with the exec of process `pid` that the kernel reported at `exec_ns`.
    /// Consumes what the gate reported up to then.
    pub(super) fn saw(&self, pid: u32, exec_ns: u64) -> Sight {
        self.seen.take(pid, exec_ns)
    }

    /// Reports whether a watched process has executed a Go program that has probes.
    pub(super) fn ran_go(&self) -> bool {
        self.seen.ran_go()
    }

    /// Drops the state of process `pid`, which has ended.
    pub(super) fn forget(&self, pid: u32) {
        self.seen.forget(pid);
    }

    /// Makes the gate process forget its decisions about files, after a binary has lost its probes.
    pub(super) fn forget_files(&self) {
        self.link.send(&ToGate::ForgetFiles);
    }

    /// Returns the gate's counters since the start.
    pub fn counts(&self) -> Counts {
        self.link.counts()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// Starts the gate process and marks the file systems.
///
/// # Errors
/// Fails if the gate process cannot be started, the kernel has no fanotify permission events, or
/// CAP_SYS_ADMIN is missing.
pub(super) fn start(parts: Parts) -> io::Result<Gate> {
    let seen = Arc::new(Seen::default());
    let (link, marks) = link::start(Arc::new(parts), seen.clone())?;
    let gate = Gate { link, marks, seen };
    gate.marks.watch()?;
    Ok(gate)
}

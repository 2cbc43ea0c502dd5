//! The exec gate: attaches probes to Go binaries that watched processes are about to execute, before their first instruction.
//!
//! fanotify reports a file before it is opened for execution (FAN_OPEN_EXEC_PERM) and waits for an answer, which is always yes. A
//! process of its own answers ([`process`]): it goes on when the main process is stopped or busy. It holds an exec only while the
//! main process attaches probes, and never for longer than [`deadline`]; an exec of an unwatched process is answered at once. Should
//! the gate's process itself not answer, the main process removes the marks ([`link`]); when it dies, the kernel lets every held exec
//! go on. Which file systems are marked is decided by [`mounts`](super::mounts); execs on others are not held, and `follow`
//! attaches after them. <https://man7.org/linux/man-pages/man7/fanotify.7.html>

mod decide;
mod fanotify;
mod link;
mod marks;
mod messages;
pub mod process;
mod seen;
mod stall;
mod watchdog;

use std::{fs::File, io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};

pub use self::{link::Counts, messages::LetGo, seen::Sight};
use self::{link::Link, marks::Marks, messages::ToGate, seen::Seen};
use super::armory::{ArmError, Armory};

/// Between two signs of life of the gate's loop.
const BEAT: Duration = Duration::from_millis(50);
/// Descriptors of the gate's process are numbered below this.
const MAX_FDS: i32 = 1024;
/// How long an exec is held for its probes.
const DEADLINE: Duration = Duration::from_secs(2);
/// For tests: another time, milliseconds.
const FORCED_DEADLINE_MS: &str = "PANICWATCH_GATE_DEADLINE_MS";

/// How long an exec is held at most while its probes are attached.
pub(super) fn deadline() -> Duration {
    let forced = std::env::var(FORCED_DEADLINE_MS).ok().and_then(|ms| ms.parse().ok());
    forced.map_or(DEADLINE, Duration::from_millis)
}

/// Attaches probes to the file that a process is about to execute, if that is wanted.
pub(super) type Arm = dyn Fn(u32, &File, &Path) -> Result<(), ArmError> + Send + Sync;
/// Called with binaries to which probes could not be attached.
pub(super) type OnRefusal = dyn Fn(ArmError) + Send + Sync;
/// Called with a sentence for people. Must not wait.
pub(super) type OnNote = dyn Fn(String) + Send + Sync;

/// What a gate works with.
pub(super) struct Parts {
    pub(super) armory: Arc<Armory>,
    /// The kernel's table of watched processes; without it every exec is asked about.
    pub(super) watched: Option<OwnedFd>,
    pub(super) arm: Arc<Arm>,
    pub(super) refused: Arc<OnRefusal>,
    pub(super) note: Arc<OnNote>,
}

/// The running gate. Dropping it ends its process, and holds nothing any more.
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

    /// What the gate did with the exec of process `pid` that the kernel reported at `exec_ns`. Consumes what it saw until then.
    pub(super) fn saw(&self, pid: u32, exec_ns: u64) -> Sight {
        self.seen.take(pid, exec_ns)
    }

    /// Has a watched process executed a Go program that has probes?
    pub(super) fn ran_go(&self) -> bool {
        self.seen.ran_go()
    }

    /// Process `pid` has ended.
    pub(super) fn forget(&self, pid: u32) {
        self.seen.forget(pid);
    }

    /// A binary has lost its probes: files that were known are asked about again.
    pub(super) fn forget_files(&self) {
        self.link.send(&ToGate::ForgetFiles);
    }

    /// What it did since the start.
    pub fn counts(&self) -> Counts {
        self.link.counts()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.link.close();
    }
}

/// Starts the gate.
///
/// # Errors
/// When its process cannot be started, the kernel has no fanotify permission events, or CAP_SYS_ADMIN is missing.
pub(super) fn start(parts: Parts) -> io::Result<Gate> {
    let seen = Arc::new(Seen::default());
    let (link, marks) = link::start(Arc::new(parts), seen.clone())?;
    let gate = Gate { link, marks, seen };
    gate.marks.watch()?;
    Ok(gate)
}

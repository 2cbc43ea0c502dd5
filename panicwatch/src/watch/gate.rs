//! The exec gate: attaches probes to Go binaries that watched processes are about to execute, before their first instruction.
//!
//! fanotify reports a file before it is opened for execution (FAN_OPEN_EXEC_PERM) and waits for an answer, which is always yes. An
//! exec by an unwatched process is answered at once. When panicwatch dies, the kernel closes the descriptor and lets every held exec
//! go on. Which file systems are marked is decided by [`mounts`]; execs on others are not held, and `follow` attaches after them.
//! <https://man7.org/linux/man-pages/man7/fanotify.7.html>

mod marks;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use self::marks::Marks;
use super::{
    armed::lock,
    armory::{ArmError, Armory, KnownFile},
};
use crate::{clock::Clock, vital};

/// One event, as in the kernel's fanotify.h (metadata version 3).
#[repr(C)]
#[derive(Clone, Copy)]
struct Metadata {
    event_len: u32,
    version: u8,
    reserved: u8,
    metadata_len: u16,
    mask: u64,
    fd: i32,
    pid: i32,
}

/// Decides whether a process is watched.
pub(super) type IsWatched = dyn Fn(u32) -> bool + Send + Sync;
/// Attaches probes to the file that a process is about to execute, if that is wanted.
pub(super) type Arm = dyn Fn(u32, &File, &Path) -> Result<(), ArmError> + Send + Sync;
/// Called with binaries to which probes could not be attached.
pub(super) type OnRefusal = dyn Fn(ArmError) + Send + Sync;

/// Execs of watched processes that the gate saw, by process: CLOCK_MONOTONIC nanoseconds, until [`Gate::saw`] consumes them.
type Seen = Mutex<HashMap<u32, Vec<u64>>>;
/// Processes in [`Seen`]; with more, all are forgotten, and their execs count as unseen.
const MAX_SEEN: usize = 65_536;

/// The running gate.
pub struct Gate {
    marks: Arc<Marks>,
    seen: Arc<Seen>,
    ran_go: Arc<AtomicBool>,
}

impl Gate {
    /// Removes all marks: while panicwatch is stopped no exec would be answered.
    pub fn open(&self) {
        self.marks.remove();
        // Execs that were held before are answered by the thread meanwhile.
        thread::sleep(std::time::Duration::from_millis(20));
    }

    /// Sets the marks again.
    pub fn close(&self) {
        self.marks.set_again();
    }

    /// Marks the file systems of the mount namespace of process `pid`, if that is not panicwatch's own.
    pub(super) fn cover(&self, pid: u32) {
        self.marks.cover(pid);
    }

    /// Did the gate see the exec of process `pid` that the kernel reported at `exec_ns`? Consumes what it saw until then.
    pub(super) fn saw(&self, pid: u32, exec_ns: u64) -> bool {
        let mut seen = lock(&self.seen);
        let Some(times) = seen.get_mut(&pid) else { return false };
        let before = times.len();
        times.retain(|time| *time > exec_ns);
        before > times.len()
    }

    /// Has a watched process executed a Go program that has probes?
    pub(super) fn ran_go(&self) -> bool {
        self.ran_go.load(Ordering::Relaxed)
    }

    /// Process `pid` has ended.
    pub(super) fn forget(&self, pid: u32) {
        lock(&self.seen).remove(&pid);
    }
}

/// Starts the gate; it lives as long as panicwatch.
///
/// # Errors
/// When the kernel has no fanotify permission events, or we lack CAP_SYS_ADMIN.
pub(super) fn start(
    armory: Arc<Armory>,
    watched: Arc<IsWatched>,
    arm: Arc<Arm>,
    refused: Arc<OnRefusal>,
) -> io::Result<Gate> {
    let flags =
        libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_UNLIMITED_QUEUE | libc::FAN_UNLIMITED_MARKS;
    // SAFETY: plain system call; the result is checked.
    let fd =
        unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC) as u32) };
    if fd < 0 {
        return Err(match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EPERM) => {
                io::Error::new(e.kind(), "fanotify needs CAP_SYS_ADMIN")
            }
            e => io::Error::new(e.kind(), format!("fanotify is refused: {e}")),
        });
    }
    // SAFETY: a new descriptor that is ours.
    let fanotify = unsafe { File::from_raw_fd(fd) };
    let answers = Arc::new(fanotify.try_clone()?);
    let marks = marks::start(answers.clone())?;
    let seen = Arc::new(Seen::default());
    let ran_go = Arc::new(AtomicBool::new(false));
    let gate = Gate { marks, seen: seen.clone(), ran_go: ran_go.clone() };
    let server = Server { answers, armory, watched, arm, refused, seen, ran_go };
    vital::spawn("exec gate", move || server.serve(fanotify))?;
    Ok(gate)
}

/// Remembers that the gate saw an exec of watched process `pid`.
fn remember(seen: &Seen, pid: u32) {
    let mut seen = lock(seen);
    if seen.len() >= MAX_SEEN {
        seen.clear();
    }
    seen.entry(pid).or_default().push(Clock::monotonic_ns());
}

/// What answers.
struct Server {
    answers: Arc<File>,
    armory: Arc<Armory>,
    watched: Arc<IsWatched>,
    arm: Arc<Arm>,
    refused: Arc<OnRefusal>,
    seen: Arc<Seen>,
    ran_go: Arc<AtomicBool>,
}

impl Server {
    fn serve(&self, mut events: File) {
        let mut buffer = vec![0u8; 64 << 10];
        loop {
            let n = match events.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let mut rest = &buffer[..n];
            while rest.len() >= size_of::<Metadata>() {
                // SAFETY: there are enough bytes; any bytes are a Metadata; unaligned reading is allowed for.
                let event = unsafe { rest.as_ptr().cast::<Metadata>().read_unaligned() };
                let Some(next) = rest.get(event.event_len as usize..).filter(|_| event.event_len > 0) else {
                    break;
                };
                rest = next;
                if event.fd >= 0 {
                    // SAFETY: the event brings a descriptor that is ours to close.
                    let file = unsafe { File::from_raw_fd(event.fd) };
                    self.answer(event.pid as u32, Pass { answers: self.answers.clone(), file });
                }
            }
        }
    }

    /// Lets process `pid` execute the file of `pass`: at once, unless it is watched and the file may need probes.
    fn answer(&self, pid: u32, pass: Pass) {
        if pid == std::process::id() || !(self.watched)(pid) {
            return;
        }
        remember(&self.seen, pid);
        match self.armory.known(&pass.file) {
            Some(KnownFile::Armed(_)) => return self.ran_go.store(true, Ordering::Relaxed),
            Some(known) if !known.may_be_armed() => return,
            _ => {}
        }
        // Reading a large binary takes a while; other execs must not wait for it.
        let (arm, refused, ran_go) = (self.arm.clone(), self.refused.clone(), self.ran_go.clone());
        let arm = move || {
            let name = fs::read_link(format!("/proc/self/fd/{}", pass.file.as_raw_fd()));
            let name = name.unwrap_or_else(|_| PathBuf::from("(unknown)"));
            match arm(pid, &pass.file, &name) {
                Ok(()) => ran_go.store(true, Ordering::Relaxed),
                Err(ArmError::NotGo(_)) => {}
                Err(error) => refused(error),
            }
        };
        // Without a thread the closure is dropped, and with it the pass: the process goes on.
        let _ = thread::Builder::new().name("arming".into()).spawn(arm);
    }
}

/// A held exec; dropping lets it go on.
struct Pass {
    answers: Arc<File>,
    file: File,
}

impl Drop for Pass {
    fn drop(&mut self) {
        allow(&self.answers, &self.file);
    }
}

fn allow(answers: &File, file: &File) {
    let mut answer = [0u8; 8];
    answer[..4].copy_from_slice(&file.as_raw_fd().to_ne_bytes());
    answer[4..].copy_from_slice(&libc::FAN_ALLOW.to_ne_bytes());
    let mut answers: &File = answers;
    let _ = answers.write_all(&answer);
}

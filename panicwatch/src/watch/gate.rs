//! Arms Go binaries that watched processes are about to execute, before their first instruction.
//!
//! fanotify asks us before a file is opened for execution (FAN_OPEN_EXEC_PERM) and waits for the answer, which is
//! always yes. Processes that are not watched are answered at once. When panicwatch dies, however it dies, the kernel
//! closes the descriptor and lets everyone who waits go on: nobody is ever left stopped.
//! <https://man7.org/linux/man-pages/man7/fanotify.7.html>

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read, Write},
    os::fd::{AsRawFd, FromRawFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use super::armory::{ArmError, Armory};
use crate::vital;

/// Filesystems that hold no programs.
const PSEUDO: [&str; 16] = [
    "proc",
    "sysfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "mqueue",
    "hugetlbfs",
    "configfs",
    "fusectl",
    "autofs",
    "efivarfs",
];

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

/// Is this process to be watched?
pub(super) type IsWatched = dyn Fn(u32) -> bool + Send + Sync;
/// Arms what a process is about to execute, if that is wanted.
pub(super) type Arm = dyn Fn(u32, &File, &Path) -> Result<(), ArmError> + Send + Sync;
/// Told of binaries that could not be armed.
pub(super) type OnRefusal = dyn Fn(ArmError) + Send + Sync;

/// The running gate.
pub struct Gate {
    fanotify: Arc<File>,
}

impl Gate {
    /// Lets everybody pass unasked, before panicwatch is stopped: while it is, nobody would answer.
    pub fn open(&self) {
        let how = libc::FAN_MARK_FLUSH | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: plain system call; flushing takes no path.
        unsafe { libc::fanotify_mark(self.fanotify.as_raw_fd(), how, 0, libc::AT_FDCWD, std::ptr::null()) };
        // Who asked before is answered by the thread meanwhile.
        thread::sleep(std::time::Duration::from_millis(20));
    }

    /// Asks again.
    pub fn close(&self) {
        // Marks that were there a moment ago; should one fail now, that filesystem's programs go unwatched.
        let _ = mark_filesystems(&self.fanotify);
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
    if mark_filesystems(&fanotify)? == 0 {
        return Err(io::Error::other("no mounted filesystem takes fanotify permission events"));
    }
    let answers = Arc::new(fanotify.try_clone()?);
    let gate = Gate { fanotify: answers.clone() };
    vital::spawn("exec gate", move || {
        serve(fanotify, &answers, &armory, &watched, &arm, &refused);
    })?;
    Ok(gate)
}

/// Marks every mounted filesystem that can hold programs; gives their number.
fn mark_filesystems(fanotify: &File) -> io::Result<usize> {
    let mut marked = 0;
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        // "36 35 98:0 / /mnt rw,noatime shared:1 - ext3 /dev/root rw"
        let (Some(point), Some(kind)) =
            (line.split(' ').nth(4), line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()))
        else {
            continue;
        };
        if PSEUDO.contains(&kind) {
            continue;
        }
        let Ok(path) = CString::new(unescape(point)) else { continue };
        let how = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: the path is NUL-terminated and outlives the call.
        let done = unsafe {
            libc::fanotify_mark(
                fanotify.as_raw_fd(),
                how,
                libc::FAN_OPEN_EXEC_PERM,
                libc::AT_FDCWD,
                path.as_ptr(),
            )
        };
        marked += usize::from(done == 0);
    }
    Ok(marked)
}

/// mountinfo writes space, tab, newline and backslash as octal.
fn unescape(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let octal =
            bytes.get(i + 1..i + 4).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match octal {
            Some(byte) if bytes[i] == b'\\' => {
                out.push(byte);
                i += 4;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    out
}

fn serve(
    mut events: File,
    answers: &Arc<File>,
    armory: &Arc<Armory>,
    watched: &Arc<IsWatched>,
    arm: &Arc<Arm>,
    refused: &Arc<OnRefusal>,
) {
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
            if event.fd < 0 {
                continue;
            }
            // SAFETY: the event brings a descriptor that is ours to close.
            let file = unsafe { File::from_raw_fd(event.fd) };
            let pid = event.pid as u32;
            if pid == std::process::id() || !watched(pid) || !armory.may_arm(&file) {
                allow(answers, &file);
                continue;
            }
            // Reading a large binary takes a while; others must not wait for it.
            let (answers, arm, refused) = (answers.clone(), arm.clone(), refused.clone());
            let arm = move || {
                let pass = Pass { answers, file };
                let name = fs::read_link(format!("/proc/self/fd/{}", pass.file.as_raw_fd()));
                let name = name.unwrap_or_else(|_| PathBuf::from("(unknown)"));
                match arm(pid, &pass.file, &name) {
                    Ok(()) | Err(ArmError::NotGo(_)) => {}
                    Err(error) => refused(error),
                }
            };
            // Without a thread the closure is dropped, and with it the pass: the process goes on.
            let _ = thread::Builder::new().name("arming".into()).spawn(arm);
        }
    }
}

/// Lets the process go on when dropped, whatever happened.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_with_spaces() {
        assert_eq!(unescape("/mnt/a\\040b\\134c"), b"/mnt/a b\\c");
        assert_eq!(unescape("/x\\04"), b"/x\\04");
    }
}

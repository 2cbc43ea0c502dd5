//! The fanotify system calls that the exec gate needs.
//! <https://man7.org/linux/man-pages/man7/fanotify.7.html>

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

/// Event metadata as in the kernel's fanotify.h (metadata version 3).
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

/// Most events per read. The kernel opens a file for each of them, and denies the exec if it cannot.
/// <https://github.com/torvalds/linux/blob/v6.12/fs/notify/fanotify/fanotify_user.c> (fanotify_read)
pub(super) const BATCH: usize = 32;

/// Permission event: process `pid` is about to execute `file`.
pub(super) struct Exec {
    pub(super) pid: u32,
    pub(super) file: File,
}

/// One descriptor of a fanotify group with permission events.
pub(super) struct Group(File);

impl Group {
    /// Opens a group without marks.
    ///
    /// # Errors
    /// Fails if the kernel has no permission events, or CAP_SYS_ADMIN is missing.
    pub(super) fn open() -> io::Result<Group> {
        let flags = libc::FAN_CLASS_CONTENT
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_QUEUE
            | libc::FAN_UNLIMITED_MARKS;
        let of_events = (libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC) as u32;
        // SAFETY: fanotify_init takes integers; the result is checked.
        let fd = unsafe { libc::fanotify_init(flags, of_events) };
        if fd < 0 {
            return Err(match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::EPERM) => {
                    io::Error::new(e.kind(), "fanotify needs CAP_SYS_ADMIN")
                }
                e => io::Error::new(e.kind(), format!("fanotify failed: {e}")),
            });
        }
        // SAFETY: the call returned a new descriptor that is ours.
        Ok(Group(unsafe { File::from_raw_fd(fd) }))
    }

    /// Duplicates the group that process `pid` has open as descriptor `fd`. Needs permission to ptrace that
    /// process, and Linux 5.6.
    /// <https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html>
    ///
    /// # Errors
    /// Fails if the kernel denies access or is too old.
    pub(super) fn of_process(pid: u32, fd: RawFd) -> io::Result<Group> {
        // SAFETY: pidfd_open takes integers; the result is checked.
        let process = new_fd(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: pidfd_getfd takes integers; the result is checked.
        let group = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) };
        new_fd(group).map(|fd| Group(File::from(fd)))
    }

    /// Returns the group's descriptor number in this process.
    pub(super) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Marks the file system of `point` (O_PATH). Walks no path except a link in /proc to the descriptor.
    ///
    /// # Errors
    /// Fails if the kernel rejects the mark.
    pub(super) fn mark(&self, point: BorrowedFd<'_>) -> io::Result<()> {
        let path = CString::new(format!("/proc/self/fd/{}", point.as_raw_fd()))?;
        let how = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: the path is NUL-terminated and outlives the call.
        let done = unsafe {
            libc::fanotify_mark(self.fd(), how, libc::FAN_OPEN_EXEC_PERM, libc::AT_FDCWD, path.as_ptr())
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Removes all marks, so that no further exec causes an event.
    fn flush(&self) {
        let how = libc::FAN_MARK_FLUSH | libc::FAN_MARK_FILESYSTEM;
        // SAFETY: flushing takes no path; the other arguments are integers.
        unsafe { libc::fanotify_mark(self.fd(), how, 0, libc::AT_FDCWD, std::ptr::null()) };
    }

    /// Reports whether there is an event that no process has read.
    pub(super) fn has_execs(&self) -> bool {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the request writes an integer, which outlives the call.
        unsafe { libc::ioctl(self.fd(), libc::FIONREAD, &raw mut bytes) == 0 && bytes > 0 }
    }

    /// Reads the pending events, at most [`BATCH`]; empty if there is none.
    ///
    /// # Errors
    /// Fails if the read fails.
    pub(super) fn read(&self) -> io::Result<Vec<Exec>> {
        let mut buffer = [0u8; BATCH * size_of::<Metadata>()];
        let n = loop {
            match (&self.0).read(&mut buffer) {
                Ok(n) => break n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
                Err(e) => return Err(e),
            }
        };
        let mut execs = Vec::new();
        let mut rest = &buffer[..n];
        while rest.len() >= size_of::<Metadata>() {
            // SAFETY: there are enough bytes, any bytes are a valid Metadata, and the read may be unaligned.
            let event = unsafe { rest.as_ptr().cast::<Metadata>().read_unaligned() };
            if event.fd >= 0 {
                // SAFETY: each event has a descriptor that is ours to close.
                let file = unsafe { File::from_raw_fd(event.fd) };
                execs.push(Exec { pid: event.pid as u32, file });
            }
            let Some(next) = rest.get(event.event_len as usize..).filter(|_| event.event_len > 0) else {
                break;
            };
            rest = next;
        }
        Ok(execs)
    }

    /// Allows the exec whose event had descriptor `fd`; returns `false` if there is none.
    pub(super) fn allow(&self, fd: RawFd) -> bool {
        let mut answer = [0u8; 8];
        answer[..4].copy_from_slice(&fd.to_ne_bytes());
        answer[4..].copy_from_slice(&libc::FAN_ALLOW.to_ne_bytes());
        (&self.0).write_all(&answer).is_ok()
    }

    /// Removes all marks and allows all held execs: those whose events no process has read yet, and those
    /// that a process has as descriptors below `fds`. The kernel finds an exec by its descriptor number,
    /// whichever process answers.
    /// <https://github.com/torvalds/linux/blob/v6.12/fs/notify/fanotify/fanotify_user.c>
    /// (process_access_response)
    pub(super) fn release_all(&self, fds: RawFd) {
        self.flush();
        while let Ok(execs) = self.read() {
            if execs.is_empty() {
                break;
            }
            // Two processes can have the same descriptor number for two execs, hence the loop.
            execs.iter().for_each(|exec| while self.allow(exec.file.as_raw_fd()) {});
        }
        (0..fds).for_each(|fd| while self.allow(fd) {});
    }
}

fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: the system call returned a new descriptor that is ours.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

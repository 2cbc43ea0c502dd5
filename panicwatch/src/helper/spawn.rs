//! Starts helper processes, and turns a process into one.

use std::{
    env, fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{self, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{Kind, Socket};

/// Whether `main` has called [`super::dispatch`], so that this program, when started again, becomes a helper
/// and does nothing else.
static DISPATCHES: AtomicBool = AtomicBool::new(false);

/// Time limit for a helper to become ready. It usually takes milliseconds; the limit is for machines that
/// swap.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Signals that are sent to a whole session, control group or terminal, and that the helper ignores; it ends
/// with its socket.
const IGNORED: [libc::c_int; 11] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGPIPE,
    libc::SIGALRM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Lowest OOM score adjustment: the kernel never chooses such a process when memory is short, and spares it
/// when it kills a whole cgroup. Needs CAP_SYS_RESOURCE. <https://docs.kernel.org/admin-guide/cgroup-v2.html>
/// (memory.oom.group)
const NEVER_FOR_MEMORY: &str = "-1000";

/// A helper process, from its parent's side.
#[derive(Debug)]
pub struct Child(process::Child);

impl Child {
    /// Returns the process ID.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until the helper has ended, which it does after the other end of its socket is closed.
    ///
    /// # Errors
    /// Fails if the process cannot be waited for.
    pub fn wait(&mut self) -> io::Result<process::ExitStatus> {
        self.0.wait()
    }

    /// Reports whether the helper has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

pub(super) fn this_program_dispatches() {
    DISPATCHES.store(true, Ordering::Relaxed);
}

/// Starts a helper and waits until it is ready. It inherits the capabilities of this process as an executed
/// program does: a process that drops its ambient capabilities must start its helpers before that.
///
/// # Errors
/// Fails if the helper cannot be started or ends at once.
pub fn spawn(kind: Kind) -> io::Result<(Child, Socket)> {
    if !DISPATCHES.load(Ordering::Relaxed) {
        return Err(io::Error::other(
            "this program starts no helpers: its main does not call helper::dispatch",
        ));
    }
    // Works even if the file was deleted or replaced.
    start(Path::new("/proc/self/exe"), kind)
}

/// Like [`spawn`], with another executable of panicwatch.
///
/// # Errors
/// Same as [`spawn`].
pub fn start(executable: &Path, kind: Kind) -> io::Result<(Child, Socket)> {
    let (ours, theirs) = Socket::pair()?;
    let mut command = Command::new(executable);
    command.arg0(kind.title()).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: only one system call is made between fork and exec, and it is async-signal-safe.
    unsafe { command.pre_exec(|| check(libc::setsid())) };
    let mut child = Child(command.spawn()?);
    // The command holds a copy of the helper's end; without it, the death of the helper ends the stream.
    drop(command);
    let failed = match ours.receive_within(READY_WITHIN) {
        Ok(Some(_)) => return Ok((child, ours)),
        Ok(None) => "it exited at once".to_owned(),
        Err(error) => error.to_string(),
    };
    drop(ours);
    // A helper that does not answer must not be left running, and holds nothing yet.
    let _ = child.0.kill();
    let _ = child.wait();
    Err(io::Error::other(format!("the process \"{}\" did not start: {failed}", kind.title())))
}

/// Turns this process, which [`start`] started, into the helper: releases everything of its parent except the
/// socket.
///
/// # Errors
/// Fails if a system call that the parent relies on fails.
pub(super) fn become_helper(kind: Kind) -> io::Result<Socket> {
    for signal in IGNORED {
        // SAFETY: ignoring a signal involves no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let socket = Socket::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = fs::File::open("/dev/null")?;
    // SAFETY: both descriptors are open; standard input is replaced by the file.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    drop(null);
    close_all_but(&socket)?;
    // Does not keep a directory of the user from being unmounted.
    env::set_current_dir("/")?;
    // SAFETY: the name is a NUL-terminated string.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, kind.task_name().as_ptr()) })?;
    // Without the privilege, the OOM killer may choose the helper like any other process.
    let _ = fs::write("/proc/self/oom_score_adj", NEVER_FOR_MEMORY);
    socket.send(b"", &[])?;
    Ok(socket)
}

/// Closes inherited descriptors except standard input, output and error: a pipe of the user's would otherwise
/// stay open after panicwatch has ended.
fn close_all_but(socket: &Socket) -> io::Result<()> {
    let kept = socket.as_fd().as_raw_fd();
    let listed: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2 && *fd != kept)
        .collect();
    for fd in listed {
        // SAFETY: nothing in this process uses these descriptors: it has just started, and has one thread.
        // The descriptor of the directory listing is closed already, for which close fails.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

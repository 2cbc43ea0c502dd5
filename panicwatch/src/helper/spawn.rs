//! Starting a helper process, and becoming one.

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

/// `main` has called [`super::dispatch`]: this program, started again, becomes a helper and does nothing else.
static DISPATCHES: AtomicBool = AtomicBool::new(false);

/// A helper is ready after milliseconds; this is for machines that swap.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Signals that are sent to a whole session, control group or terminal. The helper ends with its socket instead.
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

/// The lowest score: the kernel never chooses such a process when memory is short, and spares it when it kills a whole control
/// group. Needs CAP_SYS_RESOURCE. <https://docs.kernel.org/admin-guide/cgroup-v2.html> (memory.oom.group)
const NEVER_FOR_MEMORY: &str = "-1000";

/// A helper process, as its parent sees it.
#[derive(Debug)]
pub struct Child(process::Child);

impl Child {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Waits until the helper has ended, which it does after the other end of its socket was closed.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn wait(&mut self) -> io::Result<process::ExitStatus> {
        self.0.wait()
    }

    /// Reports whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

pub(super) fn this_program_dispatches() {
    DISPATCHES.store(true, Ordering::Relaxed);
}

/// Starts a helper and waits until it is ready. It inherits the capabilities of this process as a program that is executed does:
/// a process that gives up its ambient capabilities starts its helpers before.
///
/// # Errors
/// When it cannot be started, or ends at once.
pub fn spawn(kind: Kind) -> io::Result<(Child, Socket)> {
    if !DISPATCHES.load(Ordering::Relaxed) {
        return Err(io::Error::other(
            "this program starts no helpers: its main does not call helper::dispatch",
        ));
    }
    // Also where the file was deleted or replaced since.
    start(Path::new("/proc/self/exe"), kind)
}

/// [`spawn`] of another executable of panicwatch.
///
/// # Errors
/// Those of [`spawn`].
pub fn start(executable: &Path, kind: Kind) -> io::Result<(Child, Socket)> {
    let (ours, theirs) = Socket::pair()?;
    let mut command = Command::new(executable);
    command.arg0(kind.title()).stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec one system call is made, which is async-signal-safe.
    unsafe { command.pre_exec(|| check(libc::setsid())) };
    let mut child = Child(command.spawn()?);
    // Its copies of the helper's end go with it: the helper's death is seen as the end of the stream.
    drop(command);
    let failed = match ours.receive_within(READY_WITHIN) {
        Ok(Some(_)) => return Ok((child, ours)),
        Ok(None) => "it exited at once".to_owned(),
        Err(error) => error.to_string(),
    };
    drop(ours);
    // A helper that does not answer must not be left behind, and holds nothing yet.
    let _ = child.0.kill();
    let _ = child.wait();
    Err(io::Error::other(format!("the process \"{}\" did not start: {failed}", kind.title())))
}

/// Turns this process, which [`start`] started, into the helper: nothing of its parent's is held but the socket.
///
/// # Errors
/// When the kernel refuses something that the parent relies on.
pub(super) fn become_helper(kind: Kind) -> io::Result<Socket> {
    for signal in IGNORED {
        // SAFETY: ignoring a signal involves no handler.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let socket = Socket::from(io::stdin().as_fd().try_clone_to_owned()?);
    let null = fs::File::open("/dev/null")?;
    // SAFETY: both descriptors are open; standard input becomes the file's.
    check(unsafe { libc::dup2(null.as_raw_fd(), 0) })?;
    drop(null);
    close_all_but(&socket)?;
    // A folder of the user's is not kept from being unmounted.
    env::set_current_dir("/")?;
    // SAFETY: the name is a C string.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, kind.task_name().as_ptr()) })?;
    // As far as permitted: without the right to it the helper may be killed as any other process.
    let _ = fs::write("/proc/self/oom_score_adj", NEVER_FOR_MEMORY);
    socket.send(b"", &[])?;
    Ok(socket)
}

/// Closes what was inherited beside standard input and output: a pipe of the user's would not end with panicwatch.
fn close_all_but(socket: &Socket) -> io::Result<()> {
    let kept = socket.as_fd().as_raw_fd();
    let listed: Vec<i32> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd > 2 && *fd != kept)
        .collect();
    for fd in listed {
        // SAFETY: nothing in this process uses these descriptors: it has just begun, and has one thread. That of the listed
        // folder is closed already, which the kernel refuses.
        unsafe { libc::close(fd) };
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

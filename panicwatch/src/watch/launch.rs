//! Starts a program: resolves its name as a shell does, and gives it the signal state that panicwatch itself was started with.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
};

use super::signals;
use crate::escape;

/// The program cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// Not found.
    #[error("{0}: no such program; give its path, or a name that is in PATH")]
    Missing(String),
    /// A directory or the like.
    #[error("{0} is not a file")]
    NotAFile(String),
    /// No execute permission.
    #[error("{0} is not executable; run chmod +x")]
    NotExecutable(String),
    /// execve failed.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Program.
        program: String,
        /// errno.
        source: io::Error,
    },
}

/// Returns the file that `program` names: a path when it contains a slash, else the first executable of that name in PATH.
///
/// # Errors
/// When there is none, or it cannot be executed.
pub fn resolve(program: &OsStr) -> Result<PathBuf, LaunchError> {
    if program.as_encoded_bytes().contains(&b'/') {
        let path = PathBuf::from(program);
        return check(&path, program).map(|()| path);
    }
    let found = env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|dir| dir.join(program))
        .find(|path| check(path, program).is_ok());
    found.ok_or_else(|| LaunchError::Missing(shown(program)))
}

/// A program's name for an error message.
fn shown(program: &OsStr) -> String {
    escape::one_line(&program.to_string_lossy())
}

fn check(path: &Path, program: &OsStr) -> Result<(), LaunchError> {
    let meta = fs::metadata(path).map_err(|_| LaunchError::Missing(shown(program)))?;
    if !meta.is_file() {
        return Err(LaunchError::NotAFile(shown(program)));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(LaunchError::NotExecutable(shown(program)));
    }
    // Read as well as executed: the tables must be read.
    File::open(path).map_err(|source| LaunchError::Start { program: shown(program), source })?;
    Ok(())
}

/// Starts the program with panicwatch's own input, output, environment, ignored signals and signal mask. With `dies_with_us` the
/// kernel kills it when panicwatch ends.
///
/// # Errors
/// When the kernel refuses to execute it.
pub fn start(
    path: &Path,
    program: &OsStr,
    args: &[OsString],
    dies_with_us: bool,
) -> Result<Child, LaunchError> {
    use std::os::unix::process::CommandExt;
    let (signals, parent) = (signals::at_start(), std::process::id());
    let mut command = Command::new(path);
    command.arg0(program).args(args);
    // SAFETY: between fork and exec only system calls are made, on copied integers.
    unsafe {
        command.pre_exec(move || {
            signals.restore();
            if dies_with_us { die_with(parent) } else { Ok(()) }
        })
    };
    command.spawn().map_err(|source| LaunchError::Start { program: shown(program), source })
}

/// Has the kernel send SIGKILL to the calling process when the thread of `parent` that started it ends.
/// <https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html>
fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: takes integers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: no preconditions. A parent that ended before the request sends nothing.
    let still = unsafe { libc::getppid() } as u32 == parent;
    if still { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// Returns the exit status that a shell would report.
pub fn shell_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

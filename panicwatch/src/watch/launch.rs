//! Starts a program: resolves its name as a shell does, and restores the signal state that panicwatch itself
//! was started with.

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

/// Error of starting a program.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// No such file.
    #[error("{0}: no such program; give its path, or a name that is in PATH")]
    Missing(String),
    /// A directory or another file that is not regular.
    #[error("{0} is not a file")]
    NotAFile(String),
    /// The file has no execute permission.
    #[error("{0} is not executable; run chmod +x")]
    NotExecutable(String),
    /// The file cannot be read, or fork or execve failed.
    #[error("cannot start {program}: {source}")]
    Start {
        /// Name of the program.
        program: String,
        /// Error of the system call.
        source: io::Error,
    },
}

/// Returns the file that `program` names: a path if it contains a slash, else the first executable of that
/// name in PATH.
///
/// # Errors
/// Fails if there is none, or it cannot be executed or read.
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

/// Returns a program's name, escaped for an error message.
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
    // The file must be readable, too: its tables are parsed.
    File::open(path).map_err(|source| LaunchError::Start { program: shown(program), source })?;
    Ok(())
}

/// Starts the program with panicwatch's own input, output, environment, ignored signals and signal mask. With
/// `dies_with_us` the kernel kills it when panicwatch ends.
///
/// # Errors
/// Fails if the program cannot be executed.
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
    // SAFETY: only system calls are made between fork and exec, on copied integers.
    unsafe {
        command.pre_exec(move || {
            signals.restore();
            if dies_with_us { die_with(parent) } else { Ok(()) }
        })
    };
    command.spawn().map_err(|source| LaunchError::Start { program: shown(program), source })
}

/// Requests SIGKILL for the calling process for when the thread of `parent` that started it ends.
/// <https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html>
fn die_with(parent: u32) -> io::Result<()> {
    // SAFETY: prctl takes integers here.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getppid has no preconditions. A parent that ended before the request causes no signal, hence
    // the check.
    let still = unsafe { libc::getppid() } as u32 == parent;
    if still { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// Returns the exit status that a shell would report.
pub fn shell_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

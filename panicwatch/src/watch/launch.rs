//! Starting the program: found as a shell would, its signals passed on, its end told.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
};

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
    #[error("{0} is not executable; chmod +x makes it so")]
    NotExecutable(String),
    /// execve failed.
    #[error("starting {program} failed: {source}")]
    Start {
        /// Program.
        program: String,
        /// errno.
        source: io::Error,
    },
}

/// The file that `program` names: a path when it has a slash, else the first executable of that name in PATH.
pub fn resolve(program: &str) -> Result<PathBuf, LaunchError> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return check(&path, program).map(|()| path);
    }
    let found = env::var_os("PATH")
        .iter()
        .flat_map(env::split_paths)
        .map(|dir| dir.join(program))
        .find(|path| check(path, program).is_ok());
    found.ok_or_else(|| LaunchError::Missing(program.to_owned()))
}

fn check(path: &Path, program: &str) -> Result<(), LaunchError> {
    let meta = fs::metadata(path).map_err(|_| LaunchError::Missing(program.to_owned()))?;
    if !meta.is_file() {
        return Err(LaunchError::NotAFile(program.to_owned()));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(LaunchError::NotExecutable(program.to_owned()));
    }
    // Read as well as executed: the tables must be read.
    File::open(path).map_err(|source| LaunchError::Start { program: program.to_owned(), source })?;
    Ok(())
}

/// Starts it with our input, output and environment.
///
/// # Errors
/// When the kernel refuses to execute it.
pub fn start(path: &Path, program: &str, args: &[String]) -> Result<Child, LaunchError> {
    use std::os::unix::process::CommandExt;
    Command::new(path)
        .arg0(program)
        .args(args)
        .spawn()
        .map_err(|source| LaunchError::Start { program: program.to_owned(), source })
}

/// The exit status that a shell would give.
pub fn shell_status(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}

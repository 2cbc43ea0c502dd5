//! Handles processes that ended before they were inspected: attaches probes to their binary for the next
//! time, because the same program may be started again. The file is found by the data of the exec event.
//! Programs whose file cannot be found are counted.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Census, Known, State};
use crate::{
    container::Place,
    host::procfs,
    watch::armory::{KnownFile, Unarmed},
};

/// Why the file of a program that has ended could not be read. Whether it was a Go program is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Its first argument is not an absolute path, and not the name of a file on its PATH.
    NoPath,
    /// The file no longer exists, or is in another mount namespace.
    NoFile,
}

impl Unread {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Unread; 2] = [Unread::NoPath, Unread::NoFile];

    /// Text for the user, also used as a metric label.
    pub fn sentence(self) -> &'static str {
        match self {
            Unread::NoPath => "its path is not known",
            Unread::NoFile => "its file could not be opened",
        }
    }
}

impl Census {
    /// Attaches probes to the binary of a process that ended before it was inspected.
    ///
    /// # Errors
    /// Fails if its file cannot be found.
    pub(super) fn for_the_next(&self, pid: u32) -> Result<(), Unread> {
        let mut known = self.meet(pid, None, None, None);
        let path = path_of(&self.state(), pid, known.process.args.as_deref()).ok_or(Unread::NoPath)?;
        let file = open_regular(&path).map_err(|_| Unread::NoFile)?;
        let module = match self.file(&file, &path) {
            Some(KnownFile::Unarmed(Unarmed::Go { module })) => module,
            Some(KnownFile::Unarmed(Unarmed::NotGo)) => {
                self.forget_exec(pid);
                return Ok(());
            }
            _ => return Ok(()),
        };
        known.process.exe = Some(path.to_string_lossy().into_owned());
        known.left_out = self.selected(&known.process, module.as_deref(), &Place::default(), None).err();
        self.arm_for_the_next(&file, &path, &known);
        Ok(())
    }

    /// Attaches probes to the Go program in `file`, if `known`, an ended process of it, matches the selector.
    pub(super) fn arm_for_the_next(&self, file: &File, path: &Path, known: &Known) {
        if known.left_out.is_none() {
            // An error is reported when a running process of the file is inspected.
            let _ = self.armory.arm(file, path);
        }
    }
}

/// Returns the path of the program that process `pid` executed.
fn path_of(state: &State, pid: u32, args: Option<&[String]>) -> Option<PathBuf> {
    let first = args?.first()?;
    if first.starts_with('/') {
        return Some(PathBuf::from(first));
    }
    // As a shell or execvp(3) finds it: the new program's environment is usually that of the caller.
    let exec = state.execs.iter().find(|exec| exec.pid == pid)?;
    let env = procfs::strings(exec.env.as_deref()?);
    on_path(first, env.iter().find_map(|variable| variable.strip_prefix("PATH="))?)
}

/// Returns the first file named `name` on `search`, a PATH. `None` for a name with a slash, and relative
/// directories are skipped: both are relative to an unknown directory.
fn on_path(name: &str, search: &str) -> Option<PathBuf> {
    if name.is_empty() || name.contains('/') {
        return None;
    }
    let folders = search.split(':').filter(|folder| folder.starts_with('/'));
    folders.map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Opens a regular file. The path is what a process claims: opening a FIFO would block this thread forever,
/// and opening a device could have side effects.
fn open_regular(path: &Path) -> io::Result<File> {
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
    // Checked before, so that nothing else is opened, and after, because the path may lead to another file by
    // then.
    if !fs::metadata(path)?.is_file() {
        return Err(not_regular());
    }
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let dir = tempfile::tempdir().expect("a folder");
        let program = dir.path().join("program");
        fs::write(&program, "").expect("written");
        let search = format!("relative:/nowhere:{}", dir.path().display());
        assert_eq!(on_path("program", &search), Some(program));
        for name in ["", "other", "./program", "."] {
            assert_eq!(on_path(name, &search), None, "{name:?}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        for path in [&fifo, Path::new("/dev/null"), dir.path(), Path::new("/does/not/exist")] {
            assert!(open_regular(path).is_err(), "{path:?}");
        }
        assert!(open_regular(&std::env::current_exe().expect("this test")).is_ok());
    }
}

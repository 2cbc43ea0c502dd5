//! Handles processes that ended before they were inspected: attaches probes to their binary for the next
//! time, because the same program may be started again. The file is found by the data of the exec event.
//! Programs for which that fails are counted.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{Census, Executed, Known, Reported};
use crate::{
    container::Place,
    host::procfs,
    watch::armory::{ArmError, KnownFile, Unarmed},
};

/// Why a program that has ended was not watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is a selected Go program, and its probes were attached when it was ending or had ended; they are in
    /// place for its next start.
    Late,
    /// It is a selected Go program, and the kernel rejected its probes.
    NotArmed,
    /// Whether it was a Go program is unknown: its first argument is not an absolute path, and not the name
    /// of a file on its PATH.
    NoPath,
    /// As above: the file no longer exists, or is in another mount namespace.
    NoFile,
    /// As above: too many other programs were to be inspected, and its arguments were dropped.
    Dropped,
}

impl Unread {
    /// Every reason, in the order of their numbers.
    pub const ALL: [Unread; 5] =
        [Unread::Late, Unread::NotArmed, Unread::NoPath, Unread::NoFile, Unread::Dropped];

    /// Text for the user, also used as a metric label.
    pub fn sentence(self) -> &'static str {
        match self {
            Unread::Late => "it ended before its probes were attached",
            Unread::NotArmed => "its probes could not be attached",
            Unread::NoPath => "its path is not known",
            Unread::NoFile => "its file could not be opened",
            Unread::Dropped => "too many programs started at once",
        }
    }
}

impl Census {
    /// Attaches probes to the binary of a process that ended before it was inspected.
    ///
    /// # Errors
    /// Fails if its file cannot be found, or if it is a selected Go program that had no probes at its exec.
    pub(super) fn for_the_next(&self, pid: u32, executed: &Executed) -> Result<(), Unread> {
        let Executed::Reported(reported) = executed else { return Err(Unread::Dropped) };
        let path = path_of(reported).ok_or(Unread::NoPath)?;
        let file = open_regular(&path).map_err(|_| Unread::NoFile)?;
        let module = match self.file(&file, &path) {
            Some(KnownFile::Unarmed(Unarmed::Go { module })) => module,
            Some(KnownFile::Armed(armed)) => armed.module(),
            Some(KnownFile::Unarmed(Unarmed::NotGo)) => {
                self.forget_exec(pid);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let mut known = self.meet(pid, None, None, None);
        known.process.args = reported.args.as_deref().map(procfs::strings);
        known.process.exe = Some(path.to_string_lossy().into_owned());
        known.left_out = self.selected(&known.process, module.as_deref(), &Place::default(), None).err();
        self.arm_for_the_next(&file, &path, &known, Some(reported.time_ns))
    }

    /// Attaches probes to the Go program in `file`, if `known`, an ended process of it, matches the selector.
    /// `exec_ns` is the time of its exec; `None` if the file had no probes when the process ended.
    ///
    /// # Errors
    /// Fails if the file had no probes at its exec. Why a binary cannot be watched is reported when a running
    /// process of it is inspected.
    pub(super) fn arm_for_the_next(
        &self,
        file: &File,
        path: &Path,
        known: &Known,
        exec_ns: Option<u64>,
    ) -> Result<(), Unread> {
        if known.left_out.is_some() {
            return Ok(());
        }
        match self.armory.arm(file, path) {
            Ok(armed) if exec_ns.is_some_and(|exec_ns| exec_ns >= armed.since_ns) => Ok(()),
            Ok(_) => Err(Unread::Late),
            Err(ArmError::Probe(_)) => Err(Unread::NotArmed),
            Err(_) => Ok(()),
        }
    }
}

/// Returns the path of the program that was executed with these arguments.
fn path_of(reported: &Reported) -> Option<PathBuf> {
    let args = procfs::strings(reported.args.as_deref()?);
    let first = args.first()?;
    if first.starts_with('/') {
        return Some(PathBuf::from(first));
    }
    // As a shell or execvp(3) finds it: the new program's environment is usually that of the caller.
    let env = procfs::strings(reported.env.as_deref()?);
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
    fn a_program_is_found_by_what_it_was_executed_with() {
        let reported = |args: Option<&[u8]>, env: Option<&[u8]>| Reported {
            time_ns: 0,
            args: args.map(<[u8]>::to_vec),
            env: env.map(<[u8]>::to_vec),
        };
        let found = |args: &[u8], env: &[u8]| path_of(&reported(Some(args), Some(env)));
        assert_eq!(found(b"/srv/shop\0-v\0", b""), Some(PathBuf::from("/srv/shop")));
        assert_eq!(found(b"./shop\0", b"PATH=/bin\0"), None);
        assert!(found(b"sh\0", b"A=1\0PATH=/nowhere:/bin\0").is_some_and(|path| path.ends_with("bin/sh")));
        assert_eq!(found(b"sh\0", b"A=1\0"), None);
        assert_eq!(path_of(&reported(None, None)), None);
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

//! A disk that is small enough to be filled.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A file system in memory of a few megabytes, gone with it.
pub(crate) struct Small(tempfile::TempDir);

impl Small {
    /// `None` without the right to mount.
    pub(crate) fn new() -> Option<Small> {
        let dir = tempfile::tempdir().expect("a directory");
        mount(&["-t", "tmpfs", "-o", "size=3m", "none"], dir.path()).then_some(Small(dir))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("store")
    }

    pub(crate) fn grow(&self) {
        assert!(mount(&["-o", "remount,size=32m"], self.0.path()), "it grows");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a thread of a test that failed may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(options: &[&str], at: &Path) -> bool {
    Command::new("mount").args(options).arg(at).status().is_ok_and(|status| status.success())
}

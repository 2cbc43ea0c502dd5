//! A disk small enough to fill.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs of a few megabytes; dropping the value unmounts it.
pub(crate) struct Small(tempfile::TempDir);

impl Small {
    /// Mounts the file system; returns `None` without the right to mount.
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
        // Lazy unmount: a thread of a failed test may still have a file open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(options: &[&str], at: &Path) -> bool {
    Command::new("mount").args(options).arg(at).status().is_ok_and(|status| status.success())
}

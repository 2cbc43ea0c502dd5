//! A Go binary with attached probes. The probe registry (`armory`) decides which binaries have them.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{capture::Program, host::procfs, mappings::Mapping, probe::attach::Attached, recorder::Source};

/// A Go binary with attached probes.
pub struct Armed {
    /// The binary and its probe plan.
    pub program: Arc<Program>,
    /// Row in the `BINARIES` map.
    pub index: u32,
    /// Time at which its probes were attached, CLOCK_MONOTONIC nanoseconds: the start of a process that began
    /// earlier is not covered.
    pub since_ns: u64,
    /// Probes of the panic path and, if the recorder runs, the probe that reports the start of a process.
    pub(super) probes: Mutex<Vec<Attached>>,
    /// The opened file, to attach further probes later; `None` if that is not possible.
    pub(super) file: Option<File>,
    /// The recorder's probes, by source.
    pub(super) recorder: Mutex<BTreeMap<Source, Attached>>,
    /// Probes of `init-trace`, until they are detached.
    pub(super) init: Mutex<Option<Attached>>,
}

impl Armed {
    /// Returns the path of the main module.
    pub fn module(&self) -> Option<String> {
        self.program.bin.build_info().module_path().map(str::to_owned)
    }

    /// Reports whether the file is a library, which a process has beside its executable.
    pub(super) fn is_library(&self) -> bool {
        self.program.bin.build_info().setting("-buildmode") == Some("c-shared")
    }

    /// Reports whether process `pid` maps the file now: as its executable, as a library, or as the program of
    /// a loader. `None` if that cannot be read, because the process has ended, for example. After the end of
    /// a process its PID may belong to another.
    pub(super) fn is_mapped_by(&self, pid: u32) -> Option<bool> {
        let inode = self.file.as_ref()?.metadata().ok()?.ino();
        let maps = procfs::maps(pid).ok().filter(|maps| !maps.is_empty())?;
        let path = self.program.path.to_string_lossy();
        let is_it = |mapping: &Mapping| mapping.is_file() && (mapping.inode == inode || mapping.path == path);
        Some(maps.iter().any(is_it))
    }

    /// Removes and returns all its probes.
    pub(super) fn take_probes(&self) -> Vec<Attached> {
        let mut probes = std::mem::take(&mut *lock(&self.probes));
        probes.extend(std::mem::take(&mut *lock(&self.recorder)).into_values());
        probes.extend(lock(&self.init).take());
        probes
    }

    /// Frees memory that can be restored on demand: decoded tables and file pages.
    pub(super) fn release(&self) {
        self.program.forget();
        self.drop_pages();
    }

    /// Drops the mapped pages of the file from our memory; they stay in the page cache.
    pub(super) fn drop_pages(&self) {
        let bytes = self.program.bin.bytes();
        // SAFETY: the bytes are a private mapping of a file (`open`), whole pages from its start, and nobody
        // writes to it: dropped pages are read from the file again.
        unsafe { libc::madvise(bytes.as_ptr().cast_mut().cast(), bytes.len(), libc::MADV_DONTNEED) };
    }

    /// Reports whether its path still leads to the same file in our mount namespace. False if the file was
    /// deleted or replaced, or is in a container's own file system.
    pub fn is_reachable(&self) -> bool {
        let Some(ours) = self.file.as_ref().and_then(|file| file.metadata().ok()) else { return true };
        let there = std::fs::metadata(&self.program.path);
        there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino()))
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        Attached::close(self.take_probes());
    }
}

/// Locks `mutex`, even if a thread panicked while it held the lock.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

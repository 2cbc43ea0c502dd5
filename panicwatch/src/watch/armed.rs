//! A Go binary with probes in it. Which binaries those are is `armory`'s business.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{capture::Program, probe::attach::Attached, recorder::Source};

/// A Go binary with probes in it.
pub struct Armed {
    /// The binary and its plan.
    pub program: Arc<Program>,
    /// Its row.
    pub index: u32,
    /// When its probes were in, CLOCK_MONOTONIC nanoseconds: of a process that began before, the start is not covered.
    pub since_ns: u64,
    /// The probes of the panic path, and where it records that which tells that a process begins.
    pub(super) probes: Mutex<Vec<Attached>>,
    /// For probes that are put in later; without it there will be none.
    pub(super) file: Option<File>,
    /// The recorder's probes in it.
    pub(super) recorder: Mutex<BTreeMap<Source, Attached>>,
    /// The probes of `init-trace`, until they are taken off.
    pub(super) init: Mutex<Option<Attached>>,
}

impl Armed {
    /// Main module's path.
    pub fn module(&self) -> Option<String> {
        self.program.bin.build_info().module_path().map(str::to_owned)
    }

    /// All its probes.
    pub(super) fn take_probes(&self) -> Vec<Attached> {
        let mut probes = std::mem::take(&mut *lock(&self.probes));
        probes.extend(std::mem::take(&mut *lock(&self.recorder)).into_values());
        probes.extend(lock(&self.init).take());
        probes
    }

    /// Gives memory back: everything of it can be had again.
    pub(super) fn release(&self) {
        self.program.forget();
        self.drop_pages();
    }

    /// Gives the file's pages back, which stay in the system's cache.
    pub(super) fn drop_pages(&self) {
        let bytes = self.program.bin.bytes();
        // SAFETY: the bytes are a private mapping of a file (`open`), whole pages from the first on, which nobody writes: pages
        // that are dropped are read from the file again.
        unsafe { libc::madvise(bytes.as_ptr().cast_mut().cast(), bytes.len(), libc::MADV_DONTNEED) };
    }

    /// Does its path still lead to the very file, as we see paths? Not where it was deleted, replaced, or lies in a
    /// container's own file system.
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

/// Locks it, also where a thread has panicked with it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

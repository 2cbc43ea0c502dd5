//! Probe registry: which binaries have attached probes, by inode, and access to the table of watched
//! processes.

mod arming;

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use self::arming::Reading;
use super::armed::{Armed, lock};
use crate::{
    go::pattern::Pattern,
    gobin::{self, GoBinary, dwarf},
    host::procfs,
    plan::recorder_plan,
    probe::{attach, calibrate::Shared, error::ProbeError, object::Programs},
    recorder::Source,
};

/// Reason for which no probes were attached to a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArmError {
    /// Not a Go program, so there is nothing to do.
    #[error("{0} is not a Go program")]
    NotGo(String),
    /// A Go program that cannot be watched.
    #[error("{path}: {source}")]
    Binary {
        /// Path of the file.
        path: String,
        /// What is wrong with the binary.
        source: gobin::Error,
    },
    /// The runtime's panic functions were not found or cannot be probed.
    #[error("{path}: no probe can be placed: {reason}")]
    NoProbe {
        /// Path of the file.
        path: String,
        /// Why no probe can be placed.
        reason: String,
    },
    /// The kernel rejected a probe.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// Identity of a file and its content, judged by inode, size and modification time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct FileId {
    dev: u64,
    ino: u64,
    size: u64,
    mtime_ns: i128,
}

impl FileId {
    fn of(file: &File) -> std::io::Result<FileId> {
        let meta = file.metadata()?;
        let mtime_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(FileId { dev: meta.dev(), ino: meta.ino(), size: meta.size(), mtime_ns })
    }
}

/// What is known of a file that was seen before.
pub enum KnownFile {
    /// The file has probes.
    Armed(Arc<Armed>),
    /// The file has no probes, for this reason.
    Unarmed(Unarmed),
}

impl KnownFile {
    /// Reports whether attaching probes could succeed and change anything.
    pub fn may_be_armed(&self) -> bool {
        matches!(self, KnownFile::Unarmed(Unarmed::Go { .. }))
    }
}

/// Why a file has no probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unarmed {
    /// It is not a Go program.
    NotGo,
    /// It is a Go program, but no caller has requested probes for it yet.
    Go {
        /// Path of the main module.
        module: Option<String>,
    },
    /// It is a Go program that cannot be watched; holds the reason.
    Refused(String),
}

/// Most files without probes that are remembered.
const MAX_OTHERS: usize = 65_536;

struct State {
    programs: Programs,
    by_file: HashMap<FileId, u32>,
    /// Armed binaries by row; `None` if the row is free.
    armed: Vec<Option<Arc<Armed>>>,
    /// Files that were parsed and have no probes.
    others: HashMap<FileId, Unarmed>,
    /// Whether binaries armed from now on get the probes of `init-trace`, too.
    init: bool,
    /// The recorder's sources that have probes in every binary; `None` if nothing is recorded.
    recorded: Option<BTreeSet<Source>>,
    /// Patterns of the functions whose entries are recorded.
    functions: Vec<Pattern>,
}

/// All probes of this panicwatch; shared by the exec gate and the session.
pub struct Armory {
    state: Mutex<State>,
    /// Whether every process of an armed binary is reported, not only watched ones.
    watch_all: bool,
    /// Held while our own process is being watched.
    ourselves: Mutex<()>,
    /// Files that are being parsed now.
    reading: Reading,
    /// Called after a binary's probes were detached.
    on_retire: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Armory {
    /// Returns a registry without binaries.
    pub fn new(programs: Programs, watch_all: bool) -> Armory {
        let state = State {
            programs,
            by_file: HashMap::new(),
            armed: Vec::new(),
            others: HashMap::new(),
            init: false,
            recorded: None,
            functions: Vec::new(),
        };
        Armory {
            state: Mutex::new(state),
            watch_all,
            ourselves: Mutex::new(()),
            reading: Reading::default(),
            on_retire: OnceLock::new(),
        }
    }

    /// Sets the callback that runs after a binary's probes were detached; can be set once.
    pub(super) fn on_retire(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.on_retire.set(Box::new(call));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Runs `f` on the loaded programs.
    pub fn with_programs<R>(&self, f: impl FnOnce(&mut Programs) -> R) -> R {
        f(&mut self.state().programs)
    }

    /// Locks out other callers that want to watch our own process, as long as the guard lives.
    pub fn ourselves(&self) -> MutexGuard<'_, ()> {
        lock(&self.ourselves)
    }

    /// Adds the probes of `init-trace` to every binary that is armed from now on.
    pub fn trace_init(&self) {
        self.state().init = true;
    }

    /// Detaches the probes of `init-trace` from every binary, so that they slow nothing any more.
    pub fn stop_tracing_init(&self) {
        let mut state = self.state();
        state.init = false;
        for armed in state.armed.iter().flatten() {
            lock(&armed.init).take();
        }
    }

    /// Adds the recorder's probes of `sources` to every binary that is armed from now on; `functions` are the
    /// patterns that the user named.
    pub fn record(&self, sources: &[Source], functions: &[Pattern]) {
        let mut state = self.state();
        state.functions = functions.to_vec();
        state.recorded = Some(sources.iter().copied().filter(|s| s.is_in_program()).collect());
    }

    /// Attaches the probes of `source` to every armed binary, and to those armed from now on.
    ///
    /// # Errors
    /// Fails if the kernel rejects a probe.
    pub fn start_source(&self, source: Source) -> Result<(), ProbeError> {
        let mut state = self.state();
        let State { programs, armed, recorded, functions, .. } = &mut *state;
        if let Some(recorded) = recorded {
            recorded.insert(source);
        }
        for armed in armed.iter().flatten() {
            let mut sources = lock(&armed.recorder);
            if sources.contains_key(&source) {
                continue;
            }
            let (bin, path) = (&armed.program.bin, &armed.program.path);
            let Some(file) = &armed.file else { continue };
            let mut plan = [recorder_plan(bin, source, functions)];
            attach::admit(&mut plan, file, path)?;
            let attached = attach::attach(programs, &plan, file, path, armed.index)?;
            sources.extend(attached.into_iter().map(|attached| (source, attached)));
        }
        Ok(())
    }

    /// Detaches the probes of `source` from every binary.
    pub fn stop_source(&self, source: Source) {
        let mut off = Vec::new();
        let mut state = self.state();
        if let Some(recorded) = &mut state.recorded {
            recorded.remove(&source);
        }
        for armed in state.armed.iter().flatten() {
            off.extend(lock(&armed.recorder).remove(&source));
        }
        // Detaching waits for the kernel and must not happen with the lock held.
        drop(state);
        drop(off);
    }

    /// Returns the binary in row `index`.
    pub fn get(&self, index: u32) -> Option<Arc<Armed>> {
        self.state().get(index)
    }

    /// Returns what is known of `file` without parsing it.
    pub fn known(&self, file: &File) -> Option<KnownFile> {
        let id = FileId::of(file).ok()?;
        let state = self.state();
        if let Some(armed) = state.by_file.get(&id).and_then(|index| state.get(*index)) {
            return Some(KnownFile::Armed(armed));
        }
        state.others.get(&id).cloned().map(KnownFile::Unarmed)
    }

    /// Parses `file` without arming it. `name` is its path for messages.
    ///
    /// # Errors
    /// Fails if the file's metadata cannot be read.
    pub fn look_into(&self, file: &File, name: &Path) -> std::io::Result<Unarmed> {
        let id = FileId::of(file)?;
        let unarmed = match open(file) {
            Ok(bin) => {
                let module = bin.build_info().module_path().map(str::to_owned);
                Unarmed::Go { module }
            }
            Err(error) if error.is_not_go() => Unarmed::NotGo,
            Err(error) => Unarmed::Refused(format!("{}: {error}", name.display())),
        };
        self.state().remember(id, unarmed.clone());
        Ok(unarmed)
    }

    /// Returns all armed binaries.
    pub fn all(&self) -> Vec<Arc<Armed>> {
        self.state().armed.iter().flatten().cloned().collect()
    }

    /// Returns the number of armed binaries.
    pub fn len(&self) -> usize {
        self.state().armed.iter().flatten().count()
    }

    /// Drops the mapped file pages of all binaries if our resident memory exceeds `ceiling` bytes: fast, and
    /// cheap to restore.
    pub fn drop_pages_beyond(&self, ceiling: u64) {
        if procfs::own_resident().is_some_and(|resident| resident > ceiling) {
            self.all().iter().for_each(|armed| armed.drop_pages());
        }
    }

    /// Reduces our resident memory to at most `ceiling` bytes if possible: first drops the binaries' file
    /// pages, then returns free heap memory to the system, then frees decoded tables of binaries, the least
    /// recently used first. Freed data is restored on demand.
    pub fn keep_within(&self, ceiling: u64) {
        self.drop_pages_beyond(ceiling);
        let is_over = || procfs::own_resident().is_some_and(|resident| resident > ceiling);
        if !is_over() {
            return;
        }
        // SAFETY: malloc_trim returns free memory to the system; memory in use does not change.
        unsafe { libc::malloc_trim(0) };
        let mut all = self.all();
        all.sort_by_key(|armed| armed.program.last_asked());
        for armed in all {
            armed.release();
            if !is_over() {
                break;
            }
        }
    }

    /// Detaches the probes of the binary in row `index` and frees the row. No process may execute the binary
    /// any more, and all events of those that did must have been drained.
    pub fn retire(&self, index: u32) {
        let mut state = self.state();
        let retired = state.armed.get_mut(index as usize).and_then(Option::take);
        state.by_file.retain(|_, row| *row != index);
        // Detaching waits for the kernel and must not happen with the lock held.
        drop(state);
        drop(retired);
        if let Some(call) = self.on_retire.get() {
            call();
        }
    }

    /// Detaches all probes for good: in parallel here, not one after the other when the process exits.
    pub fn take_all_off(&self) {
        let mut state = self.state();
        let attached = state.armed.iter().flatten().flat_map(|armed| armed.take_probes()).collect();
        state.programs.take_off(attached);
    }

    /// Reports whether no binary is armed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl State {
    fn get(&self, index: u32) -> Option<Arc<Armed>> {
        self.armed.get(index as usize).cloned().flatten()
    }

    fn remember(&mut self, id: FileId, unarmed: Unarmed) {
        if self.others.len() >= MAX_OTHERS {
            self.others.clear();
        }
        self.others.insert(id, unarmed);
    }
}

impl Shared for Armory {
    fn with<R>(&self, f: impl FnOnce(&mut Programs) -> R) -> R {
        self.with_programs(f)
    }
}

/// Maps an opened file as a Go binary; falls back to its debug information if the layout table may not apply
/// to it.
pub fn open(file: &File) -> Result<GoBinary, gobin::Error> {
    use std::os::fd::AsRawFd;
    dwarf::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

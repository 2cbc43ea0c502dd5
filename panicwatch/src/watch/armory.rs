//! The probes: which binaries have them, by inode, and the table of watched processes.

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

/// Why a file was not armed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArmError {
    /// Not a Go program: nothing to do.
    #[error("{0} is not a Go program")]
    NotGo(String),
    /// A Go program that cannot be watched.
    #[error("{path}: {source}")]
    Binary {
        /// File.
        path: String,
        /// Why.
        source: gobin::Error,
    },
    /// The runtime's panic functions were not found.
    #[error("{path}: no probe can be placed: {reason}")]
    NoProbe {
        /// File.
        path: String,
        /// Why.
        reason: String,
    },
    /// The kernel refused.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

/// Same file, same content (as far as the inode tells).
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

/// What is known of a file.
pub enum KnownFile {
    /// It has probes.
    Armed(Arc<Armed>),
    /// It has none.
    Unarmed(Unarmed),
}

impl KnownFile {
    /// Would attaching probes change anything?
    pub fn may_be_armed(&self) -> bool {
        matches!(self, KnownFile::Unarmed(Unarmed::Go { .. }))
    }
}

/// A file without probes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unarmed {
    /// It is no Go program.
    NotGo,
    /// It is one, of that main module; nobody has asked for probes in it yet.
    Go {
        /// Path of the module.
        module: Option<String>,
    },
    /// It is a Go program that cannot be watched, for the reason told.
    Refused(String),
}

/// Files of which no more is remembered than that they are nothing to us.
const MAX_OTHERS: usize = 65_536;

struct State {
    programs: Programs,
    by_file: HashMap<FileId, u32>,
    /// By row; `None`: free.
    armed: Vec<Option<Arc<Armed>>>,
    /// Files that were read and have no probes.
    others: HashMap<FileId, Unarmed>,
    /// What is armed from now on gets the probes of `init-trace` too.
    init: bool,
    /// The recorder's sources whose probes are in every binary; `None` when nothing is recorded.
    recorded: Option<BTreeSet<Source>>,
    /// Functions whose entries are recorded.
    functions: Vec<Pattern>,
}

/// All probes of this panicwatch; shared between the gate and the session.
pub struct Armory {
    state: Mutex<State>,
    /// Report every process of an armed binary, not only watched ones.
    watch_all: bool,
    /// Held by whoever has our own process watched for a moment.
    ourselves: Mutex<()>,
    /// Files that are being read now.
    reading: Reading,
    /// Called when a binary has lost its probes.
    on_retire: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Armory {
    /// No binaries yet.
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

    /// Calls `call` whenever a binary has lost its probes; set once.
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

    /// For whoever has our own process watched for a moment: nobody else does as long as the guard lives.
    pub fn ourselves(&self) -> MutexGuard<'_, ()> {
        lock(&self.ourselves)
    }

    /// From now on with the probes of `init-trace`.
    pub fn trace_init(&self) {
        self.state().init = true;
    }

    /// Takes the probes of `init-trace` off every binary: nothing is slowed by them any more.
    pub fn stop_tracing_init(&self) {
        let mut state = self.state();
        state.init = false;
        for armed in state.armed.iter().flatten() {
            lock(&armed.init).take();
        }
    }

    /// What is armed from now on gets the probes of these sources of the recorder; `functions` the user named.
    pub fn record(&self, sources: &[Source], functions: &[Pattern]) {
        let mut state = self.state();
        state.functions = functions.to_vec();
        state.recorded = Some(sources.iter().copied().filter(|s| s.is_in_program()).collect());
    }

    /// Puts the probes of `source` into every armed binary, and those to come.
    ///
    /// # Errors
    /// When the kernel refuses.
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
            let plan = attach::admitted(recorder_plan(bin, source, functions), file, path)?;
            sources.insert(source, attach::attach(programs, &plan, file, path, armed.index)?);
        }
        Ok(())
    }

    /// Takes the probes of `source` off every binary.
    pub fn stop_source(&self, source: Source) {
        let mut off = Vec::new();
        let mut state = self.state();
        if let Some(recorded) = &mut state.recorded {
            recorded.remove(&source);
        }
        for armed in state.armed.iter().flatten() {
            off.extend(lock(&armed.recorder).remove(&source));
        }
        // Taking probes off waits for the kernel: not with the lock held.
        drop(state);
        drop(off);
    }

    /// The binary in row `index`.
    pub fn get(&self, index: u32) -> Option<Arc<Armed>> {
        self.state().get(index)
    }

    /// What is known of `file` without reading it.
    pub fn known(&self, file: &File) -> Option<KnownFile> {
        let id = FileId::of(file).ok()?;
        let state = self.state();
        if let Some(armed) = state.by_file.get(&id).and_then(|index| state.get(*index)) {
            return Some(KnownFile::Armed(armed));
        }
        state.others.get(&id).cloned().map(KnownFile::Unarmed)
    }

    /// Reads `file` without arming it. `name` is for people.
    ///
    /// # Errors
    /// When it cannot be read.
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

    /// All armed binaries.
    pub fn all(&self) -> Vec<Arc<Armed>> {
        self.state().armed.iter().flatten().cloned().collect()
    }

    /// Number of armed binaries.
    pub fn len(&self) -> usize {
        self.state().armed.iter().flatten().count()
    }

    /// Drops the pages of binaries' files that are mapped, if our memory is more than `ceiling` bytes: quick, and little is
    /// lost by it.
    pub fn drop_pages_beyond(&self, ceiling: u64) {
        if procfs::own_resident().is_some_and(|resident| resident > ceiling) {
            self.all().iter().for_each(|armed| armed.drop_pages());
        }
    }

    /// Our memory should be `ceiling` bytes at most: pages of binaries' files go, then what is free goes back to the system,
    /// then what was decoded of binaries goes, those not asked for longest first. It comes back when it is needed.
    pub fn keep_within(&self, ceiling: u64) {
        self.drop_pages_beyond(ceiling);
        let is_over = || procfs::own_resident().is_some_and(|resident| resident > ceiling);
        if !is_over() {
            return;
        }
        // SAFETY: the C library gives free memory back to the system; nothing that is in use changes.
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

    /// Takes the probes off the binary in row `index`; the row will be another's. No process may run it any more, and every
    /// event of those that did must have been taken.
    pub fn retire(&self, index: u32) {
        let mut state = self.state();
        let retired = state.armed.get_mut(index as usize).and_then(Option::take);
        state.by_file.retain(|_, row| *row != index);
        // Taking probes off waits for the kernel: not with the lock held.
        drop(state);
        drop(retired);
        if let Some(call) = self.on_retire.get() {
            call();
        }
    }

    /// Takes all probes off, for good: what ends with us ends at once, and not one after the other when the process exits.
    pub fn take_all_off(&self) {
        let mut state = self.state();
        let attached = state.armed.iter().flatten().flat_map(|armed| armed.take_probes()).collect();
        state.programs.take_off(attached);
    }

    /// No binary is armed.
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

/// Maps an opened file as a Go binary; asks its debug information where the layout table may not hold for it.
pub fn open(file: &File) -> Result<GoBinary, gobin::Error> {
    use std::os::fd::AsRawFd;
    dwarf::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

//! On-disk record of the breakpoints that an instance of panicwatch has attached, in case it is killed before
//! it detaches them.
//!
//! Each helper has one file, written before it attaches and removed after it has detached everything. The
//! helper holds a lock (flock) on it, which the kernel releases when the helper ends for whatever reason: a
//! record without a lock is stale. Process IDs would not do, because instances in several PID namespaces
//! share the directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Environment variable with the directory of the records; overrides the defaults below.
const FOLDER_VARIABLE: &str = "PANICWATCH_RECORDS";
/// Default directory for root; the service manager creates its parent.
const FOLDER: &str = "/run/panicwatch/probes";
/// Most offsets in a record; the most recently attached ones are kept. Crossed by `a_record_is_bounded`.
const MAX_OFFSETS: usize = 1 << 20;
/// Most bytes read of a record.
const MAX_BYTES: u64 = 32 << 20;

/// A file with probe sites, as it was when the probes were attached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct RecordedFile {
    /// Path at that time; another mount namespace may have the file elsewhere.
    pub(super) path: PathBuf,
    pub(super) dev: u64,
    pub(super) ino: u64,
    /// Size in bytes.
    pub(super) size: u64,
    /// Modification time, nanoseconds since 1970.
    pub(super) mtime_ns: i64,
}

impl RecordedFile {
    /// Describes an opened file; `path` is recorded as its path.
    pub(super) fn of(file: &File, path: &Path) -> io::Result<RecordedFile> {
        let meta = file.metadata()?;
        let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        Ok(RecordedFile {
            path: path.to_owned(),
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime_ns,
        })
    }

    /// Reports whether both are the same inode, whatever its content.
    pub(super) fn is_same_file(&self, other: &RecordedFile) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }

    /// Reports whether both are the same inode with the same content, judged by size and modification time.
    pub(super) fn is_unchanged(&self, now: &RecordedFile) -> bool {
        self.is_same_file(now) && (self.size, self.mtime_ns) == (now.size, now.mtime_ns)
    }
}

/// Identity of a process that stays unique when its PID is reused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Owner {
    pub(super) pid: u32,
    /// Start time in clock ticks since boot, as in /proc/PID/stat.
    pub(super) started: Option<u64>,
    /// Command line of the process.
    pub(super) command: Vec<String>,
}

/// Probe sites in one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sites {
    #[serde(flatten)]
    pub(super) file: RecordedFile,
    /// File offsets, ascending.
    pub(super) offsets: Vec<u64>,
}

/// Content of a record's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// ID of the boot: breakpoints do not survive a reboot.
    pub(super) boot_id: String,
    /// The main process that the helper belonged to.
    pub(super) owner: Owner,
    /// The helper process that held the probes.
    pub(super) helper: Owner,
    pub(super) files: Vec<Sites>,
}

/// Returns the directory of the records.
pub(super) fn folder() -> PathBuf {
    if let Some(folder) = env::var_os(FOLDER_VARIABLE).filter(|folder| !folder.is_empty()) {
        return folder.into();
    }
    // SAFETY: geteuid has no preconditions.
    let is_root = unsafe { libc::geteuid() } == 0;
    match env::var_os("XDG_RUNTIME_DIR").filter(|_| !is_root) {
        Some(runtime) => Path::new(&runtime).join("panicwatch/probes"),
        None => FOLDER.into(),
    }
}

/// Creates the directory, accessible to its owner only.
///
/// # Errors
/// Fails if the directory cannot be created.
pub(super) fn create_folder() -> io::Result<PathBuf> {
    let folder = folder();
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    Ok(folder)
}

/// Returns the ID of this boot.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The helper's own record.
pub(super) struct Record {
    path: PathBuf,
    /// Locked file at `path`; `None` before the first write.
    file: Option<File>,
    content: Content,
    /// File and offsets of each attachment, by attachment number.
    attachments: BTreeMap<u64, (RecordedFile, Vec<u64>)>,
}

impl Record {
    /// Returns an empty record that is not written yet.
    pub(super) fn new(folder: &Path, owner: Owner, helper: Owner) -> Record {
        let started = helper.started.unwrap_or_default();
        let path = folder.join(format!("{}-{started}.json", helper.pid));
        let content = Content { boot_id: boot_id(), owner, helper, files: Vec::new() };
        Record { path, file: None, content, attachments: BTreeMap::new() }
    }

    /// Records that attachments to `file` are about to be made, each with its number and its offsets. The
    /// file is written once.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(super) fn add(
        &mut self,
        file: &RecordedFile,
        attachments: impl IntoIterator<Item = (u64, Vec<u64>)>,
    ) -> io::Result<()> {
        let recorded = |(number, offsets)| (number, (file.clone(), offsets));
        self.attachments.extend(attachments.into_iter().map(recorded));
        self.write()
    }

    /// Records that these attachments have been detached.
    ///
    /// # Errors
    /// Fails if the file cannot be written: it then still lists detached sites, which does no harm.
    pub(super) fn remove(&mut self, numbers: &[u64]) -> io::Result<()> {
        let before = self.attachments.len();
        self.attachments.retain(|number, _| !numbers.contains(number));
        if self.attachments.len() == before { Ok(()) } else { self.write() }
    }

    /// Returns the sites of all attachments by file, at most [`MAX_OFFSETS`].
    fn files(&self) -> Vec<Sites> {
        let mut room = MAX_OFFSETS;
        let mut by_file: BTreeMap<&RecordedFile, BTreeSet<u64>> = BTreeMap::new();
        for (file, offsets) in self.attachments.values().rev() {
            by_file.entry(file).or_default().extend(offsets.iter().take(room));
            room = room.saturating_sub(offsets.len());
        }
        let sites = |(file, offsets): (&RecordedFile, BTreeSet<u64>)| Sites {
            file: file.clone(),
            offsets: offsets.into_iter().collect(),
        };
        by_file.into_iter().map(sites).collect()
    }

    /// Replaces the file atomically: a reader sees either the old file or the new one, and can try to lock
    /// either.
    fn write(&mut self) -> io::Result<()> {
        self.content.files = self.files();
        if self.content.files.is_empty() {
            self.file = None;
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        lock(&file)?;
        file.write_all(&serde_json::to_vec(&self.content)?)?;
        fs::rename(&new, &self.path)?;
        self.file = Some(file);
        Ok(())
    }
}

/// A record whose helper ended without removing it. Locked against other instances that clean up.
#[derive(Debug)]
pub(super) struct Stale {
    path: PathBuf,
    _lock: File,
    pub(super) content: Content,
}

impl Stale {
    /// Removes the file; called when no process has a breakpoint of it any more.
    pub(super) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Returns the stale records in `folder`. Damaged records and those of another boot are removed.
pub(super) fn stale(folder: &Path) -> Vec<Stale> {
    let mut found = Vec::new();
    for path in records(folder) {
        let Some(file) = File::open(&path).ok().filter(|file| lock(file).is_ok()) else { continue };
        if !names(&path, &file) {
            continue;
        }
        match read(&file).filter(|content| content.boot_id == boot_id()) {
            Some(content) => found.push(Stale { path, _lock: file, content }),
            None => drop(fs::remove_file(&path)),
        }
    }
    found
}

/// Returns the sites of all running instances in the file `wanted`.
pub(super) fn living(folder: &Path, wanted: &RecordedFile) -> BTreeSet<u64> {
    let contents = records(folder).into_iter().filter_map(|path| read(&File::open(path).ok()?));
    let files = contents.flat_map(|content| content.files);
    files.filter(|sites| sites.file.is_same_file(wanted)).flat_map(|sites| sites.offsets).collect()
}

fn records(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

fn read(file: &File) -> Option<Content> {
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Reports whether `file` is still the file at `path`.
fn names(path: &Path, file: &File) -> bool {
    let id = |meta: io::Result<fs::Metadata>| meta.map(|meta| (meta.dev(), meta.ino())).ok();
    id(fs::metadata(path)).is_some_and(|there| Some(there) == id(file.metadata()))
}

fn lock(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pid: u32) -> Owner {
        Owner { pid, started: Some(1), command: vec!["panicwatch".to_owned()] }
    }

    fn file(ino: u64) -> RecordedFile {
        RecordedFile { path: format!("/p/{ino}").into(), dev: 1, ino, size: 3, mtime_ns: 4 }
    }

    #[test]
    fn a_record_is_there_while_something_is_attached_and_stale_without_its_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = Record::new(folder.path(), owner(7), owner(8));
        assert!(records(folder.path()).is_empty(), "nothing is attached");
        record.add(&file(1), [(1, vec![30, 10]), (2, vec![10, 20])]).expect("it is written");
        record.add(&file(2), [(3, vec![5])]).expect("it is written");
        assert!(stale(folder.path()).is_empty(), "its lock is held");
        assert_eq!(living(folder.path(), &file(1)), BTreeSet::from([10, 20, 30]));
        record.remove(&[2]).expect("it is written");
        assert_eq!(living(folder.path(), &file(1)), BTreeSet::from([10, 30]));
        drop(record);
        let [stale] = &mut *stale(folder.path()) else { panic!("one record") };
        assert_eq!((stale.content.owner.pid, stale.content.helper.pid), (7, 8));
        let found: Vec<_> = stale.content.files.iter().map(|f| (f.file.ino, f.offsets.clone())).collect();
        assert_eq!(found, [(1, vec![10, 30]), (2, vec![5])]);
        assert!(super::stale(folder.path()).is_empty(), "who found it cleans up alone");
    }

    #[test]
    fn nothing_stays_after_an_orderly_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = Record::new(folder.path(), owner(7), owner(8));
        record.add(&file(1), [(1, vec![1])]).expect("it is written");
        record.remove(&[1]).expect("it is removed");
        record.remove(&[1]).expect("twice does no harm");
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn damaged_records_and_those_of_another_boot_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.json"), b"{").expect("a file");
        let content =
            Content { boot_id: "another".into(), owner: owner(1), helper: owner(2), files: Vec::new() };
        let bytes = serde_json::to_vec(&content).expect("JSON");
        fs::write(folder.path().join("b.json"), bytes).expect("a file");
        assert!(stale(folder.path()).is_empty());
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn a_record_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut record = Record::new(folder.path(), owner(7), owner(8));
        record.add(&file(1), [(1, (0..10).collect())]).expect("it is written");
        record.add(&file(2), [(2, (0..MAX_OFFSETS as u64 - 4).collect())]).expect("it is written");
        assert_eq!(living(folder.path(), &file(1)), (0..4).collect(), "room is left for four");
    }
}

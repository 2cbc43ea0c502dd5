//! The database file: opening it, its tables, and recovery when the disk fails.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use flate2::{Compression, read::ZlibDecoder, write::ZlibEncoder};
use jiff::Timestamp;
use redb::{Database, ReadTransaction, ReadableDatabase as _, TableDefinition, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use super::{Error, held::Held};
use crate::incident::Incident;

/// Version of the table contents. A file of a newer version is left as it is, and the store is not opened.
const FORMAT: u64 = 1;
/// Size of redb's cache in bytes; the page cache serves the rest.
const CACHE: usize = 4 << 20;
/// Attempts to open a file that is locked; [`PAUSE`] separates them.
const TRIES: usize = 25;
const PAUSE: Duration = Duration::from_millis(20);

/// Maps a text to bytes.
pub(super) type Blobs = TableDefinition<'static, &'static str, &'static [u8]>;
/// Set of pairs of texts.
pub(super) type Pairs = TableDefinition<'static, (&'static str, &'static str), ()>;
/// Maps a name to a number.
pub(super) type Numbers = TableDefinition<'static, &'static str, u64>;

/// ID to the incident without its timeline: compressed JSON.
pub(super) const DOCUMENTS: Blobs = TableDefinition::new("documents");
/// ID to the timeline of the incident, separate so that a list need not read it: compressed JSON.
pub(super) const TIMELINES: Blobs = TableDefinition::new("timelines");
/// Fingerprint and ID of each incident.
pub(super) const BY_GROUP: Pairs = TableDefinition::new("by_group");
/// Fingerprint to group: JSON.
pub(super) const GROUPS: Blobs = TableDefinition::new("groups");
/// Name to a counter that outlives the daemon.
pub(super) const COUNTERS: Numbers = TableDefinition::new("counters");
/// Consumer and ID of each incident that the consumer has not sent yet.
pub(super) const OUTBOX: Pairs = TableDefinition::new("outbox");
/// Binary and function to the fingerprint of the group that was last seen there.
pub(super) const SITES: TableDefinition<'static, (&str, &str), &str> = TableDefinition::new("sites");
/// Start of a gap to the gap: JSON.
pub(super) const GAPS: Blobs = TableDefinition::new("gaps");
/// The format's version, and sums under the names below.
pub(super) const META: Numbers = TableDefinition::new("meta");
/// Key in `meta`: compressed bytes of all documents and timelines.
pub(super) const BYTES: &str = "bytes";
/// Key in `meta`: number of documents.
pub(super) const COUNT: &str = "count";

/// The incident store.
pub struct Store {
    dir: PathBuf,
    /// `None` after the disk has failed: the next use opens the file again.
    database: Mutex<Option<Arc<Database>>>,
    pub(super) consumers: Vec<String>,
    held: Mutex<Held>,
    /// Whether the last write failed.
    is_failing: AtomicBool,
}

/// Result of opening the store.
pub struct Opened {
    /// The open store.
    pub store: Store,
    /// New path of a damaged file, and what was wrong with it.
    pub damaged: Option<(PathBuf, String)>,
    /// Consumers that are no longer configured, each with the number of incidents it had not sent.
    pub dropped: Vec<(String, u64)>,
    /// Last time at which the previous daemon recorded that it was alive.
    pub last_beat: Option<Timestamp>,
}

impl Store {
    /// Opens the store in the directory `dir`, which is created if needed. From now on every kept incident is
    /// queued for each of `consumers`.
    ///
    /// # Errors
    /// When another daemon has the store open, a newer panicwatch has written it, or the disk cannot be used.
    /// A damaged file is not an error: it is moved aside.
    pub fn open(dir: &Path, consumers: &[String]) -> Result<Opened, Error> {
        let disk = |error: io::Error| failed(dir, "cannot be created", error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(disk)?;
        let last_beat = last_beat(dir);
        let (database, damaged) = open_or_begin(dir)?;
        let store = Store {
            dir: dir.to_owned(),
            database: Mutex::new(Some(Arc::new(database))),
            consumers: consumers.to_vec(),
            held: Mutex::default(),
            is_failing: AtomicBool::new(false),
        };
        let dropped = store.drop_strangers()?;
        Ok(Opened { store, damaged, dropped, last_beat })
    }

    /// Locks the incidents and deliveries that the disk has not accepted yet.
    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports whether the last write failed, so that another would most likely fail too.
    pub(super) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Returns the open database, and opens it first if needed.
    fn database(&self) -> Result<Arc<Database>, Error> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*held {
            return Ok(database.clone());
        }
        let (database, damaged) = open_or_begin(&self.dir)?;
        if let Some((aside, reason)) = damaged {
            log::error!(
                "the incident store was damaged ({reason}); it is kept as {} and a new one is created",
                aside.display()
            );
        }
        let database = Arc::new(database);
        *held = Some(database.clone());
        Ok(database)
    }

    /// Runs `change` in a transaction: all of it is stored durably, or nothing.
    pub(super) fn write<R>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, Error> {
        let result = self.try_to_write(change);
        self.is_failing.store(result.is_err(), Ordering::Relaxed);
        result
    }

    fn try_to_write<R>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, Error> {
        let database = self.database()?;
        let result = guarded(|| {
            let transaction = database.begin_write()?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        });
        result.map_err(|error| self.give_up(database, "cannot be written to", &error))
    }

    /// Runs `look` on a consistent snapshot of the store.
    pub(super) fn read<R>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, Error> {
        let database = self.database()?;
        let result = guarded(|| look(&database.begin_read()?));
        result.map_err(|error| self.give_up(database, "cannot be read", &error))
    }

    /// Closes the database after a failure: redb refuses every operation until the file is reopened, which
    /// the next call does with a check for damage.
    fn give_up(&self, database: Arc<Database>, what: &'static str, error: &redb::Error) -> Error {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have reopened it already.
        if held.as_ref().is_some_and(|held| Arc::ptr_eq(held, &database)) {
            held.take();
        }
        // Closing a corrupt file may panic as well.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(database)));
        failed(&self.dir, what, error)
    }

    /// Records that the daemon is alive. The write is not synced: it serves to detect a killed daemon, whose
    /// writes survive in the page cache.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn beat(&self) -> io::Result<()> {
        let now = Timestamp::now().as_millisecond().to_string();
        // Overwritten in place: on a full disk a truncated file may find no space again, and the time of the
        // last beat would be lost.
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.dir.join(ALIVE))?;
        file.write_all(now.as_bytes())?;
        file.set_len(now.len() as u64)
    }

    /// Returns the size of the database file in bytes.
    pub fn file_bytes(&self) -> u64 {
        fs::metadata(self.dir.join(FILE)).map_or(0, |meta| meta.len())
    }
}

const FILE: &str = "incidents.redb";
const ALIVE: &str = "alive";

fn last_beat(dir: &Path) -> Option<Timestamp> {
    let text = fs::read_to_string(dir.join(ALIVE)).ok()?;
    Timestamp::from_millisecond(text.trim().parse().ok()?).ok()
}

/// Why the file was not opened.
enum Refusal {
    Damaged(String),
    Taken,
    Other(String),
}

/// Opens the file, or creates a new one. A damaged file is moved aside; then its new path and the damage are
/// returned too.
fn open_or_begin(dir: &Path) -> Result<(Database, Option<(PathBuf, String)>), Error> {
    let mut damaged = None;
    for _ in 0..TRIES {
        match open(dir) {
            Ok(database) => return Ok((database, damaged)),
            Err(Refusal::Other(reason)) => return Err(failed(dir, "cannot be opened", reason)),
            // The lock may be held by a reader in this process, from before a failure.
            Err(Refusal::Taken) => thread::sleep(PAUSE),
            Err(Refusal::Damaged(reason)) if damaged.is_some() => {
                return Err(failed(dir, "cannot be created again", reason));
            }
            Err(Refusal::Damaged(reason)) => {
                let aside = aside(dir);
                fs::rename(dir.join(FILE), &aside).map_err(|error| failed(dir, "is damaged", error))?;
                damaged = Some((aside, reason));
            }
        }
    }
    let reason = "another panicwatch daemon uses it; stop that one, or set [store] path";
    Err(failed(dir, "cannot be opened", reason))
}

/// Returns an unused path for a damaged file.
fn aside(dir: &Path) -> PathBuf {
    let name = |more: String| dir.join(format!("{FILE}.damaged-{}{more}", Timestamp::now().as_second()));
    let names = std::iter::once(String::new()).chain((2..).map(|n| format!("-{n}")));
    names.map(name).find(|path| !path.exists()).unwrap_or_else(|| name(String::new()))
}

fn open(dir: &Path) -> Result<Database, Refusal> {
    let path = dir.join(FILE);
    // Not readable by group and others: messages of crashing programs may be confidential.
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    made.and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o600)))
        .map_err(|error| Refusal::Other(error.to_string()))?;
    let opened = guarded(|| {
        // Verifies all checksums, so that damage is found now rather than in a later operation.
        let database =
            Database::builder().set_cache_size(CACHE).set_check_integrity_on_open(true).create(&path)?;
        let format = prepare(&database)?;
        Ok((database, format))
    });
    match opened {
        Ok((database, FORMAT)) => Ok(database),
        Ok((_, newer @ FORMAT..)) => Err(Refusal::Other(format!(
            "a newer panicwatch has written it in format {newer}, and this one reads format {FORMAT}; run that \
             version, or set another [store] path"
        ))),
        Ok((_, other)) => Err(Refusal::Damaged(format!("it has the unknown format {other}"))),
        Err(redb::Error::DatabaseAlreadyOpen) => Err(Refusal::Taken),
        Err(redb::Error::Io(error))
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            Err(Refusal::Other(error.to_string()))
        }
        Err(redb::Error::PreviousIo) => Err(Refusal::Other(redb::Error::PreviousIo.to_string())),
        Err(error) => Err(Refusal::Damaged(error.to_string())),
    }
}

/// Runs `attempt` and converts a panic into an error: redb may panic on corrupt contents.
fn guarded<R>(attempt: impl FnOnce() -> Result<R, redb::Error>) -> Result<R, redb::Error> {
    let caught = catch_unwind(AssertUnwindSafe(attempt));
    caught.unwrap_or_else(|_| Err(redb::Error::Corrupted("its contents are invalid".to_owned())))
}

/// Creates the tables if there are none, and returns the version of the format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    // Does not write unless it must: a store on a full disk can still be read.
    match database.begin_read()?.open_table(META) {
        Ok(meta) => {
            if let Some(format) = meta.get("format")? {
                return Ok(format.value());
            }
        }
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let transaction = database.begin_write()?;
    for table in [DOCUMENTS, TIMELINES, GROUPS, GAPS] {
        transaction.open_table(table)?;
    }
    for table in [BY_GROUP, OUTBOX] {
        transaction.open_table(table)?;
    }
    transaction.open_table(COUNTERS)?;
    transaction.open_table(SITES)?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.commit()?;
    Ok(FORMAT)
}

pub(super) fn failed(dir: &Path, what: &'static str, error: impl ToString) -> Error {
    Error::Disk { path: dir.display().to_string(), what, reason: error.to_string() }
}

/// Encodes `value` as compressed JSON.
pub(super) fn pack(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    // zlib rather than raw deflate: its checksum keeps altered text from passing for the program's.
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut encoder, value).map_err(|error| redb::Error::Io(error.into()))?;
    encoder.finish().map_err(redb::Error::Io)
}

/// Decodes a value from compressed JSON.
pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    let mut text = Vec::new();
    ZlibDecoder::new(bytes).read_to_end(&mut text).map_err(redb::Error::Io)?;
    serde_json::from_slice(&text).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// Encodes `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(error.into()))
}

/// Decodes a value from JSON.
pub(super) fn of_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// An incident as compressed JSON, to save memory.
pub struct Packed(Vec<u8>);

impl Packed {
    /// Compresses an incident.
    ///
    /// # Errors
    /// When the incident cannot be written as JSON.
    pub fn of(incident: &Incident) -> Result<Packed, Error> {
        pack(incident).map(Packed).map_err(not_packed)
    }

    /// Decompresses the incident.
    ///
    /// # Errors
    /// When the bytes are not the output of [`Packed::of`].
    pub fn unpack(&self) -> Result<Incident, Error> {
        unpack(&self.0).map_err(not_packed)
    }
}

fn not_packed(error: redb::Error) -> Error {
    failed(Path::new("(in memory)"), "cannot keep an incident", error)
}

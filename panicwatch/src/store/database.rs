//! The file: opening it, its tables, and what happens when the disk fails.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use jiff::Timestamp;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    WriteTransaction,
};
use serde::{Serialize, de::DeserializeOwned};

use super::Error;

/// Version of what is in the tables; another is not read.
const FORMAT: u64 = 1;
/// What redb may keep of the file in memory, bytes: the system's own cache does the rest.
const CACHE: usize = 4 << 20;

/// A text and what is known under it.
pub(super) type Blobs = TableDefinition<'static, &'static str, &'static [u8]>;
/// Pairs of texts.
pub(super) type Pairs = TableDefinition<'static, (&'static str, &'static str), ()>;
/// Numbers by name.
pub(super) type Numbers = TableDefinition<'static, &'static str, u64>;

/// Incidents without timelines, by ID: compressed JSON.
pub(super) const DOCUMENTS: Blobs = TableDefinition::new("documents");
/// Their timelines, by ID, so that a list need not read them.
pub(super) const TIMELINES: Blobs = TableDefinition::new("timelines");
/// Fingerprint and ID of each incident.
pub(super) const BY_GROUP: Pairs = TableDefinition::new("by_group");
/// Groups by fingerprint: JSON.
pub(super) const GROUPS: Blobs = TableDefinition::new("groups");
/// Numbers that outlive the daemon.
pub(super) const COUNTERS: Numbers = TableDefinition::new("counters");
/// Consumer and ID of each incident that it has not sent yet.
pub(super) const OUTBOX: Pairs = TableDefinition::new("outbox");
/// Gaps by their beginning: JSON.
pub(super) const GAPS: Blobs = TableDefinition::new("gaps");
/// The format, and sums: see the names below.
pub(super) const META: Numbers = TableDefinition::new("meta");
/// Compressed bytes of all documents and timelines.
pub(super) const BYTES: &str = "bytes";
/// Number of documents.
pub(super) const COUNT: &str = "count";

/// The incident store.
pub struct Store {
    dir: PathBuf,
    /// `None` after the disk has failed: it is opened anew when it is needed.
    database: Mutex<Option<Arc<Database>>>,
    pub(super) consumers: Vec<String>,
}

/// What opening found.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where a damaged file was put, and what was wrong with it.
    pub damaged: Option<(PathBuf, String)>,
    /// Consumers that had incidents to send and are no longer configured, with the number.
    pub dropped: Vec<(String, u64)>,
    /// When the daemon before this one was last alive.
    pub last_beat: Option<Timestamp>,
}

impl Store {
    /// Opens the store in directory `dir`, which is made if need be. Each of `consumers` gets every incident from now on to
    /// send.
    ///
    /// # Errors
    /// When another daemon has it, or the disk cannot be used. A damaged file is none: it is put aside.
    pub fn open(dir: &Path, consumers: &[String]) -> Result<Opened, Error> {
        let disk = |error: io::Error| failed(dir, "cannot be made", error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(disk)?;
        let last_beat = last_beat(dir);
        let mut damaged = None;
        let database = match open(dir) {
            Ok(database) => database,
            Err(Refusal::Damaged(reason)) => {
                let aside = dir.join(format!("{FILE}.damaged-{}", Timestamp::now().as_second()));
                fs::rename(dir.join(FILE), &aside).map_err(|error| failed(dir, "is damaged", error))?;
                damaged = Some((aside, reason));
                open(dir).map_err(|refusal| refusal.error(dir))?
            }
            Err(refusal) => return Err(refusal.error(dir)),
        };
        let store = Store {
            dir: dir.to_owned(),
            database: Mutex::new(Some(Arc::new(database))),
            consumers: consumers.to_vec(),
        };
        let dropped = store.drop_strangers()?;
        Ok(Opened { store, damaged, dropped, last_beat })
    }

    /// The open file.
    fn database(&self) -> Result<Arc<Database>, Error> {
        let mut held = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*held {
            return Ok(database.clone());
        }
        let database = Arc::new(open(&self.dir).map_err(|refusal| refusal.error(&self.dir))?);
        *held = Some(database.clone());
        Ok(database)
    }

    /// Changes the store: all that `change` does, durably, or nothing.
    pub(super) fn write<R>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, Error> {
        let database = self.database()?;
        let attempt = || -> Result<R, redb::Error> {
            let transaction = database.begin_write()?;
            let result = change(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        // After a failure redb refuses everything until the file was opened again.
        attempt().map_err(|error| {
            self.database.lock().unwrap_or_else(PoisonError::into_inner).take();
            failed(&self.dir, "cannot be written to", error)
        })
    }

    /// Looks into the store, as it was at one moment.
    pub(super) fn read<R>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<R, redb::Error>,
    ) -> Result<R, Error> {
        let database = self.database()?;
        let attempt = || -> Result<R, redb::Error> { look(&database.begin_read()?) };
        attempt().map_err(|error| failed(&self.dir, "cannot be read", error))
    }

    /// Says that the daemon is alive. Not forced to the disk: what it is for, a killed daemon, leaves the system's cache.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn beat(&self) -> io::Result<()> {
        let now = Timestamp::now().as_millisecond().to_string();
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.dir.join(ALIVE))?;
        file.write_all(now.as_bytes())
    }

    /// Bytes of the file.
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
    Other(String),
}

impl Refusal {
    fn error(self, dir: &Path) -> Error {
        let (Refusal::Damaged(reason) | Refusal::Other(reason)) = self;
        failed(dir, "cannot be opened", reason)
    }
}

fn open(dir: &Path) -> Result<Database, Refusal> {
    let path = dir.join(FILE);
    // A file that is nothing like a database may make the library panic.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        Database::builder().set_cache_size(CACHE).create(&path).map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => Refusal::Other(
                "another panicwatch daemon has it; stop that one, or set [store] path".to_owned(),
            ),
            DatabaseError::Storage(redb::StorageError::Io(error))
                if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
            {
                Refusal::Other(error.to_string())
            }
            error => Refusal::Damaged(error.to_string()),
        })
    }));
    let database = opened.unwrap_or_else(|_| Err(Refusal::Damaged("it is no database".to_owned())))?;
    // Group and others have no business with what programs say when they crash.
    let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
    match catch_unwind(AssertUnwindSafe(|| prepare(&database))) {
        Ok(Ok(FORMAT)) => Ok(database),
        Ok(Ok(other)) => Err(Refusal::Damaged(format!("its format {other} is not known here"))),
        Ok(Err(error)) => Err(match error {
            redb::Error::Io(error) => Refusal::Other(error.to_string()),
            error => Refusal::Damaged(error.to_string()),
        }),
        Err(_) => Err(Refusal::Damaged("its contents make no sense".to_owned())),
    }
}

/// Makes the tables; gives the format.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    let transaction = database.begin_write()?;
    for table in [DOCUMENTS, TIMELINES, GROUPS, GAPS] {
        transaction.open_table(table)?;
    }
    for table in [BY_GROUP, OUTBOX] {
        transaction.open_table(table)?;
    }
    transaction.open_table(COUNTERS)?;
    let format = {
        let mut meta = transaction.open_table(META)?;
        let format = meta.get("format")?.map(|value| value.value());
        if format.is_none() {
            meta.insert("format", FORMAT)?;
        }
        format.unwrap_or(FORMAT)
    };
    transaction.commit()?;
    Ok(format)
}

pub(super) fn failed(dir: &Path, what: &'static str, error: impl ToString) -> Error {
    Error::Disk { path: dir.display().to_string(), what, reason: error.to_string() }
}

/// As compressed JSON.
pub(super) fn pack(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut encoder, value).map_err(|error| redb::Error::Io(error.into()))?;
    encoder.finish().map_err(redb::Error::Io)
}

/// The value of compressed JSON.
pub(super) fn unpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    let mut text = Vec::new();
    DeflateDecoder::new(bytes).read_to_end(&mut text).map_err(redb::Error::Io)?;
    serde_json::from_slice(&text).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

/// As JSON.
pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|error| redb::Error::Io(error.into()))
}

/// The value of JSON.
pub(super) fn of_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, redb::Error> {
    serde_json::from_slice(bytes).map_err(|error| redb::Error::Corrupted(error.to_string()))
}

//! The incident store: what is kept, how it is asked for, and what waits to be sent.
//!
//! Must not know who sends what where, nor how incidents are made. docs/store.md says what is promised.

mod append;
mod database;
mod group;
mod held;
mod outbox;
mod rate;
mod read;
mod retention;

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

pub use database::{Opened, Packed, Store};
pub use outbox::Outbox;
pub(crate) use outbox::risen;
pub use rate::GroupRate;

use crate::incident::{Incident, Kind, Outcome};

/// Which incidents; what is `None` does not matter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// At this time or later, RFC 3339.
    pub from: Option<String>,
    /// Before this time, RFC 3339.
    pub to: Option<String>,
    /// Of this process.
    pub pid: Option<u32>,
    /// Of an executable whose path contains this.
    pub exe: Option<String>,
    /// Of this group.
    pub fingerprint: Option<String>,
    /// Of this kind.
    pub kind: Option<Kind>,
    /// That ended so.
    pub outcome: Option<Outcome>,
    /// Whose message, value type or a function on the stack contains this, letter case aside.
    pub text: Option<String>,
    /// Older than the incident of this ID (what [`Page::next`] said).
    pub before: Option<String>,
    /// At most that many; `None`: 100.
    pub limit: Option<usize>,
}

/// Incidents, newest first, without their timelines.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Page {
    /// They.
    pub incidents: Vec<Incident>,
    /// For [`Query::before`]: there may be more.
    pub next: Option<String>,
}

/// All incidents of one fingerprint that were ever seen here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Group {
    /// The fingerprint.
    pub fingerprint: String,
    /// What the newest is called ([`crate::title`]).
    pub title: String,
    /// Its kind.
    pub kind: Option<Kind>,
    /// Type of the value, of a panic.
    pub class: Option<String>,
    /// Where it was raised: function, and file:line of the newest.
    pub site: Option<String>,
    /// Base names of executables it was seen in, a few.
    pub binaries: Vec<String>,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339.
    pub last_seen: String,
    /// Incidents, those not kept included.
    pub count: u64,
    /// Of these, how many were counted only.
    pub counted: u64,
    /// By outcome, as in the document.
    pub outcomes: BTreeMap<String, u64>,
    /// ID of the newest that was kept.
    pub newest: Option<String>,
    /// Incidents an hour, oldest first, of the last hours: `(hours since 1970, number)`.
    pub hours: Vec<(u64, u64)>,
}

/// How an incident stands in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Incidents of the group so far.
    pub count: u64,
    /// It opened the group.
    pub is_first: bool,
}

/// A time in which nothing was watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// RFC 3339.
    pub from: String,
    /// RFC 3339.
    pub to: String,
    /// As a sentence.
    pub reason: String,
}

/// Why the store could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk, or its contents.
    #[error("the incident store {path} {what}: {reason}")]
    Disk {
        /// File.
        path: String,
        /// "cannot be written to" and the like.
        what: &'static str,
        /// As the system says it.
        reason: String,
    },
    /// What was asked makes no sense.
    #[error("{0}")]
    Query(String),
}

/// What readers of the store need.
pub trait Archive: Send + Sync {
    /// The whole document; `None` when there is none of that ID (any more).
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn incident(&self, id: &str) -> Result<Option<Incident>, Error>;
    /// Those that fit.
    ///
    /// # Errors
    /// When the disk cannot be read, or a time in the query is none.
    fn incidents(&self, query: &Query) -> Result<Page, Error>;
    /// All groups, that of the newest incident first.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn groups(&self) -> Result<Vec<Group>, Error>;
    /// Times in which nothing was watched, newest first.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn gaps(&self) -> Result<Vec<Gap>, Error>;
}

/// Panics that were counted without being captured, since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Base name of the executable.
    pub binary: String,
    /// Function they were raised in, when it is known.
    pub function: Option<String>,
    /// How many.
    pub count: u64,
}

/// What is written at once, or not at all.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The same when a batch is written again because it is not known whether it was; else another.
    pub id: u64,
    /// New incidents, each with whether it is kept (else it counts in its group only).
    pub incidents: Vec<(Arc<Incident>, bool)>,
    /// Panics without a document.
    pub counted: Vec<Counted>,
    /// Added to counters that outlive the daemon, by name.
    pub counters: Vec<(String, u64)>,
}

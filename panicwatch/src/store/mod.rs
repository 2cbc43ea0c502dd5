//! The incident store: kept incidents, queries, and the exporters' outboxes.
//!
//! This module does not depend on how incidents are made or where they are sent. docs/store.md lists its
//! guarantees.

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

/// Selects incidents; a field that is `None` matches every incident.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    /// Matches incidents at this time or later, RFC 3339.
    pub from: Option<String>,
    /// Matches incidents before this time, RFC 3339.
    pub to: Option<String>,
    /// Matches incidents of this process.
    pub pid: Option<u32>,
    /// Matches incidents of an executable whose path contains this text.
    pub exe: Option<String>,
    /// Matches incidents of this group.
    pub fingerprint: Option<String>,
    /// Matches incidents of this kind.
    pub kind: Option<Kind>,
    /// Matches incidents with this outcome.
    pub outcome: Option<Outcome>,
    /// Matches incidents whose message, value type or a function on the stack contains this text, ignoring
    /// case.
    pub text: Option<String>,
    /// Matches incidents older than the one with this ID (see [`Page::next`]).
    pub before: Option<String>,
    /// Maximum number of incidents to return; `None`: 100.
    pub limit: Option<usize>,
}

/// A page of incidents without their timelines.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Page {
    /// The incidents, newest first.
    pub incidents: Vec<Incident>,
    /// Value of [`Query::before`] for the next page; `None` on the last page.
    pub next: Option<String>,
}

/// The record of all incidents of one fingerprint that this store has seen.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Group {
    /// Fingerprint of the incidents.
    pub fingerprint: String,
    /// Title of the newest kept incident ([`crate::title`]).
    pub title: String,
    /// Kind of the newest kept incident.
    pub kind: Option<Kind>,
    /// Type of the panic value.
    pub class: Option<String>,
    /// Function and file:line where the newest kept incident was raised.
    pub site: Option<String>,
    /// Base names of executables in which the group was seen, at most eight.
    pub binaries: Vec<String>,
    /// Time of the first incident, RFC 3339.
    pub first_seen: String,
    /// Time of the last incident, RFC 3339.
    pub last_seen: String,
    /// Number of incidents, including those that were not kept.
    pub count: u64,
    /// Number of these incidents that were only counted.
    pub counted: u64,
    /// Number of incidents by outcome; the names are those of the document.
    pub outcomes: BTreeMap<String, u64>,
    /// ID of the newest incident that was kept.
    pub newest: Option<String>,
    /// Incidents per hour in the last hours, oldest first: `(hours since 1970, number)`.
    pub hours: Vec<(u64, u64)>,
}

/// Rank of an incident in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Number of incidents in the group so far.
    pub count: u64,
    /// Whether this incident opened the group.
    pub is_first: bool,
}

/// A period in which no process was watched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Start, RFC 3339.
    pub from: String,
    /// End, RFC 3339.
    pub to: String,
    /// The reason, as a sentence.
    pub reason: String,
}

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The disk failed, or the contents of the file are damaged.
    #[error("the incident store {path} {what}: {reason}")]
    Disk {
        /// Path of the store.
        path: String,
        /// The operation that failed, such as "cannot be written to".
        what: &'static str,
        /// The system's or the database's error message.
        reason: String,
    },
    /// The query is invalid.
    #[error("{0}")]
    Query(String),
}

/// Read access to the store.
pub trait Archive: Send + Sync {
    /// Returns the whole document; `None` when no incident has that ID, or it was deleted.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn incident(&self, id: &str) -> Result<Option<Incident>, Error>;
    /// Returns the incidents that match `query`.
    ///
    /// # Errors
    /// When the disk cannot be read, or a time in the query is invalid.
    fn incidents(&self, query: &Query) -> Result<Page, Error>;
    /// Returns all groups, the most recently seen first.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn groups(&self) -> Result<Vec<Group>, Error>;
    /// Returns the periods in which no process was watched, newest first.
    ///
    /// # Errors
    /// When the disk cannot be read.
    fn gaps(&self) -> Result<Vec<Gap>, Error>;
}

/// Panics that were counted without being captured, since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Base name of the executable.
    pub binary: String,
    /// Function that raised them, if known.
    pub function: Option<String>,
    /// Number of panics.
    pub count: u64,
}

/// Data that is written in one transaction.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Identifies the batch: it stays the same when a batch is written again because the outcome of the first
    /// write is unknown.
    pub id: u64,
    /// New incidents, each with whether its document is kept; otherwise it only counts in its group.
    pub incidents: Vec<(Arc<Incident>, bool)>,
    /// Panics that were counted without a document.
    pub counted: Vec<Counted>,
    /// Amounts to add to the counters that outlive the daemon, by name.
    pub counters: Vec<(String, u64)>,
}

//! The live stream: incidents and gaps for subscribers, sent as soon as they are stored.

use std::sync::Arc;

use serde::Serialize;

use crate::{incident::Incident, store::Gap};

/// An item of the live stream.
#[derive(Debug, Clone)]
pub enum News {
    /// A new incident: stored, or held in memory while the disk fails.
    Incident(Arc<Incident>),
    /// Panics that were only counted.
    Counted(Arc<Counted>),
    /// A period in which no process was watched.
    Gap(Arc<Gap>),
}

/// Panics that were counted without being captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Time of the count, RFC 3339.
    pub time: String,
    /// PID of the process.
    pub pid: u32,
    /// Base name of the executable.
    pub binary: String,
    /// Function that raised them, if known.
    pub function: Option<String>,
    /// Number of panics.
    pub count: u64,
}

/// Sender of the live stream. A subscriber that cannot keep up receives the number of items it missed.
pub type Feed = tokio::sync::broadcast::Sender<News>;

/// Items buffered for subscribers; a slower subscriber misses the oldest.
pub const BACKLOG: usize = 256;

//! What is told to whoever listens, the moment it is safely stored.

use std::sync::Arc;

use serde::Serialize;

use crate::{incident::Incident, store::Gap};

/// A piece of news.
#[derive(Debug, Clone)]
pub enum News {
    /// A new incident, stored.
    Incident(Arc<Incident>),
    /// Panics that were counted only.
    Counted(Arc<Counted>),
    /// A time in which nothing was watched.
    Gap(Arc<Gap>),
}

/// Panics that were counted only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// RFC 3339.
    pub time: String,
    /// Process.
    pub pid: u32,
    /// Base name of the executable.
    pub binary: String,
    /// Function they were raised in, when it is known.
    pub function: Option<String>,
    /// How many.
    pub count: u64,
}

/// Where news are told: listeners that do not keep up are told how much they missed.
pub type Feed = tokio::sync::broadcast::Sender<News>;

/// News that wait for a listener; a slower one misses the oldest.
pub const BACKLOG: usize = 256;

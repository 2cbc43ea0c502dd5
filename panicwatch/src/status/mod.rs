//! What the daemon watches now, and how it is: a picture that the main loop draws anew now and then and anybody reads.

pub mod feed;

use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// The picture.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Go processes.
    pub processes: Vec<Process>,
    /// Go binaries that they run or ran.
    pub binaries: Vec<Binary>,
    /// All processes were looked at, and their probes are in place.
    pub ready: bool,
    /// What keeps it from being ready, or from working, as sentences.
    pub problems: Vec<String>,
    /// The daemon's own numbers.
    pub own: Own,
}

impl Status {
    /// Everything that should be watched is, and nothing keeps the daemon from working: what `/readyz`, `panicwatch_ready`
    /// and the API report.
    pub fn is_ready(&self) -> bool {
        self.ready && self.problems.is_empty()
    }
}

/// A Go process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// In our pid namespace.
    pub pid: u32,
    /// RFC 3339.
    pub start_time: Option<String>,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Command line.
    pub args: Option<Vec<String>>,
    /// Row of [`Status::binaries`].
    pub binary: Option<u32>,
    /// It is watched; else why not.
    pub watched: bool,
    /// Why not.
    pub reason: Option<String>,
    /// Container, as in the incident.
    pub container: Option<serde_json::Value>,
    /// Pod, as in the incident.
    pub kubernetes: Option<serde_json::Value>,
    /// Incidents so far.
    pub incidents: u64,
}

/// A Go binary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Binary {
    /// Its row.
    pub row: u32,
    /// Path it was opened by.
    pub path: String,
    /// For example "go1.24.11".
    pub go_version: Option<String>,
    /// Main module.
    pub module: Option<String>,
    /// GNU build id, else Go's.
    pub build_id: Option<String>,
    /// Processes that run it now.
    pub processes: u32,
    /// Probes in it.
    pub probes: Vec<Probe>,
    /// Functions without a probe, with the reason.
    pub refused: Vec<Refused>,
    /// Hits of its probes a second, lately.
    pub hits_per_second: f64,
    /// What they cost: percent of the CPU time of its processes; `None` until measured.
    pub overhead_percent: Option<f64>,
}

/// A probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// What it is for.
    pub name: String,
    /// Function it stands in.
    pub symbol: String,
    /// Link-time address, as "0x…".
    pub address: String,
    /// "emulated" or "stepped".
    pub price: String,
}

/// A probe that could not be placed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Function.
    pub symbol: String,
    /// Why.
    pub reason: String,
}

/// The daemon's own numbers, since it started unless said.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Own {
    /// Records read from the event ring.
    pub events: u64,
    /// Records that could not be captured or were lost, by reason.
    pub lost: Vec<(String, u64)>,
    /// Records that wait between the ring and the correlator.
    pub queue: u64,
    /// Incidents that wait to be stored.
    pub to_store: u64,
    /// Binaries that could not be armed, by reason.
    pub refused_binaries: Vec<(String, u64)>,
    /// Programs that ended before their file could be read, by reason: whether those were Go is not known.
    pub unread_programs: Vec<(String, u64)>,
    /// Sources that are disabled now to keep within the overhead budgets.
    pub shed: Vec<String>,
    /// Times that the governor disabled a source or enabled it again.
    pub governor_actions: u64,
    /// Execs that the exec gate held until they were answered.
    pub execs_held: u64,
    /// Execs that it let go before their probes were attached, by reason.
    pub execs_released: Vec<(String, u64)>,
    /// Times that a watchdog removed the exec gate's marks.
    pub exec_gate_resets: u64,
    /// What recording costs watched processes: percent of their CPU time; `None` until measured, and while they hardly use any.
    pub overhead_percent: Option<f64>,
    /// What recording costs everybody else: percent of the machine's CPU capacity; `None` until measured.
    pub host_overhead_percent: Option<f64>,
    /// What a run of each source's programs costs on this machine, nanoseconds; of those that were measured.
    pub prices: Vec<(String, f64)>,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    /// CPU time used, seconds.
    pub cpu_seconds: f64,
}

/// The place where the picture hangs.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<RwLock<Arc<Status>>>);

impl Board {
    /// The picture as it is now.
    pub fn get(&self) -> Arc<Status> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A new one.
    pub fn set(&self, status: Status) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }
}

//! The status of the daemon: a snapshot that the main loop replaces once a second and any thread reads.

pub mod feed;

use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

/// A snapshot of what the daemon watches and how it performs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Status {
    /// Known Go processes, sorted by PID.
    pub processes: Vec<Process>,
    /// Go binaries with attached probes, which current processes run or former ones ran; sorted by path.
    pub binaries: Vec<Binary>,
    /// Whether process discovery has examined all processes and their probes are attached.
    pub ready: bool,
    /// Problems that prevent the daemon from being ready or from working, as sentences.
    pub problems: Vec<String>,
    /// Counters and costs of the daemon itself.
    pub own: Own,
}

impl Status {
    /// Reports whether all processes that should be watched are, and no problem prevents the daemon from
    /// working. `/readyz`, `panicwatch_ready` and the API report this value.
    pub fn is_ready(&self) -> bool {
        self.ready && self.problems.is_empty()
    }
}

/// A Go process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// PID in our namespace.
    pub pid: u32,
    /// Start time, RFC 3339.
    pub start_time: Option<String>,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Arguments of the process, as of its exec.
    pub args: Option<Vec<String>>,
    /// [`Binary::row`] of the binary that the process runs.
    pub binary: Option<u32>,
    /// Whether the process is watched.
    pub watched: bool,
    /// Why the process is not watched.
    pub reason: Option<String>,
    /// Container, in the form of the incident document.
    pub container: Option<serde_json::Value>,
    /// Pod, in the form of the incident document.
    pub kubernetes: Option<serde_json::Value>,
    /// Incidents of the process so far.
    pub incidents: u64,
}

/// A Go binary.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Binary {
    /// Row of the binary in the eBPF maps.
    pub row: u32,
    /// Path by which the file was opened.
    pub path: String,
    /// Go version, such as "go1.24.11".
    pub go_version: Option<String>,
    /// Path of the main module.
    pub module: Option<String>,
    /// GNU build ID, else Go's.
    pub build_id: Option<String>,
    /// Processes that currently run it.
    pub processes: u32,
    /// Probes that are attached to the binary.
    pub probes: Vec<Probe>,
    /// Functions without a probe, and why.
    pub refused: Vec<Refused>,
    /// Probe hits per second since the previous snapshot.
    pub hits_per_second: f64,
    /// Overhead of the probes in percent of the CPU time of its processes; `None` until measured.
    pub overhead_percent: Option<f64>,
}

/// An attached probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Name of the probe.
    pub name: String,
    /// Function that contains the probe site.
    pub symbol: String,
    /// Link-time address, as "0x…".
    pub address: String,
    /// "emulated" or "stepped": how the kernel executes the probed instruction.
    pub price: String,
}

/// A probe that could not be placed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// Name of the function.
    pub symbol: String,
    /// Reason, as a sentence.
    pub reason: String,
}

/// Counters and costs of the daemon itself, since its start unless stated otherwise.
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
    /// Binaries whose probes could not be attached, by reason.
    pub refused_binaries: Vec<(String, u64)>,
    /// Programs that ended before their file could be read, by reason: whether they were Go is unknown.
    pub unread_programs: Vec<(String, u64)>,
    /// Sources that are currently disabled to keep within the overhead budgets.
    pub shed: Vec<String>,
    /// Number of times that the governor disabled or re-enabled a source.
    pub governor_actions: u64,
    /// Execs that the exec gate held until they were answered.
    pub execs_held: u64,
    /// Execs that the exec gate released before their probes were attached, by reason.
    pub execs_released: Vec<(String, u64)>,
    /// Number of times that a watchdog removed the exec gate's marks.
    pub exec_gate_resets: u64,
    /// Overhead of recording in percent of the CPU time of watched processes; `None` until measured, and
    /// while they use hardly any.
    pub overhead_percent: Option<f64>,
    /// Overhead of recording for all other processes, in percent of the machine's CPU capacity; `None` until
    /// measured.
    pub host_overhead_percent: Option<f64>,
    /// Cost per run of each source's eBPF programs on this machine, ns; only sources that were measured.
    pub prices: Vec<(String, f64)>,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    /// CPU time used, seconds.
    pub cpu_seconds: f64,
}

/// Shared handle to the latest status snapshot.
#[derive(Debug, Clone, Default)]
pub struct Board(Arc<RwLock<Arc<Status>>>);

impl Board {
    /// Returns the latest snapshot.
    pub fn get(&self) -> Arc<Status> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the snapshot.
    pub fn set(&self, status: Status) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }
}

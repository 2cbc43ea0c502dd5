//! Counts each death of a process once, although a process whose goroutines panic at the same time dies with
//! several fatal incidents.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use prometheus::{IntCounterVec, Opts, Registry};

use super::labels::{OTHER, plain};
use crate::incident::{Incident, Outcome};

/// Prefix of the names of the persistent counters of deaths.
const PREFIX: &str = "deaths:";
/// Maximum number of processes to remember; the fatal incidents of one process follow each other immediately.
const MAX: usize = 256;
/// Deaths further apart than this, in ns, belong to two processes: PIDs are reused.
const APART_NS: u64 = 60_000_000_000;

/// Remembers recent deaths, to recognize the first fatal incident of a process.
#[derive(Debug, Default)]
pub(super) struct Dead(VecDeque<Process>);

#[derive(Debug)]
struct Process {
    pid: u32,
    start_time: Option<String>,
    end_ns: u64,
}

impl Dead {
    /// Reports whether this is the first fatal incident of its process, and remembers the process.
    pub(super) fn is_new(&mut self, incident: &Incident) -> bool {
        if incident.outcome != Outcome::Fatal {
            return false;
        }
        let of = &incident.process;
        let end_ns = incident.end_ns.unwrap_or(incident.start_ns);
        let is_it = |dead: &Process| {
            dead.pid == of.pid && dead.start_time == of.start_time && dead.end_ns.abs_diff(end_ns) < APART_NS
        };
        if self.0.iter().rev().any(is_it) {
            return false;
        }
        if self.0.len() >= MAX {
            self.0.pop_front();
        }
        self.0.push_back(Process { pid: of.pid, start_time: of.start_time.clone(), end_ns });
        true
    }
}

/// The metric `panicwatch_deaths_total`.
pub(super) struct Deaths {
    total: IntCounterVec,
    max_series: usize,
    state: Mutex<(Dead, BTreeSet<String>)>,
}

impl Deaths {
    pub(super) fn new(registry: &Registry, max_series: usize) -> Result<Deaths, prometheus::Error> {
        let help = "Processes that died of a panic, fatal error, throw or signal, each counted once";
        let total = IntCounterVec::new(Opts::new("panicwatch_deaths_total", help), &["binary"])?;
        registry.register(Box::new(total.clone()))?;
        Ok(Deaths { total, max_series, state: Mutex::default() })
    }

    /// Returns the name of the persistent counter and the increment, if the incident is a new death.
    pub(super) fn of_incident(&self, incident: &Incident) -> Option<(String, u64)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (dead, binaries) = &mut *state;
        if !dead.is_new(incident) {
            return None;
        }
        let binary = plain(incident.process.binary_name().unwrap_or_default());
        let has_room = binaries.contains(&binary) || binaries.len() < self.max_series;
        let binary = if has_room { binary } else { OTHER.to_owned() };
        let name = format!("{PREFIX}{binary}");
        binaries.insert(binary);
        Some((name, 1))
    }

    /// Adds to the metric if `name` is a persistent counter of deaths.
    pub(super) fn add(&self, name: &str, more: u64) {
        let Some(binary) = name.strip_prefix(PREFIX) else { return };
        self.total.with_label_values(&[binary]).inc_by(more);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.insert(binary.to_owned());
    }
}

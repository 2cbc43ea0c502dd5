//! Detects programs that repeatedly die of the same defect. Does no I/O and reads no clock.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::{deaths::Dead, labels::plain};
use crate::incident::{Incident, Outcome};

/// Deaths within this period count towards a loop.
const SPAN: Duration = Duration::from_secs(600);
/// Number of deaths that makes a loop.
const DEATHS: usize = 3;
/// Maximum number of pairs of program and defect to remember.
const MAX: usize = 1000;
/// Maximum number of deaths to remember per pair.
const MAX_DEATHS: usize = 1000;

/// Deaths by program and fingerprint.
#[derive(Debug, Default)]
pub(super) struct CrashLoops(HashMap<(String, String), Deaths>);

/// Deaths of one program by one defect. A process that dies with two incidents of the defect is one death.
#[derive(Debug, Default)]
struct Deaths {
    at: VecDeque<Instant>,
    processes: Dead,
}

impl CrashLoops {
    pub(super) fn incident(&mut self, incident: &Incident, now: Instant) {
        if incident.outcome != Outcome::Fatal {
            return;
        }
        let binary = plain(incident.process.binary_name().unwrap_or_default());
        let key = (binary, incident.fingerprint.clone());
        if self.0.len() >= MAX && !self.0.contains_key(&key) {
            self.forget(now);
        }
        if self.0.len() < MAX || self.0.contains_key(&key) {
            let deaths = self.0.entry(key).or_default();
            if !deaths.processes.is_new(incident) {
                return;
            }
            deaths.at.push_back(now);
            if deaths.at.len() > MAX_DEATHS {
                deaths.at.pop_front();
            }
        }
    }

    fn forget(&mut self, now: Instant) {
        for deaths in self.0.values_mut() {
            deaths.at.retain(|at| now.duration_since(*at) < SPAN);
        }
        self.0.retain(|_, deaths| !deaths.at.is_empty());
    }

    /// Returns the programs in a crash loop, each with the number of deaths by its most frequent defect.
    pub(super) fn now(&mut self, now: Instant) -> Vec<(String, usize)> {
        self.forget(now);
        let mut loops: HashMap<&str, usize> = HashMap::new();
        for ((binary, _), deaths) in &self.0 {
            if deaths.at.len() >= DEATHS {
                let most = loops.entry(binary).or_default();
                *most = (*most).max(deaths.at.len());
            }
        }
        loops.into_iter().map(|(binary, deaths)| (binary.to_owned(), deaths)).collect()
    }
}

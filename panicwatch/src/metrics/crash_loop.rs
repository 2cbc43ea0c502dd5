//! Detects programs that keep dying of the same defect. Pure: times are passed in.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::{deaths::Dead, labels::plain};
use crate::incident::{Incident, Outcome};

/// Deaths within this time belong together.
const SPAN: Duration = Duration::from_secs(600);
/// From so many on it is a loop.
const DEATHS: usize = 3;
/// Programs and defects that are remembered.
const MAX: usize = 1000;
/// Deaths of one that are remembered.
const MAX_DEATHS: usize = 1000;

/// Deaths by program and fingerprint.
#[derive(Debug, Default)]
pub(super) struct CrashLoops(HashMap<(String, String), Deaths>);

/// Deaths of one program by one defect: a process that dies with two incidents of it is one death.
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

    /// Programs in a loop, with the deaths by the defect that it dies of most.
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

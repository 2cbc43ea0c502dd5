//! Panics that were counted but not captured: read once a second, and reported by place.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use panicwatch_common::counted::Place;

use super::{Output, Session, program};
use crate::{incident::Frame, probe::object::Programs};

/// Interval at which counted panics are read.
pub(super) const COUNTED_PACE: Duration = Duration::from_secs(1);

/// Panics of one process at one place that were counted but not captured, since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Process ID of the program.
    pub pid: u32,
    /// Where they were raised; `None` if there were too many places.
    pub site: Option<Frame>,
    /// Number of panics.
    pub count: u64,
}

/// The counts as last reported, and the time of that report.
pub(super) struct CountedPanics {
    reported: HashMap<Place, u64>,
    reported_at: Instant,
}

impl CountedPanics {
    pub(super) fn new() -> CountedPanics {
        CountedPanics { reported: HashMap::new(), reported_at: Instant::now() }
    }

    /// Reports whether the counts are due to be read again.
    pub(super) fn is_due(&self) -> bool {
        self.reported_at.elapsed() >= COUNTED_PACE
    }

    /// Stores the count of a place; returns how many panics were added since the last call.
    fn added(&mut self, place: Place, count: u64) -> u64 {
        let before = self.reported.insert(place, count).unwrap_or(0);
        count.saturating_sub(before)
    }
}

impl Session {
    /// Reports panics since the last call that were counted but not captured.
    pub(super) fn report_counted(&mut self) {
        self.counted.reported_at = Instant::now();
        self.armory.with_programs(Programs::log_diagnostics);
        let counted = self.armory.with_programs(Programs::counted).unwrap_or_default();
        if counted.is_empty() && self.census.is_some() {
            return;
        }
        let watched = self.armory.with_programs(Programs::watched).unwrap_or_default();
        if self.census.is_none() {
            // Finds child processes that never call exec.
            watched.iter().for_each(|pid| self.follower.running(*pid));
        }
        for (place, count) in counted {
            let added = self.counted.added(place, count);
            if added > 0 {
                let site = program(&self.armory, place.binary).and_then(|program| program.raised_at(place));
                self.outputs.push_back(Output::Counted(Counted { pid: place.tgid, site, count: added }));
            } else if !watched.contains(&place.tgid) {
                // The process has ended, and no panics were added since the last call.
                self.counted.reported.remove(&place);
                // If it fails, the place stays in the table, which does no harm.
                let _ = self.armory.with_programs(|programs| programs.forget_counted(place));
            }
        }
    }
}

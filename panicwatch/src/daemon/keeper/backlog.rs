//! Incidents that the disk has not accepted, in the order in which they are written later.
//!
//! They are packed, about 3 KB each without a timeline. As the backlog grows, less of each incident is kept:
//! first all of it, then no timeline, then only what counts it in its group; beyond that, incidents are lost
//! to the store. The store separately limits the unsent incidents that it holds in memory for exporters.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{BATCH, drop_timeline};
use crate::{
    incident::Incident,
    store::{Batch, Counted, Packed, Standing, Store},
};

/// With this many incidents waiting, further ones are kept without their timelines.
pub(super) const MANY: u64 = 64;
/// With this many incidents waiting, further ones are kept only as counts in their groups.
pub(super) const TOO_MANY: u64 = 20_000;
/// With this many incidents waiting, further ones are lost to the store and counted.
pub(super) const NO_ROOM: u64 = 100_000;

/// A batch that is not written.
#[derive(Default)]
struct Unwritten {
    id: u64,
    /// Incidents, each with whether its document is kept.
    incidents: Vec<(Arc<Packed>, bool)>,
    counted: Vec<Counted>,
    counters: Vec<(String, u64)>,
    /// Whether a write was attempted: it may have succeeded although it reported a failure, so nothing may be
    /// added.
    is_tried: bool,
}

/// Backlog sizes from which less of an incident is kept.
struct Bounds {
    timelines: u64,
    documents: u64,
    incidents: u64,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { timelines: MANY, documents: TOO_MANY, incidents: NO_ROOM }
    }
}

/// The waiting batches, oldest first.
#[derive(Default)]
pub(super) struct Backlog {
    bounds: Bounds,
    batches: VecDeque<Unwritten>,
    len: u64,
    /// Number of waiting incidents by fingerprint.
    groups: HashMap<String, u64>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Returns the number of waiting incidents.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds a batch that could not be written, and hands its incidents to the exporters of `store`; returns
    /// how many were lost to the store for lack of room.
    pub(super) fn add(&mut self, batch: &Batch, store: &Store) -> u64 {
        let has_room = |last: &Unwritten| !last.is_tried && last.incidents.len() < BATCH;
        let open = self.batches.back().is_some_and(has_room).then(|| self.batches.pop_back()).flatten();
        // The caller has already tried to write the first batch.
        let is_tried = self.batches.is_empty() && open.is_none();
        let mut last = open.unwrap_or_else(|| Unwritten { id: batch.id, is_tried, ..Unwritten::default() });
        last.counted.extend(batch.counted.iter().cloned());
        last.counters.extend(batch.counters.iter().cloned());
        let mut lost = 0;
        for (incident, kept) in &batch.incidents {
            match self.pack(incident, *kept, store) {
                Some(waits) => {
                    last.incidents.push(waits);
                    self.len += 1;
                }
                None => lost += 1,
            }
        }
        self.batches.push_back(last);
        lost
    }

    /// Returns the incident in the form in which it waits for the store, after handing it to the exporters.
    fn pack(&mut self, incident: &Incident, kept: bool, store: &Store) -> Option<(Arc<Packed>, bool)> {
        let standing = self.standing(incident, store);
        let mut document = incident.clone();
        if self.len >= self.bounds.timelines {
            drop_timeline(&mut document);
        }
        let is_kept = kept && self.len < self.bounds.documents;
        let packed = Packed::of(&document).map(Arc::new).ok()?;
        if kept {
            store.hold(&incident.id, packed.clone(), is_kept, standing);
        }
        match self.len {
            len if len >= self.bounds.incidents => None,
            _ if is_kept => Some((packed, true)),
            _ => Packed::of(&counted_only(document)).ok().map(|packed| (Arc::new(packed), false)),
        }
    }

    /// Returns the rank of the incident in its group, counting incidents in the store and waiting ones.
    fn standing(&mut self, incident: &Incident, store: &Store) -> Option<Standing> {
        if self.len >= self.bounds.incidents {
            return None;
        }
        let waiting = self.groups.entry(incident.fingerprint.clone()).or_default();
        *waiting += 1;
        let stored = store.group(&incident.fingerprint).ok()?.map_or(0, |group| group.count);
        Some(Standing { count: stored + *waiting, is_first: stored == 0 && *waiting == 1 })
    }

    /// Returns the oldest batch, and the number of its incidents that could not be unpacked.
    pub(super) fn first(&mut self) -> Option<(Batch, u64)> {
        let first = self.batches.front_mut()?;
        first.is_tried = true;
        let unpacked = first.incidents.iter().filter_map(|(packed, kept)| {
            let incident = packed.unpack().map_err(|error| log::error!("lost an incident: {error}"));
            Some((Arc::new(incident.ok()?), *kept))
        });
        let incidents: Vec<_> = unpacked.collect();
        let unreadable = (first.incidents.len() - incidents.len()) as u64;
        let (id, counted, counters) = (first.id, first.counted.clone(), first.counters.clone());
        Some((Batch { id, incidents, counted, counters }, unreadable))
    }

    /// Removes the oldest batch, which was written.
    pub(super) fn first_is_written(&mut self) {
        if let Some(written) = self.batches.pop_front() {
            self.len = self.len.saturating_sub(written.incidents.len() as u64);
        }
        if self.batches.is_empty() {
            self.groups = HashMap::new();
        }
    }

    /// Returns all waiting incidents.
    pub(super) fn into_documents(self) -> Vec<Arc<Packed>> {
        self.batches.into_iter().flat_map(|batch| batch.incidents).map(|(packed, _)| packed).collect()
    }
}

/// Strips an incident of everything that its group does not need.
pub(super) fn counted_only(incident: Incident) -> Incident {
    Incident { stack: Vec::new(), panics: Vec::new(), ancestry: Vec::new(), goroutine: None, ..incident }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Archive as _;

    fn incident(text: &str, n: u64) -> Arc<Incident> {
        let mut incident: Incident = serde_json::from_str(text).expect("a document");
        incident.id = format!("{n:06}");
        incident.fingerprint = format!("group {}", n % 3);
        Arc::new(incident)
    }

    /// Each limit is exceeded in turn: timelines, documents, then incidents.
    #[test]
    fn less_and_less_is_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), &[]).expect("a store").store;
        let bounds = Bounds { timelines: 3, documents: 300, incidents: 600 };
        let mut backlog = Backlog { bounds, ..Backlog::default() };
        let recorded = include_str!("../../../tests/incidents/slow_read.json");
        let small = include_str!("../../../tests/incidents/deadlock.json");
        let mut lost = 0;
        for first in (0..700).step_by(100) {
            let of = |n: u64| (incident(if n < 5 { recorded } else { small }, n), true);
            let incidents = (first..first + 100).map(of).collect();
            let counters = vec![("all".to_owned(), 100)];
            lost += backlog.add(&Batch { id: first + 1, incidents, counters, ..Batch::default() }, &store);
        }
        assert_eq!((backlog.len(), lost), (600, 100));
        let held = [0, 2, 3].map(|n| store.incident(&format!("{n:06}")).expect("read").expect("held"));
        assert_eq!(held.each_ref().map(|held| held.timeline.is_some()), [true, true, false]);
        assert!(held[2].missing.iter().any(|missing| missing.what == "timeline"));
        let (mut kept, mut counted, mut counters) = (0, 0, 0);
        while let Some((batch, unreadable)) = backlog.first() {
            assert_eq!(unreadable, 0);
            assert!(batch.incidents.len() <= BATCH + 100, "batches are bounded");
            kept += batch.incidents.iter().filter(|(_, kept)| *kept).count();
            counted += batch.incidents.iter().filter(|(_, kept)| !*kept).count();
            counters += batch.counters.iter().map(|(_, n)| n).sum::<u64>();
            backlog.first_is_written();
        }
        assert_eq!((kept, counted, counters), (300, 300, 700), "what is lost to the store is counted");
        assert!(backlog.is_empty());
        assert_eq!(backlog.len(), 0);
    }
}

//! Incidents that the disk has not taken, in the order in which they are to be written.
//!
//! They are packed: some 3 KB each without a timeline. Of the first ones everything is kept, then timelines are left out,
//! then all but what counts an incident in its group, and finally they are lost to the store. What exporters send
//! meanwhile is bounded by the store's own memory of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{BATCH, drop_timeline};
use crate::{
    incident::Incident,
    store::{Batch, Counted, Packed, Standing, Store},
};

/// Beyond so many that wait timelines are not kept.
pub(super) const MANY: u64 = 64;
/// Beyond so many documents are not kept for the store.
pub(super) const TOO_MANY: u64 = 20_000;
/// Beyond so many they are lost to the store, counted.
pub(super) const NO_ROOM: u64 = 100_000;

/// A batch that is not written.
#[derive(Default)]
struct Unwritten {
    id: u64,
    /// Each with whether its document is kept.
    incidents: Vec<(Arc<Packed>, bool)>,
    counted: Vec<Counted>,
    counters: Vec<(String, u64)>,
    /// It may have been written all the same: nothing may be added to it.
    is_tried: bool,
}

/// How much is kept of how many.
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

/// All that waits.
#[derive(Default)]
pub(super) struct Backlog {
    bounds: Bounds,
    batches: VecDeque<Unwritten>,
    len: u64,
    /// Incidents that wait, by fingerprint.
    groups: HashMap<String, u64>,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Incidents that wait.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Takes a batch that was not written, and gives its incidents to the exporters of `store`; how many found no room.
    pub(super) fn add(&mut self, batch: &Batch, store: &Store) -> u64 {
        let has_room = |last: &Unwritten| !last.is_tried && last.incidents.len() < BATCH;
        let open = self.batches.back().is_some_and(has_room).then(|| self.batches.pop_back()).flatten();
        // The first was tried before it came here.
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

    /// The incident as it waits for the store, after the exporters got it.
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

    /// How it stands in its group: incidents in the store and those that wait.
    fn standing(&mut self, incident: &Incident, store: &Store) -> Option<Standing> {
        if self.len >= self.bounds.incidents {
            return None;
        }
        let waiting = self.groups.entry(incident.fingerprint.clone()).or_default();
        *waiting += 1;
        let stored = store.group(&incident.fingerprint).ok()?.map_or(0, |group| group.count);
        Some(Standing { count: stored + *waiting, is_first: stored == 0 && *waiting == 1 })
    }

    /// The oldest batch to be written, and how many of its incidents cannot be read any more.
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

    /// The oldest batch was written.
    pub(super) fn first_is_written(&mut self) {
        if let Some(written) = self.batches.pop_front() {
            self.len = self.len.saturating_sub(written.incidents.len() as u64);
        }
        if self.batches.is_empty() {
            self.groups = HashMap::new();
        }
    }

    /// All that waits.
    pub(super) fn into_documents(self) -> Vec<Arc<Packed>> {
        self.batches.into_iter().flat_map(|batch| batch.incidents).map(|(packed, _)| packed).collect()
    }
}

/// No more than its group needs.
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

    /// Each bound is crossed: timelines, documents, finally incidents.
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

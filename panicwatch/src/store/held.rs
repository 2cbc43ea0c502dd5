//! Data that the disk has not accepted yet, in memory: incidents that exporters can send meanwhile, and
//! deliveries whose outbox entries could not be removed. So a full disk stops neither hooks nor JSON lines on
//! another disk.
//!
//! This module does not depend on the tables, nor on why a write failed or when it is retried.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Packed, Standing};

/// Maximum number of incidents that wait here for an exporter; beyond it the oldest are dropped and counted.
pub(super) const MAX_UNSENT: usize = 10_000;

/// An incident that is not stored.
pub(super) struct Unstored {
    document: Arc<Packed>,
    /// The store will keep the document, with outbox entries for consumers that have not sent it; otherwise
    /// only exporters need it.
    is_kept: bool,
    /// Consumers that have not sent the incident.
    unsent: BTreeSet<String>,
    standing: Option<Standing>,
}

/// All data that the disk has not accepted.
#[derive(Default)]
pub(super) struct Held {
    incidents: BTreeMap<String, Unstored>,
    /// IDs in `incidents` that at least one consumer has not sent.
    unsent: BTreeSet<String>,
    /// Consumer and ID of stored incidents that were sent, but whose outbox entries still exist on disk.
    sent: BTreeSet<(String, String)>,
    /// Incidents dropped since [`Held::take_given_up`], by consumer.
    given_up: BTreeMap<String, u64>,
}

impl Held {
    /// Adds an incident for all of `consumers`. `is_kept`: the store will keep its document.
    pub(super) fn add(
        &mut self,
        id: &str,
        document: Arc<Packed>,
        is_kept: bool,
        standing: Option<Standing>,
        consumers: &[String],
    ) {
        let unsent: BTreeSet<String> = consumers.iter().cloned().collect();
        let is_unsent = !unsent.is_empty();
        if !is_unsent && !is_kept {
            return;
        }
        let unstored = Unstored { document, is_kept, unsent, standing };
        self.incidents.insert(id.to_owned(), unstored);
        if is_unsent {
            self.unsent.insert(id.to_owned());
        }
        while self.unsent.len() > MAX_UNSENT {
            let Some(oldest) = self.unsent.first().cloned() else { break };
            let Some(unstored) = self.incidents.get(&oldest) else { break };
            for consumer in unstored.unsent.clone() {
                *self.given_up.entry(consumer.clone()).or_default() += 1;
                self.sent_one(&consumer, &oldest);
            }
        }
    }

    /// Records that `consumer` sent an incident; returns false if the incident does not wait here.
    pub(super) fn sent_one(&mut self, consumer: &str, id: &str) -> bool {
        let Some(unstored) = self.incidents.get_mut(id) else { return false };
        unstored.unsent.remove(consumer);
        if unstored.unsent.is_empty() {
            self.unsent.remove(id);
            if !unstored.is_kept {
                self.incidents.remove(id);
            }
        }
        true
    }

    /// Records that `consumer` sent a stored incident, until [`Held::noted`] removes the record.
    pub(super) fn remember_sent(&mut self, consumer: &str, id: &str) {
        self.sent.insert((consumer.to_owned(), id.to_owned()));
    }

    /// Returns consumer and ID of the deliveries that are not recorded on disk.
    pub(super) fn unnoted(&self) -> Vec<(String, String)> {
        self.sent.iter().cloned().collect()
    }

    /// Reports whether `consumer` has sent that stored incident.
    pub(super) fn is_sent(&self, consumer: &str, id: &str) -> bool {
        // The set is almost always empty.
        !self.sent.is_empty() && self.sent.contains(&(consumer.to_owned(), id.to_owned()))
    }

    /// Forgets deliveries that are now recorded on disk.
    pub(super) fn noted(&mut self, deliveries: &[(String, String)]) {
        for delivery in deliveries {
            self.sent.remove(delivery);
        }
    }

    /// Reports whether `consumer` may still have to send that incident, as far as is known here.
    pub(super) fn is_wanted(&self, consumer: &str, id: &str) -> bool {
        self.incidents.get(id).is_none_or(|unstored| unstored.unsent.contains(consumer))
    }

    /// Removes an incident that is stored now. Its outbox entries are for the consumers that wanted it when
    /// it was written, or for all of them if an earlier write succeeded although it was reported as failed.
    pub(super) fn stored(&mut self, id: &str, consumers: &[String]) {
        let Some(unstored) = self.incidents.remove(id) else { return };
        self.unsent.remove(id);
        for consumer in consumers.iter().filter(|consumer| !unstored.unsent.contains(*consumer)) {
            self.remember_sent(consumer, id);
        }
    }

    /// Yields the IDs that `consumer` has not sent, oldest first.
    pub(super) fn waiting<'a>(&'a self, consumer: &'a str) -> impl Iterator<Item = &'a str> {
        let wants = move |id: &&String| {
            self.incidents.get(id.as_str()).is_some_and(|unstored| unstored.unsent.contains(consumer))
        };
        self.unsent.iter().filter(wants).map(String::as_str)
    }

    /// Returns a document that is not stored yet.
    pub(super) fn document(&self, id: &str) -> Option<Arc<Packed>> {
        Some(self.incidents.get(id)?.document.clone())
    }

    /// Returns the rank of an unstored incident in its group; the inner `None`: not known.
    pub(super) fn standing(&self, id: &str) -> Option<Option<Standing>> {
        self.incidents.get(id).map(|unstored| unstored.standing)
    }

    /// Returns the number of incidents dropped for `consumer` since the last call.
    pub(super) fn take_given_up(&mut self, consumer: &str) -> u64 {
        self.given_up.remove(consumer).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::incident::Incident;

    fn packed() -> Arc<Packed> {
        let incident: Incident =
            serde_json::from_str(include_str!("../../tests/incidents/deadlock.json")).expect("a document");
        Arc::new(Packed::of(&incident).expect("packed"))
    }

    fn consumers(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn waiting(held: &Held, consumer: &str) -> Vec<String> {
        held.waiting(consumer).map(str::to_owned).collect()
    }

    #[test]
    fn each_consumer_sends_it_once_and_the_store_takes_it() {
        let (mut held, both) = (Held::default(), consumers(&["a", "b"]));
        held.add("1", packed(), true, None, &both);
        held.add("2", packed(), false, None, &both);
        assert_eq!(
            (waiting(&held, "a"), waiting(&held, "b")),
            (vec!["1".into(), "2".into()], vec!["1".into(), "2".into()])
        );
        assert!(held.sent_one("a", "1") && held.sent_one("a", "2") && held.sent_one("b", "2"));
        assert_eq!((waiting(&held, "a"), waiting(&held, "b")), (vec![], vec!["1".to_owned()]));
        assert!(held.document("1").is_some(), "the store will take it");
        assert!(held.document("2").is_none() && held.standing("2").is_none(), "no exporter needs it");
        assert!(!held.is_wanted("a", "1") && held.is_wanted("b", "1"));
        held.stored("1", &both);
        // Its outbox entry may exist, if a write succeeded that was reported as failed.
        assert!(held.is_sent("a", "1") && !held.is_sent("b", "1"));
        assert!(!held.sent_one("b", "1"), "it waits in the store from now on");
        held.noted(&held.unnoted());
        assert!(!held.is_sent("a", "1"));
    }

    #[test]
    fn of_too_many_the_oldest_are_given_up_and_counted() {
        let (mut held, both, document) = (Held::default(), consumers(&["a", "b"]), packed());
        let id = |n: usize| format!("{n:06}");
        for n in 0..MAX_UNSENT + 3 {
            held.add(&id(n), document.clone(), false, None, &both);
            held.sent_one("a", &id(n));
        }
        assert_eq!((held.take_given_up("a"), held.take_given_up("b")), (0, 3));
        assert_eq!(held.take_given_up("b"), 0, "each is counted once");
        let left = waiting(&held, "b");
        assert_eq!((left.len(), left[0].as_str()), (MAX_UNSENT, "000003"));
        assert!(waiting(&held, "a").is_empty() && held.document("000002").is_none());
    }

    #[test]
    fn without_consumers_only_the_store_keeps_it() {
        let mut held = Held::default();
        held.add("1", packed(), false, None, &[]);
        assert!(held.document("1").is_none());
        held.add("2", packed(), true, Some(Standing { count: 2, is_first: false }), &[]);
        assert!(held.document("2").is_some() && held.standing("2").is_some());
        held.stored("2", &[]);
        assert!(held.document("2").is_none());
    }
}

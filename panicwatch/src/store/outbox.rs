//! The exporters' queues: the incidents that each has not sent yet. They are kept in the store's file, so
//! that a crash of panicwatch loses none.

use std::{ops::RangeInclusive, sync::Arc};

use redb::ReadableTable;

use super::{
    Archive as _, Error, Standing, Store,
    database::{DOCUMENTS, OUTBOX},
};
use crate::incident::Incident;

/// Sorts after every ID.
const LAST: &str = "~";

/// Waits until the number increases, which wakes consumers; never returns if the sender is gone.
pub(crate) async fn risen(number: &mut tokio::sync::watch::Receiver<u64>) {
    if number.changed().await.is_err() {
        std::future::pending().await
    }
}

/// The queue of one consumer.
#[derive(Clone)]
pub struct Outbox {
    store: Arc<Store>,
    consumer: String,
}

impl Outbox {
    /// Returns the queue of `consumer`, one of those that the store was opened with.
    pub fn new(store: Arc<Store>, consumer: &str) -> Outbox {
        Outbox { store, consumer: consumer.to_owned() }
    }

    fn range(&self) -> RangeInclusive<(&str, &str)> {
        (self.consumer.as_str(), "")..=(self.consumer.as_str(), LAST)
    }

    /// Returns the oldest waiting incidents, at most `limit` after the first `skip`: those in the store, then
    /// those that the disk has not accepted yet.
    ///
    /// # Errors
    /// When the disk cannot be read and no incident waits in memory.
    pub fn pending(&self, skip: usize, limit: usize) -> Result<Vec<Arc<Incident>>, Error> {
        let stored = self.stored_ids(skip, limit);
        let held = self.store.held().waiting(&self.consumer).next().is_some();
        let (mut ids, skip) = match stored {
            Err(error) if !held => return Err(error),
            stored => stored.unwrap_or((Vec::new(), skip)),
        };
        let more = limit.saturating_sub(ids.len());
        ids.extend(self.store.held().waiting(&self.consumer).skip(skip).take(more).map(str::to_owned));
        let (mut incidents, mut gone) = (Vec::new(), Vec::new());
        for id in &ids {
            match self.store.incident(id)? {
                Some(incident) => incidents.push(Arc::new(incident)),
                None => gone.push(id.as_str()),
            }
        }
        if !gone.is_empty() {
            self.done(&gone)?;
        }
        Ok(incidents)
    }

    /// Returns the IDs of incidents that wait in the store, oldest first, at most `limit` after the first
    /// `skip`, and how many of `skip` remain to be skipped among those in memory.
    fn stored_ids(&self, skip: usize, limit: usize) -> Result<(Vec<String>, usize), Error> {
        self.store.read(|transaction| {
            let table = transaction.open_table(OUTBOX)?;
            let held = self.store.held();
            let (mut ids, mut skip) = (Vec::new(), skip);
            for entry in table.range::<(&str, &str)>(self.range())? {
                let entry = entry?;
                let id = entry.0.value().1;
                if ids.len() >= limit {
                    break;
                }
                match held.is_sent(&self.consumer, id) {
                    true => {}
                    false if skip > 0 => skip -= 1,
                    false => ids.push(id.to_owned()),
                }
            }
            Ok((ids, skip))
        })
    }

    /// Returns the rank of an incident in its group; `None` when it is not known.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn standing(&self, incident: &Incident) -> Result<Option<Standing>, Error> {
        let held = self.store.held().standing(&incident.id);
        if let Some(standing) = held {
            return Ok(standing);
        }
        let group = self.store.group(&incident.fingerprint)?;
        Ok(group.map(|group| Standing { count: group.count, is_first: group.first_seen == incident.time }))
    }

    /// Marks incidents as sent. While the disk fails, that is recorded in memory: they are sent again only if
    /// the daemon ends before the disk recovers.
    ///
    /// # Errors
    /// Never; the caller need not know where it is recorded.
    pub fn done(&self, ids: &[&str]) -> Result<(), Error> {
        let mut held = self.store.held();
        for id in ids {
            if !held.sent_one(&self.consumer, id) {
                held.remember_sent(&self.consumer, id);
            }
        }
        drop(held);
        if !self.store.is_failing()
            && let Err(error) = self.store.note_deliveries()
        {
            log::warn!(
                "{error}; {} has sent incidents and will send them again after a crash",
                self.consumer
            );
        }
        Ok(())
    }

    /// Returns the number of waiting incidents.
    ///
    /// # Errors
    /// When the disk cannot be read and no incident waits in memory.
    pub fn waiting(&self) -> Result<u64, Error> {
        let stored = self.stored_ids(0, usize::MAX).map(|(ids, _)| ids.len());
        match (stored, self.store.held().waiting(&self.consumer).count()) {
            (Err(error), 0) => Err(error),
            (stored, held) => Ok((stored.unwrap_or(0) + held) as u64),
        }
    }

    /// Drops the oldest incidents beyond `max`, except those for which `keep` returns true; returns how many
    /// were dropped since the last call, including those dropped from memory.
    ///
    /// # Errors
    /// As [`Outbox::waiting`].
    pub fn trim(&self, max: u64, keep: impl Fn(&str) -> bool) -> Result<u64, Error> {
        let given_up = self.store.held().take_given_up(&self.consumer);
        let over = self.waiting()?.saturating_sub(max);
        if over == 0 {
            return Ok(given_up);
        }
        let (stored, _) = self.stored_ids(0, usize::MAX).unwrap_or_default();
        let held: Vec<String> = self.store.held().waiting(&self.consumer).map(str::to_owned).collect();
        let over = usize::try_from(over).unwrap_or(usize::MAX);
        let going = stored.iter().chain(&held).filter(|id| !keep(id)).take(over);
        let going: Vec<&str> = going.map(String::as_str).collect();
        self.done(&going)?;
        Ok(given_up + going.len() as u64)
    }
}

impl Store {
    /// Removes the outbox entries of consumers that are no longer configured, and returns their number by
    /// consumer.
    pub(super) fn drop_strangers(&self) -> Result<Vec<(String, u64)>, Error> {
        let strangers = self.read(|transaction| {
            let table = transaction.open_table(OUTBOX)?;
            let mut strangers: Vec<(String, u64)> = Vec::new();
            for entry in table.iter()? {
                let entry = entry?;
                let consumer = entry.0.value().0;
                if self.consumers.iter().any(|known| known == consumer) {
                    continue;
                }
                match strangers.last_mut().filter(|(last, _)| last == consumer) {
                    Some((_, n)) => *n += 1,
                    None => strangers.push((consumer.to_owned(), 1)),
                }
            }
            Ok(strangers)
        })?;
        if !strangers.is_empty() {
            self.write(|transaction| {
                let mut table = transaction.open_table(OUTBOX)?;
                table.retain(|(consumer, _), ()| self.consumers.iter().any(|known| known == consumer))?;
                Ok(())
            })?;
        }
        Ok(strangers)
    }

    /// Reports whether a consumer has not sent the incident yet.
    pub(super) fn is_wanted(
        &self,
        outbox: &impl ReadableTable<(&'static str, &'static str), ()>,
        id: &str,
    ) -> Result<bool, redb::Error> {
        for consumer in &self.consumers {
            if outbox.get((consumer.as_str(), id))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reports whether a document with that ID is stored.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn has(&self, id: &str) -> Result<bool, Error> {
        self.read(|transaction| Ok(transaction.open_table(DOCUMENTS)?.get(id)?.is_some()))
    }
}

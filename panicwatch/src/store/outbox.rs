//! The exporters' queues: which incidents each has not sent yet, in the same file, so that none is lost with us.

use std::{ops::RangeInclusive, sync::Arc};

use redb::ReadableTable;

use super::{
    Archive as _, Error, Store,
    database::{DOCUMENTS, OUTBOX},
};
use crate::incident::Incident;

/// Above every ID.
const LAST: &str = "~";

/// Waits until a number that tells consumers of something rises; for ever when it never will.
pub(crate) async fn risen(number: &mut tokio::sync::watch::Receiver<u64>) {
    if number.changed().await.is_err() {
        std::future::pending().await
    }
}

/// One consumer's queue.
#[derive(Clone)]
pub struct Outbox {
    store: Arc<Store>,
    consumer: String,
}

impl Outbox {
    /// That of `consumer`, one of those that the store was opened for.
    pub fn new(store: Arc<Store>, consumer: &str) -> Outbox {
        Outbox { store, consumer: consumer.to_owned() }
    }

    fn range(&self) -> RangeInclusive<(&str, &str)> {
        (self.consumer.as_str(), "")..=(self.consumer.as_str(), LAST)
    }

    /// The oldest that wait, at most `limit`, leaving out `skip` of them.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn pending(&self, skip: usize, limit: usize) -> Result<Vec<Arc<Incident>>, Error> {
        let ids: Vec<String> = self.store.read(|transaction| {
            let table = transaction.open_table(OUTBOX)?;
            let waiting = table.range::<(&str, &str)>(self.range())?.skip(skip).take(limit);
            waiting.map(|entry| Ok(entry?.0.value().1.to_owned())).collect()
        })?;
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

    /// Is it the first of its group?
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn is_first(&self, incident: &Incident) -> Result<bool, Error> {
        let group = self.store.group(&incident.fingerprint)?;
        Ok(group.is_some_and(|group| group.first_seen == incident.time))
    }

    /// These are sent.
    ///
    /// # Errors
    /// When the disk is full or broken: they will be sent again.
    pub fn done(&self, ids: &[&str]) -> Result<(), Error> {
        self.store.write(|transaction| {
            let mut table = transaction.open_table(OUTBOX)?;
            for id in ids {
                table.remove((self.consumer.as_str(), *id))?;
            }
            Ok(())
        })
    }

    /// How many wait.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn waiting(&self) -> Result<u64, Error> {
        self.store.read(|transaction| {
            let table = transaction.open_table(OUTBOX)?;
            Ok(table.range::<(&str, &str)>(self.range())?.count() as u64)
        })
    }

    /// Gives up the oldest beyond `max`; how many that were.
    ///
    /// # Errors
    /// When the disk is full or broken.
    pub fn trim(&self, max: u64) -> Result<u64, Error> {
        let over = self.waiting()?.saturating_sub(max);
        if over == 0 {
            return Ok(0);
        }
        let over = usize::try_from(over).unwrap_or(usize::MAX);
        let ids: Vec<String> = self.store.read(|transaction| {
            let table = transaction.open_table(OUTBOX)?;
            let oldest = table.range::<(&str, &str)>(self.range())?.take(over);
            oldest.map(|entry| Ok(entry?.0.value().1.to_owned())).collect()
        })?;
        self.done(&ids.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(ids.len() as u64)
    }
}

impl Store {
    /// Forgets what consumers had to send that are no longer there.
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

    /// Does anybody still have to send it?
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

    /// Is a document of that ID there?
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn has(&self, id: &str) -> Result<bool, Error> {
        self.read(|transaction| Ok(transaction.open_table(DOCUMENTS)?.get(id)?.is_some()))
    }
}

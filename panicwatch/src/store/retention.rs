//! Keeps the store within its limits: the oldest incidents are deleted, except those that an exporter has not
//! sent yet.

use std::collections::BTreeSet;

use jiff::Timestamp;
use redb::{ReadableTable, ReadableTableMetadata as _};

use super::{
    Archive as _, Error, Store,
    append::add,
    database::{BY_GROUP, BYTES, COUNT, DOCUMENTS, GROUPS, META, OUTBOX, SITES, TIMELINES, unpack},
};
use crate::{config, incident::Incident};

/// Maximum number of incidents deleted in one transaction, so that writers need not wait long.
const AT_ONCE: usize = 200;
/// Maximum number of groups; beyond it those least recently seen are deleted, a tenth of the maximum at once.
const MAX_GROUPS: usize = 20_000;
/// Maximum number of the oldest incidents examined to find some to delete.
const LOOKED_AT: usize = 2000;

impl Store {
    /// Returns the size in bytes and the number of the kept incidents.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn size(&self) -> Result<(u64, u64), Error> {
        Ok((self.sum(BYTES)?, self.sum(COUNT)?))
    }

    /// Deletes some of the incidents beyond the limits, and returns how many. Call it again until it returns
    /// 0.
    ///
    /// # Errors
    /// When the disk is full or broken.
    pub fn prune(&self, bounds: &config::Store, now: Timestamp) -> Result<usize, Error> {
        self.prune_groups(MAX_GROUPS)?;
        let (bytes, count) = self.size()?;
        let age = jiff::SignedDuration::try_from(bounds.max_age.0).unwrap_or(jiff::SignedDuration::MAX);
        let oldest = now.checked_sub(age).unwrap_or(Timestamp::MIN);
        // The oldest incident alone shows whether any is too old, without a write.
        let too_old = self.oldest()?.is_some_and(|time| time < oldest);
        if bytes <= bounds.max_bytes.0 && count <= bounds.max_count && !too_old {
            return Ok(0);
        }
        self.write(|transaction| {
            let mut documents = transaction.open_table(DOCUMENTS)?;
            let mut timelines = transaction.open_table(TIMELINES)?;
            let mut by_group = transaction.open_table(BY_GROUP)?;
            let mut meta = transaction.open_table(META)?;
            let outbox = transaction.open_table(OUTBOX)?;
            let (mut bytes, mut count) = (bytes, count);
            let mut going: Vec<(String, String, u64)> = Vec::new();
            for entry in documents.iter()?.take(LOOKED_AT) {
                let (id, document) = entry?;
                let incident: Incident = unpack(document.value())?;
                let is_old = incident.time.parse::<Timestamp>().is_ok_and(|time| time < oldest);
                let over = bytes > bounds.max_bytes.0 || count > bounds.max_count || is_old;
                if !over || going.len() >= AT_ONCE {
                    break;
                }
                if self.is_wanted(&outbox, id.value())? {
                    continue;
                }
                let timeline = timelines.get(id.value())?.map_or(0, |timeline| timeline.value().len());
                let size = (document.value().len() + timeline) as u64;
                (bytes, count) = (bytes.saturating_sub(size), count.saturating_sub(1));
                going.push((id.value().to_owned(), incident.fingerprint, size));
            }
            let mut freed = 0;
            for (id, fingerprint, size) in &going {
                documents.remove(id.as_str())?;
                timelines.remove(id.as_str())?;
                by_group.remove((fingerprint.as_str(), id.as_str()))?;
                freed += size;
            }
            take(&mut meta, BYTES, freed)?;
            take(&mut meta, COUNT, going.len() as u64)?;
            Ok(going.len())
        })
    }

    /// Deletes the least recently seen groups when there are more than `max`.
    fn prune_groups(&self, max: usize) -> Result<(), Error> {
        if self.read(|transaction| Ok(transaction.open_table(GROUPS)?.len()?))? <= max as u64 {
            return Ok(());
        }
        let groups = self.groups()?;
        let going: BTreeSet<&str> =
            groups.iter().skip(max - max / 10).map(|group| group.fingerprint.as_str()).collect();
        self.write(|transaction| {
            let mut table = transaction.open_table(GROUPS)?;
            for fingerprint in &going {
                table.remove(fingerprint)?;
            }
            let mut sites = transaction.open_table(SITES)?;
            sites.retain(|_, fingerprint| !going.contains(fingerprint))?;
            Ok(())
        })
    }

    fn oldest(&self) -> Result<Option<Timestamp>, Error> {
        self.read(|transaction| {
            let documents = transaction.open_table(DOCUMENTS)?;
            let Some((_, document)) = documents.first()? else { return Ok(None) };
            let incident: Incident = unpack(document.value())?;
            Ok(incident.time.parse().ok())
        })
    }
}

fn take(meta: &mut redb::Table<'_, &'static str, u64>, name: &str, less: u64) -> Result<(), redb::Error> {
    let before = meta.get(name)?.map_or(0, |value| value.value());
    meta.insert(name, 0)?;
    add(meta, name, before.saturating_sub(less))
}

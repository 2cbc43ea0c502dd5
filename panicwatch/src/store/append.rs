//! Writes incidents: the document, its group, the counters and the outboxes in one transaction.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    Batch, Counted, Error, Gap, Group, Packed, Standing, Store,
    database::{
        BY_GROUP, BYTES, COUNT, COUNTERS, DOCUMENTS, GAPS, GROUPS, META, OUTBOX, SITES, TIMELINES, json,
        of_json, pack,
    },
    group,
};
use crate::incident::Incident;

/// Maximum number of gaps to remember; beyond it the oldest are deleted.
const MAX_GAPS: usize = 1000;
/// Key in the table `meta`: ID of the batch that was written last.
const LAST_BATCH: &str = "batch";

impl Store {
    /// Writes `batch` and returns the IDs of the incidents that opened their group. A batch with the ID of
    /// the last written batch is ignored, and so is an incident that is already stored: a caller that does
    /// not know whether a write succeeded may repeat it.
    ///
    /// # Errors
    /// When the disk is full or broken; then nothing was written.
    pub fn append(&self, batch: &Batch) -> Result<Vec<String>, Error> {
        let now = format!("{:.9}", Timestamp::now());
        let fresh = self.write(|transaction| {
            if transaction
                .open_table(META)?
                .insert(LAST_BATCH, batch.id)?
                .is_some_and(|last| last.value() == batch.id)
            {
                return Ok(Vec::new());
            }
            let fresh = self.write_incidents(transaction, batch)?;
            let mut groups = transaction.open_table(GROUPS)?;
            let sites = transaction.open_table(SITES)?;
            for counted in &batch.counted {
                add_counted(&mut groups, &sites, counted, &now)?;
            }
            let mut counters = transaction.open_table(COUNTERS)?;
            for (name, more) in &batch.counters {
                let before = counters.get(name.as_str())?.map_or(0, |value| value.value());
                counters.insert(name.as_str(), before + more)?;
            }
            Ok(fresh)
        })?;
        let mut held = self.held();
        for (incident, _) in batch.incidents.iter().filter(|(_, kept)| *kept) {
            held.stored(&incident.id, &self.consumers);
        }
        Ok(fresh)
    }

    /// Returns, by consumer, the number of its unsent incidents that exist only in this process's memory.
    /// Consumers without any are left out.
    pub fn unsent_in_memory(&self) -> Vec<(String, u64)> {
        let held = self.held();
        let unsent = |consumer: &String| (consumer.clone(), held.waiting(consumer).count() as u64);
        self.consumers.iter().map(unsent).filter(|(_, n)| *n > 0).collect()
    }

    /// Reports whether `consumer` has sent an incident that is not stored yet.
    pub fn was_sent(&self, consumer: &str, id: &str) -> bool {
        !self.held().is_wanted(consumer, id)
    }

    /// Keeps an incident in memory, so that exporters can send it and the API can show it, until a batch with
    /// it is stored. `is_kept`: that batch will keep its document.
    pub fn hold(&self, id: &str, document: Arc<Packed>, is_kept: bool, standing: Option<Standing>) {
        self.held().add(id, document, is_kept, standing, &self.consumers);
    }

    /// Removes the outbox entries of deliveries that could not be recorded while the disk failed.
    ///
    /// # Errors
    /// When the disk still fails.
    pub fn note_deliveries(&self) -> Result<(), Error> {
        let unnoted = self.held().unnoted();
        if unnoted.is_empty() {
            return Ok(());
        }
        self.write(|transaction| {
            let mut table = transaction.open_table(OUTBOX)?;
            for (consumer, id) in &unnoted {
                table.remove((consumer.as_str(), id.as_str()))?;
            }
            Ok(())
        })?;
        self.held().noted(&unnoted);
        Ok(())
    }

    fn write_incidents(
        &self,
        transaction: &WriteTransaction,
        batch: &Batch,
    ) -> Result<Vec<String>, redb::Error> {
        let mut documents = transaction.open_table(DOCUMENTS)?;
        let mut timelines = transaction.open_table(TIMELINES)?;
        let mut by_group = transaction.open_table(BY_GROUP)?;
        let mut groups = transaction.open_table(GROUPS)?;
        let mut outbox = transaction.open_table(OUTBOX)?;
        let mut meta = transaction.open_table(META)?;
        let mut sites = transaction.open_table(SITES)?;
        let (mut fresh, mut bytes, mut count) = (Vec::new(), 0, 0);
        let mut changed: BTreeMap<&str, Group> = BTreeMap::new();
        for (incident, kept) in &batch.incidents {
            let id = incident.id.as_str();
            if documents.get(id)?.is_some() {
                continue;
            }
            if !changed.contains_key(incident.fingerprint.as_str()) {
                let known = groups.get(incident.fingerprint.as_str())?;
                let group =
                    known.map(|group| of_json::<Group>(group.value())).transpose()?.unwrap_or_default();
                changed.insert(&incident.fingerprint, group);
            }
            if let Some(group) = changed.get_mut(incident.fingerprint.as_str()) {
                if group.count == 0 {
                    fresh.push(id.to_owned());
                }
                group.add(incident, *kept);
            }
            let place = group::place_key(incident);
            let group = incident.fingerprint.as_str();
            if sites.get(place)?.is_none_or(|last| last.value() != group) {
                sites.insert(place, group)?;
            }
            if !kept {
                continue;
            }
            let document = pack(&Incident { timeline: None, ..(**incident).clone() })?;
            bytes += document.len() as u64;
            documents.insert(id, document.as_slice())?;
            if let Some(timeline) = &incident.timeline {
                let timeline = pack(timeline)?;
                bytes += timeline.len() as u64;
                timelines.insert(id, timeline.as_slice())?;
            }
            by_group.insert((incident.fingerprint.as_str(), id), ())?;
            for consumer in self.consumers.iter().filter(|consumer| self.held().is_wanted(consumer, id)) {
                outbox.insert((consumer.as_str(), id), ())?;
            }
            count += 1;
        }
        for (fingerprint, group) in changed {
            groups.insert(fingerprint, json(&group)?.as_slice())?;
        }
        add(&mut meta, BYTES, bytes)?;
        add(&mut meta, COUNT, count)?;
        Ok(fresh)
    }

    /// Returns the counters that outlive the daemon, by name.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(COUNTERS)?;
            let all = table.iter()?;
            all.map(|entry| entry.map(|(name, n)| (name.value().to_owned(), n.value())).map_err(Into::into))
                .collect()
        })
    }

    /// Records a period in which no process was watched.
    ///
    /// # Errors
    /// When the disk is full or broken.
    pub fn gap(&self, gap: &Gap) -> Result<(), Error> {
        self.write(|transaction| {
            let mut gaps = transaction.open_table(GAPS)?;
            gaps.insert(gap.from.as_str(), json(gap)?.as_slice())?;
            while gaps.iter()?.count() > MAX_GAPS {
                gaps.pop_first()?;
            }
            Ok(())
        })
    }
}

/// Adds `more` to a number of the table `meta`.
pub(super) fn add(meta: &mut Table<'_, &'static str, u64>, name: &str, more: u64) -> Result<(), redb::Error> {
    let before = meta.get(name)?.map_or(0, |value| value.value());
    meta.insert(name, before + more)?;
    Ok(())
}

/// Adds counted panics to the group that was last seen in that binary and function, else to a group of their
/// own.
fn add_counted(
    groups: &mut Table<'_, &'static str, &'static [u8]>,
    sites: &Table<'_, (&'static str, &'static str), &'static str>,
    counted: &Counted,
    now: &str,
) -> Result<(), redb::Error> {
    let Counted { binary, function, count } = counted;
    let own = format!("counted:{binary}:{}", function.as_deref().unwrap_or("?"));
    let place = (binary.as_str(), function.as_deref().unwrap_or_default());
    let seen = sites.get(place)?.map(|group| group.value().to_owned());
    let mut group = None;
    for fingerprint in seen.iter().chain([&own]) {
        if group.is_none() {
            group = groups.get(fingerprint.as_str())?.map(|group| of_json(group.value())).transpose()?;
        }
    }
    let mut group = group.unwrap_or_else(|| Group { fingerprint: own, ..Group::default() });
    group.add_counted(binary, function.as_deref(), *count, now);
    groups.insert(group.fingerprint.as_str(), json(&group)?.as_slice())?;
    Ok(())
}

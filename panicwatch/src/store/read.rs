//! Queries of the store.

use std::ops::Bound;

use jiff::Timestamp;
use redb::{ReadTransaction, ReadableTable};

use super::{
    Archive, Error, Gap, Group, Page, Query, Store,
    database::{BY_GROUP, DOCUMENTS, GAPS, GROUPS, META, TIMELINES, of_json, unpack},
};
use crate::incident::Incident;

/// Default and maximum number of incidents per page.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;
/// Maximum number of incidents examined for one page. If few of them match, the page is short, and `next`
/// continues from there.
const MAX_LOOKED_AT: usize = 5000;
/// Sorts after every ID.
const LAST: &str = "~";

impl Archive for Store {
    fn incident(&self, id: &str) -> Result<Option<Incident>, Error> {
        let held = self.held().document(id);
        if let Some(document) = held {
            return document.unpack().map(Some);
        }
        self.read(|transaction| {
            let Some(document) = transaction.open_table(DOCUMENTS)?.get(id)? else { return Ok(None) };
            let mut incident: Incident = unpack(document.value())?;
            if let Some(timeline) = transaction.open_table(TIMELINES)?.get(id)? {
                incident.timeline = Some(unpack(timeline.value())?);
            }
            Ok(Some(incident))
        })
    }

    fn incidents(&self, query: &Query) -> Result<Page, Error> {
        let filter = Filter::new(query)?;
        let limit = query.limit.unwrap_or(LIMIT).clamp(1, MAX_LIMIT);
        let before = query.before.as_deref().unwrap_or(LAST);
        self.read(|transaction| {
            let documents = transaction.open_table(DOCUMENTS)?;
            let mut page = Page::default();
            let mut looked_at = 0;
            for id in ids(transaction, query.fingerprint.as_deref(), before)? {
                let id = id?;
                looked_at += 1;
                if let Some(document) = documents.get(id.as_str())? {
                    let incident: Incident = unpack(document.value())?;
                    if filter.is_past(&incident) {
                        return Ok(page);
                    }
                    if filter.fits(&incident) {
                        page.incidents.push(incident);
                    }
                }
                if page.incidents.len() >= limit || looked_at >= MAX_LOOKED_AT {
                    page.next = Some(id);
                    return Ok(page);
                }
            }
            Ok(page)
        })
    }

    fn groups(&self) -> Result<Vec<Group>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(GROUPS)?;
            let groups = table.iter()?.map(|entry| of_json(entry?.1.value()));
            let mut groups: Vec<Group> = groups.collect::<Result<_, redb::Error>>()?;
            groups.sort_by(|a, b| b.last_seen.cmp(&a.last_seen).then(a.fingerprint.cmp(&b.fingerprint)));
            Ok(groups)
        })
    }

    fn gaps(&self) -> Result<Vec<Gap>, Error> {
        self.read(|transaction| {
            let table = transaction.open_table(GAPS)?;
            table.iter()?.rev().map(|entry| of_json(entry?.1.value())).collect()
        })
    }
}

impl Store {
    /// Returns the group of that fingerprint.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn group(&self, fingerprint: &str) -> Result<Option<Group>, Error> {
        self.read(|transaction| {
            let group = transaction.open_table(GROUPS)?.get(fingerprint)?;
            group.map(|group| of_json(group.value())).transpose()
        })
    }

    /// Returns a number of the table `meta`.
    pub(super) fn sum(&self, name: &str) -> Result<u64, Error> {
        self.read(|transaction| Ok(transaction.open_table(META)?.get(name)?.map_or(0, |value| value.value())))
    }
}

type Ids<'a> = Box<dyn Iterator<Item = Result<String, redb::Error>> + 'a>;

/// Yields the IDs before `before`, newest first, of one group if `group` is given.
fn ids<'a>(
    transaction: &ReadTransaction,
    group: Option<&'a str>,
    before: &'a str,
) -> Result<Ids<'a>, redb::Error> {
    Ok(match group {
        Some(group) => {
            let table = transaction.open_table(BY_GROUP)?;
            let range = (Bound::Included((group, "")), Bound::Excluded((group, before)));
            let range = table.range::<(&str, &str)>(range)?;
            Box::new(range.rev().map(|entry| Ok(entry?.0.value().1.to_owned())))
        }
        None => {
            let table = transaction.open_table(DOCUMENTS)?;
            let range = table.range::<&str>(..before)?;
            Box::new(range.rev().map(|entry| Ok(entry?.0.value().to_owned())))
        }
    })
}

/// A query with parsed times and the text in lower case.
struct Filter<'a> {
    query: &'a Query,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    text: Option<String>,
}

impl<'a> Filter<'a> {
    fn new(query: &'a Query) -> Result<Filter<'a>, Error> {
        let time = |name: &str, text: &Option<String>| {
            let parse = |text: &String| {
                text.parse::<Timestamp>().map_err(|_| {
                    Error::Query(format!("{name} is not a time; write it as 2026-01-31T12:00:00Z"))
                })
            };
            text.as_ref().map(parse).transpose()
        };
        let (from, to) = (time("from", &query.from)?, time("to", &query.to)?);
        Ok(Filter { query, from, to, text: query.text.as_ref().map(|text| text.to_lowercase()) })
    }

    /// Reports whether this incident and all older ones are before the query's range. IDs start with the time
    /// in milliseconds.
    fn is_past(&self, incident: &Incident) -> bool {
        let slack = jiff::SignedDuration::from_secs(1);
        let time: Option<Timestamp> = incident.time.parse().ok();
        self.from.zip(time).is_some_and(|(from, time)| time + slack < from)
    }

    fn fits(&self, incident: &Incident) -> bool {
        let Query { pid, exe, kind, outcome, fingerprint, .. } = self.query;
        let time: Option<Timestamp> = incident.time.parse().ok();
        let after = |from: &Timestamp| time.is_some_and(|time| time >= *from);
        let before = |to: &Timestamp| time.is_some_and(|time| time < *to);
        let of_exe = |exe: &String| incident.process.exe.as_ref().is_some_and(|its| its.contains(exe));
        self.from.as_ref().is_none_or(after)
            && self.to.as_ref().is_none_or(before)
            && pid.is_none_or(|pid| pid == incident.process.pid)
            && kind.is_none_or(|kind| kind == incident.kind)
            && outcome.is_none_or(|outcome| outcome == incident.outcome)
            && fingerprint.as_ref().is_none_or(|fingerprint| *fingerprint == incident.fingerprint)
            && exe.as_ref().is_none_or(of_exe)
            && self.text.as_ref().is_none_or(|text| contains(incident, text))
    }
}

fn contains(incident: &Incident, text: &str) -> bool {
    let message = incident.message.iter().map(String::as_str);
    let types = incident.panics.iter().filter_map(|panic| panic.value.type_name.as_deref());
    let functions = incident.stack.iter().map(|frame| frame.function.as_str());
    message.chain(types).chain(functions).any(|part| part.to_lowercase().contains(text))
}

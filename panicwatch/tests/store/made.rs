//! Incidents and stores for the tests.

use std::{path::Path, sync::Arc};

use panicwatch::{
    incident::{Incident, Kind, Outcome},
    store::{Batch, Opened, Store},
};

/// Time of incident 0, in milliseconds since 1970.
pub(crate) const BEGIN: u64 = 1_767_225_600_000;

/// Returns incident number `n`: one second after the previous one, with a timeline for every third `n`, in
/// group `n % groups`.
pub(crate) fn incident(n: u64, groups: u64) -> Incident {
    let text = match n % 3 {
        0 => include_str!("../incidents/slow_read.json"),
        1 => include_str!("../incidents/recovered.json"),
        _ => include_str!("../incidents/nil_dereference.json"),
    };
    numbered(serde_json::from_str(text).expect("a document"), n, groups)
}

/// Turns `like` into incident number `n`.
pub(crate) fn numbered(mut like: Incident, n: u64, groups: u64) -> Incident {
    like.id = id(n);
    let time = jiff::Timestamp::from_millisecond((BEGIN + n * 1000) as i64).expect("a time");
    like.time = format!("{time:.9}");
    like.message = Some(format!("message {n}"));
    like.fingerprint = format!("{:016x}", n % groups);
    like.process.pid = 1000 + (n % 7) as u32;
    like.process.exe = Some(format!("/srv/shop/server-{}", n % 5));
    like.kind = [Kind::Panic, Kind::FatalError, Kind::Throw, Kind::Signal][(n % 4) as usize];
    like.outcome = [Outcome::Recovered, Outcome::Fatal, Outcome::Exited][(n % 3) as usize];
    like
}

/// Returns the ID of incident number `n`.
pub(crate) fn id(n: u64) -> String {
    ulid::Ulid::from_parts(BEGIN + n * 1000, u128::from(n)).to_string()
}

/// Returns a batch of the incidents `numbers`; its ID is the time of the first one, in milliseconds.
pub(crate) fn batch(numbers: impl IntoIterator<Item = u64>, groups: u64) -> Batch {
    let incidents: Vec<_> = numbers.into_iter().map(|n| (Arc::new(incident(n, groups)), true)).collect();
    let id = incidents
        .first()
        .map_or(0, |(incident, _)| incident.id.parse::<ulid::Ulid>().expect("one of ours").timestamp_ms());
    Batch { id, counters: vec![("all".to_owned(), incidents.len() as u64)], incidents, counted: Vec::new() }
}

/// Opens the store in `dir`, with an outbox for each of `consumers`.
pub(crate) fn open(dir: &Path, consumers: &[&str]) -> Opened {
    let consumers: Vec<String> = consumers.iter().map(|name| (*name).to_owned()).collect();
    Store::open(dir, &consumers).expect("a store")
}

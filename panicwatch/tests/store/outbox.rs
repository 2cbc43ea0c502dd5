//! The outbox of each consumer, and retention, which must not remove unsent incidents.

use std::sync::Arc;

use panicwatch::{
    config::{self, Bytes, Span},
    store::{Archive as _, Batch, Outbox, Standing, Store},
};

use crate::made::{batch, id, incident, numbered, open};

fn prune(store: &Store, bounds: &config::Store, now: u64) -> usize {
    let now = incident(now, 1).time.parse().expect("a time");
    let mut all = 0;
    loop {
        match store.prune(bounds, now).expect("pruned") {
            0 => return all,
            n => all += n,
        }
    }
}

#[test]
fn each_consumer_has_its_own() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path(), &["a", "b"]).store);
    store.append(&batch(0..30, 3)).expect("written");
    let (a, b) = (Outbox::new(store.clone(), "a"), Outbox::new(store.clone(), "b"));
    let pending = a.pending(0, 10).expect("read");
    assert_eq!(*pending[2], incident(2, 3), "the oldest first, whole");
    a.done(&[&id(0), &id(1), &id(1), "unknown"]).expect("written");
    assert_eq!(a.pending(1, 1).expect("read")[0].id, id(3));
    assert_eq!((a.waiting().expect("a number"), b.waiting().expect("a number")), (28, 30));
    assert_eq!(b.trim(20, |_| false).expect("written"), 10);
    assert_eq!(b.pending(0, 1).expect("read")[0].id, id(10));
    assert_eq!(b.trim(20, |_| false).expect("written"), 0);
    let standing = |n| a.standing(&incident(n, 3)).expect("read").expect("a group");
    assert_eq!(standing(2), Standing { count: 10, is_first: true });
    assert_eq!(standing(3), Standing { count: 10, is_first: false });
    drop((a, b, store));
    let opened = open(dir.path(), &["a"]);
    assert_eq!(opened.dropped, [("b".to_owned(), 20)], "nobody would ever send them");
    assert!(open_again(opened.store, dir.path()).dropped.is_empty());
}

fn open_again(store: Store, dir: &std::path::Path) -> panicwatch::store::Opened {
    drop(store);
    open(dir, &["a"])
}

#[test]
fn retention_keeps_what_waits() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path(), &["a"]).store);
    store.append(&batch(0..300, 3)).expect("written");
    let outbox = Outbox::new(store.clone(), "a");
    let bounds = config::Store { max_count: 100, ..config::Store::default() };
    assert_eq!(prune(&store, &bounds, 300), 0, "all wait");
    // One incident in the middle stays unsent.
    let sent: Vec<String> = (0..250).filter(|n| *n != 7).map(id).collect();
    outbox.done(&sent.iter().map(String::as_str).collect::<Vec<_>>()).expect("written");
    assert_eq!(prune(&store, &bounds, 300), 200);
    assert!(store.incident(&id(7)).expect("read").is_some());
    assert!(
        store.incident(&id(200)).expect("read").is_none()
            && store.incident(&id(201)).expect("read").is_some()
    );
    assert_eq!(
        store.group(&incident(0, 3).fingerprint).expect("read").expect("its group").count,
        100,
        "groups stay"
    );
}

#[test]
fn retention_by_age_and_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    store.append(&batch(0..100, 3)).expect("written");
    let (bytes, _) = store.size().expect("sizes");
    let by_age =
        config::Store { max_age: Span(std::time::Duration::from_secs(60)), ..config::Store::default() };
    assert_eq!(prune(&store, &by_age, 100), 40, "a second lies between two");
    let by_bytes = config::Store { max_bytes: Bytes(bytes / 4), ..config::Store::default() };
    assert!(prune(&store, &by_bytes, 100) > 0);
    let (left, count) = store.size().expect("sizes");
    assert!(left <= bytes / 4 && left > bytes / 8, "{left} of {bytes} bytes");
    assert!(store.incident(&id(100 - count)).expect("read").is_some(), "the newest stay");
    assert!(store.incident(&id(99 - count)).expect("read").is_none());
    let none = config::Store { max_count: 0, ..config::Store::default() };
    prune(&store, &none, 100);
    assert_eq!(store.size().expect("sizes"), (0, 0));
}

#[test]
fn groups_are_forgotten_beyond_twenty_thousand() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    let like = incident(1, 1);
    for start in (0..20_500).step_by(500) {
        let incidents =
            (start..start + 500).map(|n| (Arc::new(numbered(like.clone(), n, u64::MAX)), false)).collect();
        store.append(&Batch { id: start + 1, incidents, ..Batch::default() }).expect("written");
    }
    assert_eq!(store.groups().expect("groups").len(), 20_500);
    prune(&store, &config::Store::default(), 20_500);
    let groups = store.groups().expect("groups");
    assert_eq!(groups.len(), 18_000, "a tenth at once");
    assert_eq!(groups[17_999].first_seen, incident(2_500, 1).time, "those seen longest ago are gone");
}

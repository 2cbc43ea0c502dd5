//! Effects of a batch that is written once or twice.

use std::sync::Arc;

use panicwatch::store::{Archive as _, Batch, Counted, Error, Gap, Store};

use crate::made::{batch, id, incident, open};

#[test]
fn a_batch_written_twice_counts_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &["a"]).store;
    let first = batch(0..10, 3);
    assert_eq!(store.append(&first).expect("written"), [id(0), id(1), id(2)], "those that opened a group");
    assert!(store.append(&first).expect("written").is_empty());
    // As written by a restarted daemon that cannot know whether its predecessor wrote the incidents.
    let other = Batch { id: 7, counters: Vec::new(), ..first };
    assert!(store.append(&other).expect("written").is_empty());
    assert_eq!(store.size().expect("sizes").1, 10);
    assert_eq!(store.counters().expect("counters")["all"], 10);
    let counts: Vec<u64> = store.groups().expect("groups").iter().map(|group| group.count).collect();
    assert_eq!(counts.iter().sum::<u64>(), 10, "{counts:?}");
}

#[test]
fn what_was_written_is_what_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    store.append(&batch(0..9, 3)).expect("written");
    drop(store);
    let store = open(dir.path(), &[]).store;
    for n in 0..9 {
        assert_eq!(store.incident(&id(n)).expect("read"), Some(incident(n, 3)));
    }
    assert_eq!(store.incident("none").expect("read"), None);
}

#[test]
fn those_not_kept_count_in_their_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &["a"]).store;
    let incidents = (0..10).map(|n| (Arc::new(incident(n, 1)), n < 2)).collect();
    store.append(&Batch { id: 1, incidents, ..Batch::default() }).expect("written");
    let [group] = &store.groups().expect("groups")[..] else { panic!("one group") };
    assert_eq!((group.count, group.counted), (10, 8));
    assert_eq!(group.newest, Some(id(1)));
    assert_eq!(group.outcomes.values().sum::<u64>(), 10);
    assert_eq!(group.last_seen, incident(9, 1).time);
    assert_eq!(store.size().expect("sizes").1, 2);
}

#[test]
fn counted_panics_find_their_group() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    let known = incident(1, 1000);
    let function = known.panics[0].site.as_ref().expect("a site").function.clone();
    let counted = |function: &str, id: u64| Batch {
        id,
        counted: vec![Counted {
            binary: "server-1".to_owned(),
            function: Some(function.to_owned()),
            count: 1000,
        }],
        ..Batch::default()
    };
    store
        .append(&Batch { id: 1, incidents: vec![(Arc::new(known.clone()), true)], ..Batch::default() })
        .expect("written");
    store.append(&counted(&function, 2)).expect("written");
    let group = store.group(&known.fingerprint).expect("read").expect("its group");
    assert_eq!((group.count, group.counted, group.outcomes["counted"]), (1001, 1000, 1000));
    for id in [3, 4] {
        store.append(&counted("main.other", id)).expect("written");
    }
    let group = store.group("counted:server-1:main.other").expect("read").expect("a group of its own");
    assert_eq!((group.count, group.site.as_deref()), (2000, Some("main.other")));
}

#[test]
fn one_daemon_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let _store = open(dir.path(), &[]).store;
    match Store::open(dir.path(), &[]) {
        Err(Error::Disk { reason, .. }) => assert!(reason.contains("another panicwatch daemon"), "{reason}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn gaps_and_beats() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = open(dir.path(), &[]);
    assert_eq!(opened.last_beat, None);
    opened.store.beat().expect("written");
    for n in 0..1010 {
        let time = |n: u64| format!("2026-01-01T00:{:02}:{:02}Z", n / 60, n % 60);
        let gap = Gap { from: time(n), to: time(n + 1), reason: "it was stopped".to_owned() };
        opened.store.gap(&gap).expect("written");
    }
    drop(opened);
    let opened = open(dir.path(), &[]);
    assert!(opened.last_beat.is_some_and(|beat| beat > "2026-01-01T00:00:00Z".parse().expect("a time")));
    let gaps = opened.store.gaps().expect("gaps");
    assert_eq!((gaps.len(), gaps[0].from.as_str()), (1000, "2026-01-01T00:16:49Z"), "the newest of them");
}

//! Many incidents: how large the file grows, and that all queries still work.

use std::{env, sync::Arc, time::Instant};

use panicwatch::{
    config::{self, Bytes},
    incident::{Incident, Kind},
    store::{Archive as _, Batch, Query},
};

use crate::made::{BEGIN, batch, id, incident, numbered, open};

#[test]
fn the_file_stays_near_its_bound() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    let bounds = config::Store { max_bytes: Bytes(2 << 20), ..config::Store::default() };
    let (mut written, mut largest) = (0, 0);
    for start in (0..8000).step_by(50) {
        let before = store.size().expect("sizes").0;
        store.append(&batch(start..start + 50, 9)).expect("written");
        written += store.size().expect("sizes").0 - before;
        let now = incident(start, 1).time.parse().expect("a time");
        while store.prune(&bounds, now).expect("pruned") > 0 {}
        largest = largest.max(store.file_bytes());
    }
    let kept = store.size().expect("sizes");
    println!("{written} bytes were written, {kept:?} are kept, the file grew to {largest}");
    assert!(written > 5 * bounds.max_bytes.0, "too little to tell anything");
    assert!(kept.0 <= bounds.max_bytes.0);
    assert!(largest <= 4 * bounds.max_bytes.0, "{largest} bytes");
}

#[test]
fn many_incidents_of_many_groups() {
    let full = env::var("PANICWATCH_TEST_FULL").is_ok_and(|value| value == "1");
    let (incidents, groups) = if full { (100_000, 10_000) } else { (12_000, 1_200) };
    if !full {
        println!(
            "SKIPPED 100 000 incidents of 10 000 groups: {incidents} of {groups}; PANICWATCH_TEST_FULL=1 makes all"
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &["a"]).store;
    let mut like: Incident =
        serde_json::from_str(include_str!("../incidents/recovered.json")).expect("a document");
    let begin = Instant::now();
    for start in (0..incidents).step_by(500) {
        // Only the oldest incident has PID 1.
        let one = |n: u64| {
            like.process.args = Some(vec![n.to_string()]);
            let mut one = numbered(like.clone(), n, groups);
            one.process.pid = if n == 0 { 1 } else { 2 };
            (Arc::new(one), true)
        };
        let incidents = (start..start + 500).map(one).collect();
        store.append(&Batch { id: BEGIN + start, incidents, ..Batch::default() }).expect("written");
    }
    println!("{incidents} written in {:?}, {} bytes", begin.elapsed(), store.file_bytes());
    let timed = |what: &str, ask: &mut dyn FnMut()| {
        let begin = Instant::now();
        ask();
        println!("{what}: {:?}", begin.elapsed());
    };
    timed("groups", &mut || {
        let all = store.groups().expect("groups");
        assert_eq!(all.len() as u64, groups);
        assert!(all.iter().all(|group| group.count == incidents / groups && group.hours.len() <= 48));
    });
    let page = |query: Query| store.incidents(&query).expect("a page");
    timed("the newest page", &mut || {
        assert_eq!(page(Query::default()).incidents.len(), 100);
    });
    timed("a page of a group", &mut || {
        let fingerprint = Some(format!("{:016x}", 7));
        assert_eq!(
            page(Query { fingerprint, ..Query::default() }).incidents.len() as u64,
            incidents / groups
        );
    });
    timed("a page by kind", &mut || {
        assert_eq!(page(Query { kind: Some(Kind::Throw), ..Query::default() }).incidents.len(), 100);
    });
    let mut pages = 0;
    timed("one in all, the oldest", &mut || {
        let mut query = Query { pid: Some(1), ..Query::default() };
        loop {
            let page = page(query.clone());
            pages += 1;
            if let Some(found) = page.incidents.first() {
                assert_eq!(found.id, id(0));
                break;
            }
            query.before = Some(page.next.expect("it was not found yet"));
        }
    });
    assert!(pages > 1, "no page looks at everything");
    drop(store);
    timed("opening", &mut || drop(open(dir.path(), &["a"])));
}

//! A full disk.

use panicwatch::store::{Archive as _, Error, Store};

use crate::{
    made::{batch, id, incident, open},
    small::Small,
};

fn whole(store: &Store, n: u64) {
    for n in 0..n {
        assert_eq!(store.incident(&id(n)).expect("read"), Some(incident(n, 3)), "incident {n}");
    }
}

#[test]
fn a_full_disk_loses_nothing_and_heals() {
    let Some(small) = Small::new() else {
        return println!("SKIPPED: no right to mount a small file system");
    };
    let store = open(&small.path(), &["a"]).store;
    let mut next = 0;
    let error = loop {
        match store.append(&batch(next..next + 10, 3)) {
            Ok(_) => next += 10,
            Err(error) => break error,
        }
        assert!(next < 100_000, "the disk does not become full");
    };
    assert!(matches!(error, Error::Disk { .. }), "{error}");
    assert!(next > 0, "nothing fitted");
    println!("{next} incidents fitted: {error}");
    whole(&store, next);
    for _ in 0..3 {
        assert!(store.append(&batch(next..next + 10, 3)).is_err());
        whole(&store, next);
    }
    small.grow();
    store.append(&batch(next..next + 10, 3)).expect("there is room again");
    whole(&store, next + 10);
    assert_eq!(store.size().expect("sizes").1, next + 10, "each once");
    assert_eq!(store.counters().expect("counters")["all"], next + 10);
    drop(store);
    let opened = open(&small.path(), &["a"]);
    assert!(opened.damaged.is_none(), "{:?}", opened.damaged);
    whole(&opened.store, next + 10);
}

#[test]
fn retention_on_a_full_disk() {
    let Some(small) = Small::new() else {
        return println!("SKIPPED: no right to mount a small file system");
    };
    let store = open(&small.path(), &[]).store;
    let mut next = 0;
    while store.append(&batch(next..next + 10, 3)).is_ok() {
        next += 10;
    }
    let bounds = panicwatch::config::Store { max_count: next / 2, ..panicwatch::config::Store::default() };
    let now = incident(next, 3).time.parse().expect("a time");
    // Removing also needs free pages: it may fail, but not halfway.
    let gone = store.prune(&bounds, now).unwrap_or(0) as u64;
    assert_eq!(store.size().expect("sizes").1, next - gone);
    assert_eq!(store.incident(&id(gone)).expect("read"), Some(incident(gone, 3)));
    small.grow();
    while store.prune(&bounds, now).expect("there is room again") > 0 {}
    assert_eq!(store.size().expect("sizes").1, next / 2);
    store.append(&batch(next..next + 10, 3)).expect("written");
}

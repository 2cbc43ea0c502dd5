//! Store files that something else has changed.

use std::{fs, os::unix::fs::FileExt as _, path::Path};

use panicwatch::store::{Archive as _, Query, Store};

use crate::made::{batch, id, incident, open};

const FILE: &str = "incidents.redb";
const INCIDENTS: u64 = 40;

fn written(dir: &Path) -> Vec<u8> {
    let store = open(dir, &["a"]).store;
    for start in [0, 20] {
        store.append(&batch(start..start + 20, 4)).expect("written");
    }
    drop(store);
    fs::read(dir.join(FILE)).expect("the file")
}

/// Opens a store whose file is `bytes` and reports whether it was found damaged: either all content is
/// intact, or the file is moved aside and a new one is created.
fn open_changed(bytes: &[u8], what: &str) -> bool {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join(FILE), bytes).expect("written");
    let opened = open(dir.path(), &["a"]);
    let store = opened.store;
    let damaged = match &opened.damaged {
        Some((aside, reason)) => {
            assert!(!reason.is_empty());
            assert!(aside.metadata().expect("it is kept").len() > 0);
            assert_eq!(store.size().expect("sizes"), (0, 0), "{what}");
            true
        }
        None => {
            for n in 0..INCIDENTS {
                assert_eq!(
                    store.incident(&id(n)).expect("read"),
                    Some(incident(n, 4)),
                    "{what}: incident {n}"
                );
            }
            assert_eq!(store.groups().expect("groups").len(), 4, "{what}");
            false
        }
    };
    store.append(&batch(100..110, 4)).expect("it takes incidents");
    assert_eq!(store.incident(&id(105)).expect("read"), Some(incident(105, 4)));
    damaged
}

/// Writes the version of the format into the file.
fn set_format(dir: &Path, format: u64) {
    const META: redb::TableDefinition<'static, &str, u64> = redb::TableDefinition::new("meta");
    let database = redb::Database::open(dir.join(FILE)).expect("the file");
    let transaction = database.begin_write().expect("a transaction");
    transaction.open_table(META).expect("the table").insert("format", format).expect("inserted");
    transaction.commit().expect("committed");
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().expect("a directory");
    written(dir.path());
    set_format(dir.path(), 2);
    for _ in 0..2 {
        let refused = Store::open(dir.path(), &["a".to_owned()]).err().expect("refused").to_string();
        assert!(
            refused.contains("cannot be opened: a newer panicwatch has written it in format 2"),
            "{refused}"
        );
        let files =
            fs::read_dir(dir.path()).expect("the directory").map(|entry| entry.expect("one").file_name());
        assert_eq!(files.collect::<Vec<_>>(), [FILE], "nothing was moved");
    }
    set_format(dir.path(), 1);
    let store = open(dir.path(), &["a"]).store;
    for n in 0..INCIDENTS {
        assert_eq!(store.incident(&id(n)).expect("read"), Some(incident(n, 4)), "incident {n}");
    }
}

#[test]
fn changed_bytes_are_noticed_or_do_not_matter() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = written(dir.path());
    assert!(!open_changed(&whole, "unchanged"));
    let mut noticed = 0;
    // Flips bits all over the file, and more densely at its beginning, which holds the database's own
    // structure.
    let step = whole.len() / 100;
    let places = (0..320).step_by(8).chain((0..100).map(|n| n * step + n * 37 % step));
    for place in places.filter(|place| *place < whole.len()) {
        let mut changed = whole.clone();
        changed[place] ^= 1 << (place % 8);
        noticed += u32::from(open_changed(&changed, &format!("bit {} of byte {place}", place % 8)));
    }
    println!("{noticed} of the changes were noticed; the others were in unused pages");
    assert!(noticed > 5);
}

#[test]
fn short_and_strange_files_are_put_aside() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = written(dir.path());
    for part in [1, 100, 4096, 5000, whole.len() / 3, whole.len() / 2, whole.len() - 4096, whole.len() - 1] {
        assert!(open_changed(&whole[..part], &format!("{part} bytes of it")));
    }
    assert!(open_changed(b"#!/bin/sh\necho no database\n", "a script"));
    assert!(open_changed(&vec![0; 1 << 20], "zeros"));
    assert!(open_changed(&vec![0xff; 1 << 20], "ones"));
}

#[test]
fn damage_under_an_open_store_is_put_aside_too() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    for start in (0..2000).step_by(100) {
        store.append(&batch(start..start + 100, 4)).expect("written");
    }
    let path = dir.path().join(FILE);
    let file = fs::OpenOptions::new().write(true).open(&path).expect("the file");
    let garbage: Vec<u8> = (0..1 << 20).map(|n: u32| (n.wrapping_mul(7919) >> 3) as u8).collect();
    let length = file.metadata().expect("a size").len();
    for at in (4096..length).step_by(garbage.len()) {
        file.write_all_at(&garbage, at).expect("written");
    }
    // Reads may return anything, but nothing may panic.
    let _ = store.groups();
    let _ = store.incidents(&Query::default());
    let _ = store.incident(&id(0));
    let mut tries = 0;
    while let Err(error) = store.append(&batch(5000..5010, 4)) {
        tries += 1;
        assert!(tries < 5, "{error}");
    }
    assert_eq!(store.incident(&id(5005)).expect("read"), Some(incident(5005, 4)));
    let names: Vec<String> = fs::read_dir(dir.path())
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("incidents.redb.damaged-")), "{names:?}");
}

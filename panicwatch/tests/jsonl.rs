//! JSON lines: each incident once and complete, whatever happens to the daemon, the file and the disk.

#[path = "store/made.rs"]
mod made;

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use panicwatch::{
    config::{self, Bytes},
    incident::Incident,
    jsonl::{self, JsonLines, Signals},
    metrics::Metrics,
    store::Outbox,
};
use tokio::sync::watch;

use made::{batch, id, incident, open};

fn config(dir: &Path) -> config::Jsonl {
    config::Jsonl { path: dir.join("lines").to_str().expect("a path").to_owned(), ..config::Jsonl::default() }
}

fn some(numbers: std::ops::Range<u64>) -> Vec<Arc<Incident>> {
    numbers.map(|n| Arc::new(incident(n, 3))).collect()
}

fn lines(path: impl AsRef<Path>) -> Vec<Incident> {
    let text = fs::read_to_string(path).expect("the file");
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line");
    text.lines().map(|line| serde_json::from_str(line).expect("a whole incident")).collect()
}

fn ids(path: impl AsRef<Path>) -> Vec<String> {
    lines(path).into_iter().map(|incident| incident.id).collect()
}

fn numbered(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(id).collect()
}

#[test]
fn a_line_an_incident() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let mut sink = JsonLines::open(&config).expect("a sink");
    assert_eq!(sink.write(&some(0..5)).expect("written"), 5);
    assert_eq!(sink.write(&some(3..7)).expect("written"), 4, "two of them are there");
    let written = lines(&config.path);
    assert_eq!(written, (0..7).map(|n| incident(n, 3)).collect::<Vec<_>>());
    let mut without = JsonLines::open(&config::Jsonl { timeline: false, ..config.clone() }).expect("a sink");
    without.write(&some(9..10)).expect("written");
    let last = lines(&config.path).pop().expect("a line");
    assert!(incident(9, 3).timeline.is_some() && last.timeline.is_none());
    assert!(last.missing.iter().any(|missing| missing.what == "timeline"), "and it says so");
}

#[test]
fn after_any_cut_nothing_is_torn_or_doubled() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    JsonLines::open(&config).expect("a sink").write(&some(0..6)).expect("written");
    let whole = fs::read(&config.path).expect("the file");
    let ends = whole.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let near_ends = ends.flat_map(|end| [end - 1, end, end + 1]).chain([0, 1, 2]);
    for cut in near_ends.chain((0..whole.len()).step_by(997)).filter(|cut| *cut <= whole.len()) {
        fs::write(&config.path, &whole[..cut]).expect("written");
        // The daemon was killed before it marked any incident as sent: all are delivered again.
        let mut sink = JsonLines::open(&config).expect("a sink");
        assert_eq!(sink.write(&some(0..6)).expect("written"), 6);
        assert_eq!(ids(&config.path), numbered(0..6), "cut at {cut}");
    }
}

#[test]
fn what_others_wrote_stays() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    fs::write(&config.path, b"no JSON\n\xff\xfe\n{\"id\": 7}\n").expect("written");
    JsonLines::open(&config).expect("a sink").write(&some(0..1)).expect("written");
    let bytes = fs::read(&config.path).expect("the file");
    assert!(bytes.starts_with(b"no JSON\n\xff\xfe\n{\"id\": 7}\n{\"schema\""));
}

#[test]
fn rotation() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config::Jsonl { max_bytes: Bytes(40_000), keep: 3, timeline: false, ..config(dir.path()) };
    let path = |n: u64| match n {
        0 => config.path.clone(),
        n => format!("{}.{n}", config.path),
    };
    let mut sink = JsonLines::open(&config).expect("a sink");
    let all = some(0..100);
    let mut at = 0;
    while at < all.len() {
        // Opens the file as a new daemon does whose predecessor was killed before marking incidents as sent.
        if at % 3 == 0 {
            sink = JsonLines::open(&config).expect("a sink");
        }
        let upto = (at + 8).min(all.len());
        let written = sink.write(&all[at..upto]).expect("written");
        assert!(written > 0);
        let mut again = JsonLines::open(&config).expect("a sink");
        assert_eq!(again.write(&all[at..at + written]).expect("written"), written, "doubled");
        at += written;
    }
    assert!(!Path::new(&path(4)).exists());
    let mut kept = Vec::new();
    for n in (0..4).rev() {
        assert!(fs::metadata(path(n)).expect("a file").len() <= 40_000);
        kept.extend(ids(path(n)));
    }
    let first = 100 - kept.len() as u64;
    assert!(first > 0, "the oldest file is gone");
    assert_eq!(kept, numbered(first..100), "in order, each once");
}

#[test]
fn a_file_that_was_moved_is_begun_anew_when_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = config(dir.path());
    let mut sink = JsonLines::open(&config).expect("a sink");
    sink.write(&some(0..2)).expect("written");
    let moved = dir.path().join("moved");
    fs::rename(&config.path, &moved).expect("moved");
    sink.write(&some(2..3)).expect("written");
    sink.reopen().expect("opened");
    sink.write(&some(1..5)).expect("written");
    assert_eq!((ids(moved), ids(&config.path)), (numbered(0..3), numbered(3..5)));
}

#[test]
fn a_full_disk_leaves_no_half_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let mount = |options: &[&str]| {
        Command::new("mount").args(options).arg(dir.path()).status().is_ok_and(|status| status.success())
    };
    if !mount(&["-t", "tmpfs", "-o", "size=200k", "none"]) {
        return println!("SKIPPED: no right to mount a small file system");
    }
    let config = config(dir.path());
    let mut sink = JsonLines::open(&config).expect("a sink");
    let mut next = 0;
    while sink.write(&some(next..next + 3)).is_ok() {
        next += 3;
    }
    let full = ids(&config.path);
    assert!(mount(&["-o", "remount,size=4m"]));
    sink.write(&some(next..next + 3)).expect("there is room again");
    let healed = ids(&config.path);
    drop(sink);
    let _ = Command::new("umount").arg(dir.path()).status();
    assert!(next > 0);
    assert_eq!((full, healed), (numbered(0..next), numbered(0..next + 3)));
}

#[test]
fn the_task_writes_what_waits_and_ends_when_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(dir.path(), &["jsonl"]).store);
    let config = config(dir.path());
    store.append(&batch(0..40, 3)).expect("written");
    let metrics = Metrics::new(&config::Metrics::default(), &Default::default()).expect("metrics");
    let (stored, of_task) = watch::channel(0);
    let (reopen, moved) = watch::channel(0);
    let (stop, stopping) = watch::channel(false);
    let signals = Signals { stored: of_task, reopen: moved, stop: stopping };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let outbox = Outbox::new(store.clone(), "jsonl");
    let sink = metrics.sink("jsonl");
    runtime.block_on(async {
        let task = tokio::spawn(jsonl::run(outbox.clone(), config.clone(), sink, signals));
        let written = async |n: u64| {
            for _ in 0..3000 {
                // A line may be incomplete while it is being written.
                let text = fs::read(&config.path).unwrap_or_default();
                if text.iter().filter(|byte| **byte == b'\n').count() as u64 >= n {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("not {n} lines");
        };
        written(40).await;
        store.append(&batch(40..50, 3)).expect("written");
        stored.send_modify(|n| *n += 1);
        written(50).await;
        fs::rename(&config.path, dir.path().join("moved")).expect("moved");
        reopen.send_modify(|n| *n += 1);
        store.append(&batch(50..60, 3)).expect("written");
        stop.send(true).expect("it listens");
        task.await.expect("it ended");
    });
    assert_eq!(ids(&config.path), numbered(50..60));
    assert_eq!(outbox.waiting().expect("a number"), 0);
    let text = metrics.render();
    assert!(text.contains("panicwatch_export_sent_total{sink=\"jsonl\"} 60"), "{text}");
}

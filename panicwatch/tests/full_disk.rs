//! The store's disk is full: metrics, hooks, and JSON lines on another disk keep working, and the store
//! catches up later.

#[path = "store/made.rs"]
mod made;
#[path = "store/small.rs"]
mod small;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use panicwatch::{
    config::{self, Jsonl, Span},
    daemon::keeper::Keeper,
    hook::{self, Hook},
    incident::Incident,
    jsonl,
    metrics::Metrics,
    status::feed,
    store::{Archive as _, Outbox, Store},
};
use tokio::{runtime, sync::watch};

use made::{batch, id, incident, open};
use small::Small;

const JSONL: &str = "jsonl";
const HOOK: &str = "hook:h";

/// A store on a full disk and the parts of a daemon around it.
struct Bench {
    small: Small,
    other: tempfile::TempDir,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    keeper: Keeper,
    stop: watch::Sender<bool>,
    reopen: watch::Sender<u64>,
    exporters: Option<thread::JoinHandle<()>>,
    /// Number of the first incident not delivered before the disk was full, and of the first incident not
    /// stored.
    first: u64,
    stored: u64,
}

impl Bench {
    /// Fills the disk and starts the parts; returns `None` without the right to mount.
    fn new() -> Option<Bench> {
        let small = Small::new()?;
        let other = tempfile::tempdir().expect("another disk");
        let store = Arc::new(open(&small.path(), &[JSONL, HOOK]).store);
        let (mut stored, mut first) = (0, 0);
        while store.append(&batch(stored..stored + 10, 3)).is_ok() {
            stored += 10;
            // All but the newest incidents are delivered.
            let delivered: Vec<String> = (first..stored.max(20) - 20).map(id).collect();
            let delivered: Vec<&str> = delivered.iter().map(String::as_str).collect();
            first += delivered.len() as u64;
            for consumer in [JSONL, HOOK] {
                Outbox::new(store.clone(), consumer).done(&delivered).expect("noted");
            }
        }
        // Fills the disk until not even a single incident fits.
        while store.append(&batch([stored], 3)).is_ok() {
            stored += 1;
        }
        let metrics = Metrics::new(&config::Metrics::default(), &BTreeMap::new()).expect("metrics");
        let metrics = Arc::new(metrics);
        let feed = feed::Feed::new(feed::BACKLOG);
        // The incidents of the test are old and must not expire.
        let max_age = Span(Duration::from_secs(100 * 365 * 86_400));
        let bounds = config::Store { max_age, ..config::Store::default() };
        let keeper = Keeper::start(store.clone(), metrics.clone(), feed, bounds);
        let keeper = keeper.expect("a thread");
        let (stop, reopen, exporters) = (watch::Sender::new(false), watch::Sender::new(0), None);
        let mut bench =
            Bench { small, other, store, metrics, keeper, stop, reopen, exporters, first, stored };
        bench.export();
        Some(bench)
    }

    fn export(&mut self) {
        let signals = jsonl::Signals {
            stored: self.keeper.stored(),
            reopen: self.reopen.subscribe(),
            stop: self.stop.subscribe(),
        };
        let path = self.file("lines").display().to_string();
        let config = Jsonl { path, ..Jsonl::default() };
        let outbox = |consumer| Outbox::new(self.store.clone(), consumer);
        let lines = jsonl::run(outbox(JSONL), config, self.metrics.sink(JSONL), signals);
        let command =
            format!("echo $PANICWATCH_ID $PANICWATCH_GROUP_COUNT >> {}", self.file("called").display());
        let config = config::Hook {
            name: "h".to_owned(),
            command: vec!["/bin/sh".to_owned(), "-c".to_owned(), command],
            timeout: Span(Duration::from_secs(60)),
            ..config::Hook::default()
        };
        let hook = Hook::new(&config).expect("a hook");
        let (stored, stop) = (self.keeper.stored(), self.stop.subscribe());
        let calls = hook::run(outbox(HOOK), hook, self.metrics.sink(HOOK), stored, stop);
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let both = async { tokio::join!(lines, calls) };
        self.exporters = Some(thread::spawn(move || {
            runtime.block_on(both);
        }));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.other.path().join(name)
    }

    /// Passes the incidents `from..to` to the store writer.
    fn happen(&self, from: u64, to: u64) {
        for n in from..to {
            self.keeper.incident(incident(n, 3));
        }
    }

    /// Returns the IDs in the JSON lines.
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.file("lines")).unwrap_or_default();
        let ids = text.lines().filter_map(|line| line.split("\"id\":\"").nth(1)?.split('"').next());
        ids.map(str::to_owned).collect()
    }

    /// Returns the IDs that the hook was called with, each with the count of its group.
    fn called(&self) -> Vec<(String, u64)> {
        let text = fs::read_to_string(self.file("called")).unwrap_or_default();
        let split = |line: &str| line.split_once(' ').map(|(id, n)| (id.to_owned(), n.parse().unwrap_or(0)));
        text.lines().filter_map(split).collect()
    }

    /// Waits until JSON lines and hook have received all incidents before `n`.
    fn until_exported(&self, n: u64) {
        let all: BTreeSet<String> = (self.first..n).map(id).collect();
        until("all to be exported", || {
            let called: BTreeSet<String> = self.called().into_iter().map(|(id, _)| id).collect();
            self.lines().into_iter().collect::<BTreeSet<_>>() == all && called == all
        });
    }

    fn panics(&self) -> u64 {
        let text = self.metrics.render();
        let counts = text.lines().filter(|line| line.starts_with("panicwatch_panics_total{"));
        counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    fn end_exporters(&mut self) {
        self.stop.send_replace(true);
        if let Some(exporters) = self.exporters.take() {
            exporters.join().expect("they end");
        }
    }
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..6000 {
        if is_so() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: not within two minutes");
}

#[test]
fn counters_lines_and_hooks_go_on_and_the_store_catches_up() {
    let Some(mut bench) = Bench::new() else {
        return println!("SKIPPED: no right to mount a small file system");
    };
    let (before, all) = (bench.stored, bench.stored + 100);
    bench.happen(before, all);
    bench.until_exported(all);
    assert_eq!(bench.panics(), 100, "each is counted at once");
    assert!(bench.keeper.problem().is_some_and(|problem| problem.contains("cannot be written to")));
    assert_eq!((bench.keeper.waiting(), bench.keeper.lost()), (100, 0));
    assert!(bench.store.incident(&id(all - 1)).expect("read").is_some(), "the API has it");
    let of_last = bench.called().into_iter().find(|(called, _)| *called == id(all - 1)).expect("called");
    assert_eq!(of_last.1, (0..all).filter(|n| n % 3 == (all - 1) % 3).count() as u64, "its group's number");
    bench.small.grow();
    until("the store to catch up", || bench.keeper.waiting() == 0);
    until("the deliveries to be noted", || {
        bench.store.note_deliveries().expect("there is room");
        [JSONL, HOOK]
            .iter()
            .all(|name| Outbox::new(bench.store.clone(), name).waiting().expect("a number") == 0)
    });
    bench.end_exporters();
    assert!(bench.keeper.finish().is_empty() && bench.keeper.problem().is_none());
    assert_eq!(bench.store.size().expect("sizes").1, all, "each once");
    for n in 0..all {
        let stored = bench.store.incident(&id(n)).expect("read").expect("it is there");
        let whole = incident(n, 3);
        // The first 64 incidents wait in memory with their timelines, the others without.
        let expected = if n >= before + 64 { without_timeline(whole) } else { whole };
        assert_eq!(stored, expected, "incident {n}");
    }
    let counters = bench.store.counters().expect("counters");
    let panics: u64 = counters.iter().filter(|(name, _)| name.starts_with("panics:")).map(|(_, n)| n).sum();
    assert_eq!(panics, 100, "{counters:?}");
    let groups: u64 = bench.store.groups().expect("groups").iter().map(|group| group.count).sum();
    assert_eq!(groups, all);
    let delivered = (bench.lines().len() as u64, bench.called().len() as u64);
    assert_eq!(delivered, (all - bench.first, all - bench.first), "each is delivered once");
    // The next daemon has nothing left to deliver.
    let Bench { small, store, keeper, .. } = bench;
    drop((keeper, store));
    let again = Arc::new(open(&small.path(), &[JSONL, HOOK]).store);
    for consumer in [JSONL, HOOK] {
        assert_eq!(Outbox::new(again.clone(), consumer).waiting().expect("a number"), 0, "{consumer}");
    }
}

fn without_timeline(mut incident: Incident) -> Incident {
    if incident.timeline.take().is_some() {
        let reason =
            "it was dropped: the disk could not take incidents, and too many were waiting".to_owned();
        incident.missing.push(panicwatch::incident::Missing { what: "timeline".to_owned(), reason });
    }
    incident
}

#[test]
fn a_stop_names_what_it_loses_and_the_lines_have_it() {
    let Some(mut bench) = Bench::new() else {
        return println!("SKIPPED: no right to mount a small file system");
    };
    let (before, all) = (bench.stored, bench.stored + 70);
    bench.happen(before, all);
    let left = bench.keeper.finish();
    let ids: Vec<&str> = left.iter().map(|incident| incident.id.as_str()).collect();
    let expected: Vec<String> =
        (before..all).map(id).filter(|id| !bench.store.has(id).expect("read")).collect();
    assert_eq!(ids, expected, "exactly what is not stored");
    assert!(ids.len() >= 60, "{} were not stored", ids.len());
    bench.end_exporters();
    assert_eq!(bench.lines().into_iter().collect::<BTreeSet<_>>(), (bench.first..all).map(id).collect());
    assert!(expected.iter().all(|id| bench.store.was_sent(JSONL, id) && bench.store.was_sent(HOOK, id)));
    assert_eq!(bench.store.unsent_in_memory(), []);
}

//! The daemon's HTTP server with incidents in memory. Independent of browsers.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

use panicwatch::{
    config,
    http::{Site, server::Listeners},
    incident::Incident,
    status::{
        Binary, Board, Own, Probe, Process, Refused, Status,
        feed::{self, Feed, News},
    },
    store::{Archive, Error, Gap, Group, Page, Query},
};
use tokio::sync::{broadcast, watch};

/// An archive of incidents in memory, newest first.
#[derive(Default)]
pub(crate) struct Fake(Mutex<Vec<Incident>>);

impl Archive for Fake {
    fn incident(&self, id: &str) -> Result<Option<Incident>, Error> {
        Ok(self.0.lock().expect("no panic").iter().find(|incident| incident.id == id).cloned())
    }

    fn incidents(&self, query: &Query) -> Result<Page, Error> {
        let all = self.0.lock().expect("no panic");
        let fits = |incident: &&Incident| {
            query.before.as_ref().is_none_or(|before| incident.id < *before)
                && query.fingerprint.as_ref().is_none_or(|of| incident.fingerprint == *of)
                && query.kind.is_none_or(|kind| incident.kind == kind)
                && query.outcome.is_none_or(|outcome| incident.outcome == outcome)
                && query
                    .text
                    .as_ref()
                    .is_none_or(|t| incident.message.as_ref().is_some_and(|m| m.contains(t)))
        };
        let limit = query.limit.unwrap_or(100);
        let mut incidents: Vec<_> = all.iter().filter(fits).take(limit + 1).cloned().collect();
        let more = incidents.len() > limit;
        incidents.truncate(limit);
        incidents.iter_mut().for_each(|incident| incident.timeline = None);
        let next = incidents.last().filter(|_| more).map(|incident| incident.id.clone());
        Ok(Page { incidents, next })
    }

    fn groups(&self) -> Result<Vec<Group>, Error> {
        let mut groups: Vec<Group> = Vec::new();
        let hour = u64::try_from(jiff::Timestamp::now().as_second()).expect("after 1970") / 3600;
        for incident in self.0.lock().expect("no panic").iter() {
            let at = groups.iter().position(|group| group.fingerprint == incident.fingerprint);
            let group = match at {
                Some(at) => &mut groups[at],
                None => {
                    groups.push(of(incident, hour));
                    continue;
                }
            };
            group.count += 1;
            group.first_seen.clone_from(&incident.time);
            *group.outcomes.entry(incident.outcome.name().to_owned()).or_default() += 1;
        }
        // The same order as the store's.
        groups.sort_by(|a, b| b.last_seen.cmp(&a.last_seen).then(a.fingerprint.cmp(&b.fingerprint)));
        Ok(groups)
    }

    fn gaps(&self) -> Result<Vec<Gap>, Error> {
        let reason = "the daemon did not run".to_owned();
        Ok(vec![Gap { from: "2025-07-09T01:00:00Z".into(), to: "2025-07-09T02:00:00Z".into(), reason }])
    }
}

fn of(incident: &Incident, hour: u64) -> Group {
    Group {
        fingerprint: incident.fingerprint.clone(),
        title: panicwatch::title::title(incident),
        kind: Some(incident.kind),
        class: incident.panics.first().and_then(|panic| panic.value.type_name.clone()),
        site: incident.stack.first().map(|frame| frame.function.clone()),
        binaries: incident.process.binary_name().map(str::to_owned).into_iter().collect(),
        first_seen: incident.time.clone(),
        last_seen: incident.time.clone(),
        count: 1,
        counted: 0,
        outcomes: BTreeMap::from([(incident.outcome.name().to_owned(), 1)]),
        newest: Some(incident.id.clone()),
        hours: vec![(hour - 20, 3), (hour - 5, 9), (hour - 4, 2), (hour, 5)],
    }
}

/// A running server; dropping the value stops it.
pub(crate) struct Served {
    /// URL of the server.
    pub(crate) base: String,
    /// The site that the server serves.
    pub(crate) site: Arc<Site>,
    archive: Arc<Fake>,
    feed: Feed,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves these incidents, given oldest first.
    pub(crate) fn start(mut incidents: Vec<Incident>) -> Served {
        incidents.reverse();
        let archive = Arc::new(Fake(Mutex::new(incidents)));
        let (feed, _) = broadcast::channel(feed::BACKLOG);
        let (stop, stopped) = watch::channel(false);
        let board = Board::default();
        board.set(status());
        let site = Site::new(archive.clone(), board, feed.clone(), Box::new(String::new), stopped.clone());
        let site = Arc::new(site);
        let config = config::Http { listen: vec!["127.0.0.1:0".into()], ..config::Http::default() };
        let config = config::Http { unix_socket: String::new(), ..config };
        let listeners = Listeners::bind(&config).expect("a port");
        let base = format!("http://{}", listeners.addresses()[0]);
        let served = site.clone();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(listeners.serve(served, stopped)).expect("serves");
        });
        Served { base, site, archive, feed, stop, thread: Some(thread) }
    }

    /// Adds a new incident and publishes it to the live streams.
    pub(crate) fn happens(&self, incident: Incident) {
        self.archive.0.lock().expect("no panic").insert(0, incident.clone());
        // Fails without subscribers, which is fine.
        let _ = self.feed.send(News::Incident(Arc::new(incident)));
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ends in order");
        }
    }
}

/// Reads a sample document.
pub(crate) fn sample(name: &str) -> Incident {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/incidents/{name}.json"));
    serde_json::from_slice(&std::fs::read(path).expect("a sample")).expect("an incident")
}

/// Returns a copy of the incident with an ID of its own; a larger number is newer.
pub(crate) fn numbered(incident: &Incident, number: usize) -> Incident {
    Incident { id: format!("01JZQ4V7T3F6Y5K2M8{number:08}"), ..incident.clone() }
}

fn status() -> Status {
    let probe = |name: &str, symbol: &str| Probe {
        name: name.into(),
        symbol: symbol.into(),
        address: "0x46f1a0".into(),
        price: "emulated".into(),
    };
    let binary = Binary {
        row: 1,
        path: "/srv/shop/bin/shop".into(),
        go_version: Some("go1.24.11".into()),
        processes: 1,
        probes: vec![probe("panic", "runtime.gopanic"), probe("recover", "runtime.recovery")],
        refused: vec![Refused { symbol: "main.tiny".into(), reason: "it was inlined everywhere".into() }],
        hits_per_second: 12.5,
        overhead_percent: Some(0.04),
        ..Binary::default()
    };
    let watched = Process {
        pid: 4711,
        exe: Some("/srv/shop/bin/shop".into()),
        args: Some(vec!["shop".into(), "serve".into()]),
        binary: Some(1),
        watched: true,
        incidents: 3,
        ..Process::default()
    };
    let not = Process {
        pid: 99,
        exe: Some("/usr/bin/<b>other".into()),
        reason: Some("it is not selected".into()),
        ..Process::default()
    };
    Status {
        processes: vec![watched, not],
        binaries: vec![binary],
        ready: true,
        problems: Vec::new(),
        own: Own { memory_bytes: 42 << 20, overhead_percent: Some(0.31), ..Own::default() },
    }
}

//! Stores incidents, and tells of them once they are stored: metrics, listeners, exporters.
//!
//! A thread of its own, so that a slow disk holds up nobody. While the disk fails incidents wait in memory; when too many
//! wait their timelines go first, then all but what their group needs to count them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::feed::{self, Feed, News};
use crate::{
    config,
    incident::{Incident, Missing},
    metrics::Metrics,
    store::{Batch, Counted, Error, Gap, GroupRate, Packed, Store},
    vital,
};

/// Incidents that are written at once.
const BATCH: usize = 256;
/// Beyond so many that wait timelines are not kept.
const MANY: u64 = 64;
/// Beyond so many documents are not kept. Packed, each takes some 3 KB.
const TOO_MANY: u64 = 20_000;
/// Beyond so many they are lost, counted.
const NO_ROOM: u64 = 200_000;
/// Before the disk is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at the store's bounds.
const PRUNE: Duration = Duration::from_secs(30);

/// What it is given.
enum Job {
    Incident(Arc<Incident>, bool),
    /// One that is kept and waits with many others: it takes a tenth of the room.
    Packed(Packed),
    Counted(feed::Counted),
    Flush,
}

/// The keeper's handle.
pub struct Keeper {
    jobs: Mutex<Sender<Job>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What others may know.
struct Shared {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    feed: Feed,
    /// Rises with every batch that was stored: for exporters to look at their outboxes.
    stored: watch::Sender<u64>,
    waiting: AtomicU64,
    lost: AtomicU64,
    problem: Mutex<Option<String>>,
    /// What the disk does not take now is given up.
    ending: AtomicBool,
}

impl Keeper {
    /// Starts it.
    ///
    /// # Errors
    /// Without threads.
    pub fn start(
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        feed: Feed,
        bounds: config::Store,
    ) -> std::io::Result<Keeper> {
        let (jobs, inbox) = channel();
        let shared = Arc::new(Shared {
            store,
            metrics,
            feed,
            stored: watch::Sender::new(0),
            waiting: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            problem: Mutex::default(),
            ending: AtomicBool::new(false),
        });
        let of_thread = shared.clone();
        let thread = vital::spawn("keeper", move || Writer::new(of_thread, bounds).serve(&inbox))?;
        Ok(Keeper { jobs: Mutex::new(jobs), shared, thread: Mutex::new(Some(thread)) })
    }

    /// Takes an incident.
    pub fn incident(&self, mut incident: Incident) {
        let waiting = self.shared.waiting.load(Ordering::Relaxed);
        if waiting >= NO_ROOM {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if waiting >= MANY && incident.timeline.take().is_some() {
            let reason = "it was not kept: the disk did not take incidents, and too many waited".to_owned();
            incident.missing.push(Missing { what: "timeline".to_owned(), reason });
        }
        self.give(match waiting {
            ..MANY => Job::Incident(Arc::new(incident), true),
            MANY..TOO_MANY => match Packed::of(&incident) {
                Ok(packed) => Job::Packed(packed),
                Err(_) => Job::Incident(Arc::new(incident), true),
            },
            _ => Job::Incident(Arc::new(counted_only(incident)), false),
        });
    }

    /// Takes panics that were counted only.
    pub fn counted(&self, counted: feed::Counted) {
        self.give(Job::Counted(counted));
    }

    fn give(&self, job: Job) {
        self.shared.waiting.fetch_add(1, Ordering::Relaxed);
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.send(job).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Told whenever something was stored.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.shared.stored.subscribe()
    }

    /// Who listens to the feed.
    pub fn listeners(&self) -> u64 {
        self.shared.feed.receiver_count() as u64
    }

    /// Incidents that wait for the disk.
    pub fn waiting(&self) -> u64 {
        self.shared.waiting.load(Ordering::Relaxed)
    }

    /// Incidents that were lost because too many waited.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// What is wrong with the disk.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes what waits and ends; what the disk does not take in one try is lost. How many that were.
    pub fn finish(&self) -> u64 {
        self.shared.ending.store(true, Ordering::Relaxed);
        let _ = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(Job::Flush);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A thread that panicked has told so.
            let _ = thread.join();
        }
        self.waiting()
    }
}

/// No more than its group needs.
fn counted_only(incident: Incident) -> Incident {
    Incident { stack: Vec::new(), panics: Vec::new(), ancestry: Vec::new(), goroutine: None, ..incident }
}

/// The thread.
struct Writer {
    shared: Arc<Shared>,
    bounds: config::Store,
    rate: GroupRate,
    pruned: Instant,
    /// Of the next batch.
    batch: u64,
}

impl Writer {
    fn new(shared: Arc<Shared>, bounds: config::Store) -> Writer {
        let rate = GroupRate::new(bounds.group_rate);
        // Others than those of the daemon before.
        let batch = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(1);
        Writer { shared, bounds, rate, pruned: Instant::now(), batch }
    }

    fn serve(mut self, inbox: &Receiver<Job>) {
        loop {
            let first = match inbox.recv_timeout(PRUNE) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut jobs: Vec<Job> = first.into_iter().collect();
            jobs.extend(inbox.try_iter().take(BATCH));
            let last = jobs.iter().any(|job| matches!(job, Job::Flush));
            self.write(jobs);
            if last {
                return;
            }
            if self.pruned.elapsed() >= PRUNE {
                self.prune();
            }
        }
    }

    /// Writes until the disk takes it, or the end is asked for.
    fn write(&mut self, jobs: Vec<Job>) {
        let n = jobs.iter().filter(|job| !matches!(job, Job::Flush)).count() as u64;
        let (batch, counted) = self.batch(jobs);
        if n == 0 {
            return;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match self.shared.store.append(&batch) {
                Ok(_) => break,
                Err(error) => self.failed(&error),
            }
            if self.shared.ending.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
        }
        self.shared.waiting.fetch_sub(n, Ordering::Relaxed);
        self.worked();
        self.tell(batch, counted);
    }

    fn batch(&mut self, jobs: Vec<Job>) -> (Batch, Vec<feed::Counted>) {
        self.batch += 1;
        let (mut batch, mut told) = (Batch { id: self.batch, ..Batch::default() }, Vec::new());
        let now = Instant::now();
        for job in jobs {
            let job = match job {
                Job::Packed(packed) => match packed.unpack() {
                    Ok(incident) => Job::Incident(Arc::new(incident), true),
                    Err(error) => {
                        log::error!("an incident that waited for the disk is lost: {error}");
                        self.shared.lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                },
                job => job,
            };
            match job {
                Job::Incident(incident, whole) => {
                    let kept = whole && self.rate.keep(&incident.fingerprint, now);
                    batch.counters.push(self.shared.metrics.of_incident(&incident));
                    batch.incidents.push((incident, kept));
                }
                Job::Counted(counted) => {
                    let feed::Counted { binary, function, count, .. } = counted.clone();
                    let of_store = Counted { binary, function, count };
                    batch.counters.push(self.shared.metrics.of_counted(&of_store));
                    batch.counted.push(of_store);
                    told.push(counted);
                }
                Job::Packed(_) | Job::Flush => {}
            }
        }
        (batch, told)
    }

    fn tell(&self, batch: Batch, counted: Vec<feed::Counted>) {
        let Shared { metrics, feed, stored, .. } = &*self.shared;
        metrics.add(&batch.counters);
        for (incident, kept) in batch.incidents {
            metrics.observe(&incident);
            if kept {
                // Nobody may be listening.
                let _ = feed.send(News::Incident(incident));
            }
        }
        for counted in counted {
            let _ = feed.send(News::Counted(Arc::new(counted)));
        }
        stored.send_modify(|n| *n += 1);
    }

    fn failed(&self, error: &Error) {
        let mut problem = self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let sentence = error.to_string();
        if problem.as_ref() != Some(&sentence) {
            log::error!("{sentence}; incidents wait in memory until it takes them");
            *problem = Some(sentence);
        }
    }

    fn worked(&self) {
        if self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            log::info!("the incident store takes incidents again");
        }
    }

    fn prune(&mut self) {
        self.pruned = Instant::now();
        loop {
            match self.shared.store.prune(&self.bounds, Timestamp::now()) {
                Ok(0) => break,
                Ok(gone) => log::debug!("{gone} incidents beyond the store's bounds are gone"),
                Err(error) => {
                    self.failed(&error);
                    break;
                }
            }
        }
    }
}

/// Tells of a time in which nothing was watched.
pub fn tell_gap(store: &Store, metrics: &Metrics, feed: &Feed, gap: Gap) {
    let length = || {
        let (from, to): (Timestamp, Timestamp) = (gap.from.parse().ok()?, gap.to.parse().ok()?);
        Some(to.duration_since(from).as_secs_f64())
    };
    metrics.gap(length().unwrap_or(0.0));
    if let Err(error) = store.gap(&gap) {
        log::error!("{error}");
    }
    let _ = feed.send(News::Gap(Arc::new(gap)));
}

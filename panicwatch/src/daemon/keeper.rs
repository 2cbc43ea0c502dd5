//! The store writer: stores incidents, then passes them on to metrics, the live stream and the exporters.
//!
//! It runs on its own thread, so that a slow disk delays nothing else. While writing to the disk fails,
//! incidents wait in [`backlog`] and are passed on immediately: counted, streamed, and sent by exporters from
//! memory.

mod backlog;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    config,
    incident::{Incident, Missing},
    metrics::Metrics,
    status::feed::{self, Feed, News},
    store::{Batch, Counted, Error, Gap, GroupRate, Packed, Store},
    vital,
};
use backlog::{Backlog, MANY, NO_ROOM, TOO_MANY, counted_only};

/// Maximum number of incidents in one batch.
const BATCH: usize = 256;
/// First and longest pause between attempts to write after a failure. Each attempt reopens the store and
/// verifies all of it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(15);
/// Interval between checks of the store's limits.
const PRUNE: Duration = Duration::from_secs(30);

/// Input of the thread.
enum Job {
    /// An incident, and whether its document is kept.
    Incident(Arc<Incident>, bool),
    /// An incident that waits with many others: packed, it takes a tenth of the memory.
    Packed(Packed),
    Counted(feed::Counted),
    Flush,
}

/// The store writer's handle.
pub struct Keeper {
    jobs: Mutex<Sender<Job>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// State shared between the handle and the thread.
struct Shared {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    feed: Feed,
    /// Increases when exporters have something to send.
    stored: watch::Sender<u64>,
    /// Jobs that the thread has not received yet.
    queued: AtomicU64,
    /// Incidents that the disk has not accepted.
    unstored: AtomicU64,
    lost: AtomicU64,
    problem: Mutex<Option<String>>,
    /// Incidents that could not be stored before the thread ended.
    left: Mutex<Vec<Arc<Packed>>>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
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
            queued: AtomicU64::new(0),
            unstored: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            problem: Mutex::default(),
            left: Mutex::default(),
        });
        let of_thread = shared.clone();
        let thread = vital::spawn("keeper", move || Writer::new(of_thread, bounds).serve(&inbox))?;
        Ok(Keeper { jobs: Mutex::new(jobs), shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues an incident to be stored.
    pub fn incident(&self, mut incident: Incident) {
        let queued = self.shared.queued.load(Ordering::Relaxed);
        if queued >= NO_ROOM {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if queued >= MANY {
            drop_timeline(&mut incident);
        }
        self.give(match queued {
            ..MANY => Job::Incident(Arc::new(incident), true),
            MANY..TOO_MANY => match Packed::of(&incident) {
                Ok(packed) => Job::Packed(packed),
                Err(_) => Job::Incident(Arc::new(incident), true),
            },
            _ => Job::Incident(Arc::new(counted_only(incident)), false),
        });
    }

    /// Queues panics that were only counted.
    pub fn counted(&self, counted: feed::Counted) {
        self.give(Job::Counted(counted));
    }

    fn give(&self, job: Job) {
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.send(job).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns a receiver whose number increases when exporters have something to send.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.shared.stored.subscribe()
    }

    /// Returns the number of subscribers of the live stream.
    pub fn listeners(&self) -> u64 {
        self.shared.feed.receiver_count() as u64
    }

    /// Returns the number of incidents that wait to be stored.
    pub fn waiting(&self) -> u64 {
        self.shared.queued.load(Ordering::Relaxed) + self.shared.unstored.load(Ordering::Relaxed)
    }

    /// Returns the number of incidents that were not stored because too many waited.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// Returns the current problem of the disk, as a sentence.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the waiting incidents and stops the thread; returns the incidents that could not be stored in
    /// one attempt.
    pub fn finish(&self) -> Vec<Incident> {
        let _ = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(Job::Flush);
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic of the thread is already logged.
            let _ = thread.join();
        }
        let left = self.shared.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.iter().filter_map(|packed| packed.unpack().ok()).collect()
    }
}

fn drop_timeline(incident: &mut Incident) {
    if incident.timeline.take().is_some() {
        let reason =
            "it was dropped: the disk could not take incidents, and too many were waiting".to_owned();
        incident.missing.push(Missing { what: "timeline".to_owned(), reason });
    }
}

/// State of the thread.
struct Writer {
    shared: Arc<Shared>,
    bounds: config::Store,
    rate: GroupRate,
    pruned: Instant,
    backlog: Backlog,
    /// Time of the next attempt to write, and the pause after that attempt.
    retry: (Instant, Duration),
    /// ID of the last batch.
    batch: u64,
}

impl Writer {
    fn new(shared: Arc<Shared>, bounds: config::Store) -> Writer {
        let rate = GroupRate::new(bounds.group_rate);
        // Differs from the batch IDs of earlier daemons.
        let batch = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(1);
        let (now, backlog) = (Instant::now(), Backlog::default());
        Writer { shared, bounds, rate, pruned: now, backlog, retry: (now, FIRST_PAUSE), batch }
    }

    fn serve(mut self, inbox: &Receiver<Job>) {
        loop {
            let patience = match self.backlog.is_empty() {
                true => PRUNE,
                false => self.retry.0.saturating_duration_since(Instant::now()).min(PRUNE),
            };
            let first = match inbox.recv_timeout(patience) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut jobs: Vec<Job> = first.into_iter().collect();
            jobs.extend(inbox.try_iter().take(BATCH));
            let last = jobs.iter().any(|job| matches!(job, Job::Flush));
            self.take(jobs);
            if !self.backlog.is_empty() && (last || Instant::now() >= self.retry.0) {
                self.write_backlog();
            }
            if last {
                return self.leave();
            }
            if self.pruned.elapsed() >= PRUNE {
                self.prune();
            }
        }
    }

    /// Writes new jobs; while the disk fails, they wait in the backlog.
    fn take(&mut self, jobs: Vec<Job>) {
        let n = jobs.iter().filter(|job| !matches!(job, Job::Flush)).count() as u64;
        let (batch, counted) = self.batch(jobs);
        if n == 0 {
            return;
        }
        self.shared.queued.fetch_sub(n, Ordering::Relaxed);
        if self.backlog.is_empty() {
            match self.shared.store.append(&batch) {
                Ok(_) => {
                    self.worked();
                    return self.pass_on(batch, counted);
                }
                Err(error) => {
                    self.failed(&error);
                    self.retry = (Instant::now() + FIRST_PAUSE, FIRST_PAUSE * 2);
                }
            }
        }
        let lost = self.backlog.add(&batch, &self.shared.store);
        self.shared.lost.fetch_add(lost, Ordering::Relaxed);
        self.count_unstored();
        self.pass_on(batch, counted);
    }

    /// Writes the backlog, oldest first, until it is empty or the disk fails.
    fn write_backlog(&mut self) {
        while let Some((batch, unreadable)) = self.backlog.first() {
            match self.shared.store.append(&batch) {
                Ok(_) => {
                    self.shared.lost.fetch_add(unreadable, Ordering::Relaxed);
                    self.backlog.first_is_written();
                    self.count_unstored();
                    // Exporters learn from the store now which of these they have sent.
                    self.shared.stored.send_modify(|n| *n += 1);
                }
                Err(error) => {
                    self.failed(&error);
                    let (_, pause) = self.retry;
                    self.retry = (Instant::now() + pause, (pause * 2).min(LAST_PAUSE));
                    return;
                }
            }
        }
        self.worked();
    }

    fn count_unstored(&self) {
        self.shared.unstored.store(self.backlog.len(), Ordering::Relaxed);
    }

    /// Ends the thread: the store will lack the incidents that the disk has not accepted.
    fn leave(self) {
        *self.shared.left.lock().unwrap_or_else(PoisonError::into_inner) = self.backlog.into_documents();
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
                        log::error!("lost an incident that was waiting for the disk: {error}");
                        self.shared.lost.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                },
                job => job,
            };
            match job {
                Job::Incident(incident, whole) => {
                    let kept = whole && self.rate.keep(&incident.fingerprint, now);
                    batch.counters.extend(self.shared.metrics.of_incident(&incident));
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

    /// Passes a batch on to metrics, live stream and exporters.
    fn pass_on(&self, batch: Batch, counted: Vec<feed::Counted>) {
        let Shared { metrics, feed, stored, .. } = &*self.shared;
        metrics.add(&batch.counters);
        for (incident, kept) in batch.incidents {
            metrics.observe(&incident);
            if kept {
                // Fails if there is no subscriber, which is fine.
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
            log::error!(
                "{sentence}; incidents wait in memory until it works again; counters and exporters continue"
            );
            *problem = Some(sentence);
        }
    }

    fn worked(&self) {
        if self.shared.problem.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            log::info!("the incident store works again");
        }
    }

    fn prune(&mut self) {
        self.pruned = Instant::now();
        loop {
            match self.shared.store.prune(&self.bounds, Timestamp::now()) {
                Ok(0) => break,
                Ok(gone) => log::debug!("deleted {gone} incidents beyond the store's bounds"),
                Err(error) => return self.failed(&error),
            }
        }
        // Detects that the disk works again when no incident waits whose write would show it.
        if self.backlog.is_empty() {
            match self.shared.store.note_deliveries() {
                Ok(()) => self.worked(),
                Err(error) => self.failed(&error),
            }
        }
    }
}

/// Reports a period in which no process was watched to metrics, store and live stream.
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

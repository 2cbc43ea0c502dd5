//! Hooks: commands and webhooks that are called for matching incidents.
//!
//! This module handles the outbox, filters and retries; [`command`] and [`webhook`] make a single call. An
//! incident leaves the outbox once its call has succeeded or was given up, so after a crash the call is
//! repeated.

mod command;
mod notification;
mod slack;
mod webhook;

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::{Semaphore, watch},
    task::{JoinSet, spawn_blocking},
    time::Instant,
};

use crate::{
    config::{self, Selectors, select::Facts},
    incident::Incident,
    metrics,
    store::{self, Outbox, Standing, risen},
};
pub(crate) use command::search_path;
use notification::{Body, Notification};

/// Incidents read from the outbox at a time.
const BATCH: usize = 32;
/// Maximum number of waiting incidents; beyond it the oldest are dropped and counted.
const MAX_QUEUE: u64 = 10_000;
/// Maximum number of incidents that are being called for or wait for a retry; further ones wait for their
/// first call. So an incident that keeps failing does not block those behind it, and a dead server is not
/// called for thousands of incidents.
const MAX_RETRYING: usize = 32;
/// First and longest pause before a retry; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// Longest pause that a server can request.
const MAX_ASKED: Duration = Duration::from_secs(300);
/// Pause before the store is read again after a failure.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// A failed call.
#[derive(Debug)]
struct Failure {
    /// The reason, as a sentence without its beginning.
    reason: String,
    /// `None`: a retry is pointless. `Some`: a retry may succeed, after the pause that the other side
    /// requested, if any.
    again: Option<Option<Duration>>,
}

impl Failure {
    fn passing(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), again: Some(None) }
    }

    fn lasting(reason: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), again: None }
    }
}

/// A hook that is ready to be called.
pub struct Hook {
    config: config::Hook,
    processes: Selectors,
    client: Option<webhook::Client>,
    external_url: String,
}

impl Hook {
    /// Compiles the selectors and builds the HTTP client.
    ///
    /// # Errors
    /// A sentence about an invalid pattern, URL or header.
    pub fn new(config: &config::Hook) -> Result<Hook, String> {
        let processes = Selectors::compile(&config.processes).map_err(|problems| problems.join("; "))?;
        let client = if config.url.is_empty() {
            None
        } else {
            Some(webhook::Client::new(config).map_err(|e| e.to_string())?)
        };
        Ok(Hook { config: config.clone(), processes, client, external_url: String::new() })
    }

    /// Makes notifications link to incidents on the page at `external_url`; empty: no links.
    #[must_use]
    pub fn linking_to(self, external_url: &str) -> Hook {
        Hook { external_url: external_url.to_owned(), ..self }
    }

    /// Returns the name of the hook's outbox.
    pub fn consumer(config: &config::Hook) -> String {
        format!("hook:{}", config.name)
    }

    /// Reports whether the hook's filters match the incident, regardless of `first_seen`.
    fn fits(&self, incident: &Incident) -> bool {
        let config::Hook { kind, outcome, .. } = &self.config;
        (kind.is_empty() || kind.contains(&incident.kind))
            && (outcome.is_empty() || outcome.contains(&incident.outcome))
            && (self.processes.is_empty() || self.fits_process(incident))
    }

    fn fits_process(&self, incident: &Incident) -> bool {
        let process = &incident.process;
        let command = process.args.as_ref().map(|args| args.join(" "));
        let labels = [process.labels_of_container(), process.labels_of_pod()].into_iter().flatten();
        let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
        self.processes.matches(&Facts {
            exe: process.exe.as_deref(),
            command: command.as_deref(),
            module: process.module.as_deref(),
            container: process.in_container("id"),
            namespace: process.in_pod("namespace"),
            pod: process.in_pod("pod"),
            labels: &labels,
            ..Facts::default()
        })
    }

    async fn call(&self, incident: &Incident, notification: &Notification) -> Result<(), Failure> {
        match &self.client {
            Some(client) => client.post(&self.config, incident, notification).await,
            None => command::run(&self.config, incident, notification).await,
        }
    }
}

/// An incident to call the hook for.
struct Found {
    incident: Arc<Incident>,
    /// `None` when the group cannot be read.
    standing: Option<Standing>,
}

/// Result of the calls for an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    GivenUp,
    /// The daemon stops; the incident stays in the outbox for the next daemon.
    Left,
}

/// Calls the hook for the incidents in `outbox`, until it is stopped and each waiting incident had its call.
pub async fn run(
    outbox: Outbox,
    hook: Hook,
    sink: metrics::Sink,
    mut stored: watch::Receiver<u64>,
    mut stop: watch::Receiver<bool>,
) {
    let most = usize::try_from(hook.config.concurrency).unwrap_or(1).max(1);
    let mut runner = Runner {
        outbox,
        hook: Arc::new(hook),
        sink,
        stop: stop.clone(),
        calls: JoinSet::new(),
        at_once: Arc::new(Semaphore::new(most)),
        under_way: HashSet::new(),
        left: 0,
    };
    loop {
        // A closed channel also means stop: the daemon's side is gone.
        let stopping = *stop.borrow_and_update() || stop.has_changed().is_err();
        let failed = match runner.start().await {
            Ok(()) => false,
            Err(error) => {
                log::error!("hook {} cannot read its queue: {error}", runner.hook.config.name);
                true
            }
        };
        if stopping && (failed || runner.calls.is_empty()) {
            return;
        }
        tokio::select! {
            Some(ended) = runner.calls.join_next() => match ended {
                Ok((id, fate)) => runner.ended(&id, fate).await,
                Err(error) => return log::error!("hook {} stopped: {error}", runner.hook.config.name),
            },
            () = risen(&mut stored) => {}
            _ = stop.changed(), if !stopping => {}
            () = tokio::time::sleep(STORE_PAUSE), if failed => {}
        }
    }
}

struct Runner {
    outbox: Outbox,
    hook: Arc<Hook>,
    sink: metrics::Sink,
    stop: watch::Receiver<bool>,
    /// At most [`MAX_RETRYING`] tasks, each calling or waiting for its next attempt.
    calls: JoinSet<(String, Fate)>,
    /// One permit per concurrent call.
    at_once: Arc<Semaphore>,
    /// Incidents not to start again: those of `calls`, and those left for the next daemon.
    under_way: HashSet<String>,
    /// Number of incidents left for the next daemon. They count towards [`MAX_RETRYING`], so that a dead
    /// server is not called for ever more incidents.
    left: usize,
}

impl Runner {
    /// Starts calls for the oldest incidents, and drops those beyond the queue's limit.
    async fn start(&mut self) -> Result<(), store::Error> {
        for found in self.find(MAX_RETRYING.saturating_sub(self.calls.len() + self.left)).await? {
            let Found { incident, standing } = found;
            self.under_way.insert(incident.id.clone());
            let notification = Arc::new(Notification::of(&incident, standing, &self.hook.external_url));
            let (hook, sink, stop) = (self.hook.clone(), self.sink.clone(), self.stop.clone());
            let at_once = self.at_once.clone();
            self.calls.spawn(async move {
                let call = || {
                    let (hook, incident) = (hook.clone(), incident.clone());
                    let (notification, at_once) = (notification.clone(), at_once.clone());
                    async move {
                        // The semaphore is never closed; without a permit one call too many would be made.
                        let _permit = at_once.acquire().await;
                        hook.call(&incident, &notification).await
                    }
                };
                (incident.id.clone(), deliver(&hook.config, &incident.id, call, &sink, stop).await)
            });
        }
        Ok(())
    }

    /// Returns the oldest `wanted` incidents that match the hook; those that do not match leave the outbox.
    async fn find(&self, wanted: usize) -> Result<Vec<Found>, store::Error> {
        let (outbox, hook, under_way) = (self.outbox.clone(), self.hook.clone(), self.under_way.clone());
        let (sink, name) = (self.sink.clone(), self.hook.config.name.clone());
        let look = move || {
            let trimmed = outbox.trim(MAX_QUEUE, |id| under_way.contains(id))?;
            if trimmed > 0 {
                sink.dropped(trimmed);
                log::error!(
                    "hook {name} was not called for {trimmed} incidents: more than {MAX_QUEUE} were waiting"
                );
            }
            let found = look(&outbox, &hook, &under_way, wanted);
            sink.waiting(outbox.waiting()?);
            found
        };
        // A blocking task fails only when the runtime shuts down or the task panics.
        spawn_blocking(look).await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    async fn ended(&mut self, id: &str, fate: Fate) {
        if fate == Fate::Left {
            self.left += 1;
            return;
        }
        match fate {
            Fate::Sent => self.sink.sent(1),
            _ => self.sink.dropped(1),
        }
        let (outbox, of_task) = (self.outbox.clone(), id.to_owned());
        // A blocking task fails only when the runtime shuts down or the task panics.
        if let Ok(Err(error)) = spawn_blocking(move || outbox.done(&[&of_task])).await {
            log::error!("hook {}: {error}", self.hook.config.name);
        }
        self.under_way.remove(id);
    }
}

fn look(
    outbox: &Outbox,
    hook: &Hook,
    under_way: &HashSet<String>,
    wanted: usize,
) -> Result<Vec<Found>, store::Error> {
    let mut found = Vec::new();
    let mut skip = 0;
    while found.len() < wanted {
        let pending = outbox.pending(skip, BATCH)?;
        if pending.is_empty() {
            break;
        }
        let mut not_for_it = Vec::new();
        for incident in &pending {
            if found.len() >= wanted {
                break;
            }
            if under_way.contains(&incident.id) {
                skip += 1;
                continue;
            }
            let standing = if hook.fits(incident) { outbox.standing(incident)? } else { None };
            let is_first = standing.is_some_and(|standing| standing.is_first);
            if !hook.fits(incident) || hook.config.first_seen && !is_first {
                not_for_it.push(incident.id.as_str());
                continue;
            }
            skip += 1;
            found.push(Found { incident: incident.clone(), standing });
        }
        if !not_for_it.is_empty() {
            outbox.done(&not_for_it)?;
        }
    }
    Ok(found)
}

/// Calls the hook until it succeeds, is given up, or the daemon stops.
async fn deliver<C: Future<Output = Result<(), Failure>>>(
    config: &config::Hook,
    id: &str,
    call: impl Fn() -> C,
    sink: &metrics::Sink,
    mut stop: watch::Receiver<bool>,
) -> Fate {
    let name = &config.name;
    let begun = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let Err(Failure { reason, again }) = call().await else { return Fate::Sent };
        sink.failed();
        let wait = again.map(|asked| asked.unwrap_or(pause).min(MAX_ASKED));
        let Some(wait) = wait.filter(|wait| begun.elapsed() + *wait <= config.retry_for.0) else {
            log::error!("hook {name} gave up on incident {id}: {reason}");
            return Fate::GivenUp;
        };
        log::warn!("hook {name} failed for incident {id}, retry in {} s: {reason}", wait.as_secs());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Also returns when the sender is gone.
            _ = stop.wait_for(|stop| *stop) => return Fate::Left,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

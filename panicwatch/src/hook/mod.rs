//! Hooks: a command or a webhook that is called for matching incidents.
//!
//! Knows the outbox and the rules; [`command`] and [`webhook`] make one call. An incident leaves the outbox when its call
//! succeeded or was given up, so after a crash it is called again.

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

/// Incidents that are looked at at once.
const BATCH: usize = 32;
/// Incidents that may wait: of more the oldest are given up, counted.
const MAX_QUEUE: u64 = 10_000;
/// Incidents that are called for or wait for their next try; further ones wait for their first. One that fails again and
/// again does not block those behind it, and a dead server is not asked for thousands of incidents.
const MAX_RETRYING: usize = 32;
/// Before the second try, doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that a server may ask for.
const MAX_ASKED: Duration = Duration::from_secs(300);
/// Before the store is asked again after it failed.
const STORE_PAUSE: Duration = Duration::from_secs(2);

/// A call that failed.
#[derive(Debug)]
struct Failure {
    /// As a sentence without its beginning.
    reason: String,
    /// Another try may succeed; after so long, if the other side said.
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

/// A hook made ready.
pub struct Hook {
    config: config::Hook,
    processes: Selectors,
    client: Option<webhook::Client>,
    external_url: String,
}

impl Hook {
    /// Makes it ready.
    ///
    /// # Errors
    /// A sentence about a pattern, URL or header that is none.
    pub fn new(config: &config::Hook) -> Result<Hook, String> {
        let processes = Selectors::compile(&config.processes).map_err(|problems| problems.join("; "))?;
        let client = if config.url.is_empty() {
            None
        } else {
            Some(webhook::Client::new(config).map_err(|e| e.to_string())?)
        };
        Ok(Hook { config: config.clone(), processes, client, external_url: String::new() })
    }

    /// Links to incidents on the page at `external_url`; empty: no links.
    #[must_use]
    pub fn linking_to(self, external_url: &str) -> Hook {
        Hook { external_url: external_url.to_owned(), ..self }
    }

    /// The name of its outbox.
    pub fn consumer(config: &config::Hook) -> String {
        format!("hook:{}", config.name)
    }

    /// Is it for this incident, whether or not that is the first of its group?
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

/// An incident that the hook is for.
struct Found {
    incident: Arc<Incident>,
    /// `None` when its group cannot be read.
    standing: Option<Standing>,
}

/// What became of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    GivenUp,
    /// The daemon ends: it stays for the next one.
    Left,
}

/// Calls the hook for what waits in `outbox`, until it is stopped and each that waits had its call.
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
        // Without anybody who could stop it, it is to stop.
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
    /// At most [`MAX_RETRYING`]: they call, or wait for their next try.
    calls: JoinSet<(String, Fate)>,
    /// As many permits as calls may be made at once.
    at_once: Arc<Semaphore>,
    /// Incidents that are not to be started again: those of `calls`, and those that are left for the next daemon.
    under_way: HashSet<String>,
    /// Those that are left for the next daemon: after as many a dead server is asked no more.
    left: usize,
}

impl Runner {
    /// Starts calls for the oldest incidents, and gives up those beyond the queue's bound.
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
                        // Never closed; without a permit the call would only be one too many.
                        let _permit = at_once.acquire().await;
                        hook.call(&incident, &notification).await
                    }
                };
                (incident.id.clone(), deliver(&hook.config, &incident.id, call, &sink, stop).await)
            });
        }
        Ok(())
    }

    /// The oldest `wanted` that the hook is for; those that it is not for leave the outbox.
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
        // A blocking task ends other than by returning only with the runtime.
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
        // A blocking task ends other than by returning only with the runtime.
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

/// Calls until it succeeds, is given up, or the daemon ends.
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
            // Also when the sender is gone.
            _ = stop.wait_for(|stop| *stop) => return Fate::Left,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! Hooks: a command or a webhook that is called on incidents that fit.
//!
//! Knows the outbox and the rules; [`command`] and [`webhook`] do one call. An incident leaves the outbox when its call
//! succeeded or was given up: after a crash it is called again, never forgotten.

mod command;
mod slack;
mod webhook;

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinSet, spawn_blocking},
};

use crate::{
    config::{self, Selectors, select::Facts},
    incident::Incident,
    metrics,
    store::{self, Outbox, risen},
};

/// Incidents that are looked at at once.
const BATCH: usize = 32;
/// Incidents that may wait: of more the oldest go unsent, counted.
const MAX_QUEUE: u64 = 10_000;
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
        Ok(Hook { config: config.clone(), processes, client })
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

    async fn call(&self, incident: &Incident) -> Result<(), Failure> {
        match &self.client {
            Some(client) => client.post(&self.config, incident).await,
            None => command::run(&self.config, incident).await,
        }
    }
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
    let hook = Arc::new(hook);
    let mut runner =
        Runner { outbox, hook, sink, stop: stop.clone(), calls: JoinSet::new(), under_way: HashSet::new() };
    loop {
        // Without anybody who could stop it, it is to stop.
        let stopping = *stop.borrow_and_update() || stop.has_changed().is_err();
        let failed = match runner.start().await {
            Ok(()) => false,
            Err(error) => {
                log::error!("hook {} cannot see what waits: {error}", runner.hook.config.name);
                true
            }
        };
        if stopping && (failed || runner.calls.is_empty()) {
            return;
        }
        tokio::select! {
            Some(ended) = runner.calls.join_next() => match ended {
                Ok((id, fate)) => runner.ended(&id, fate).await,
                Err(error) => return log::error!("hook {} has ended: {error}", runner.hook.config.name),
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
    calls: JoinSet<(String, Fate)>,
    /// Incidents that are not to be started again: those of `calls`, and those that are left for the next daemon.
    under_way: HashSet<String>,
}

impl Runner {
    /// Starts as many calls as may be at once.
    async fn start(&mut self) -> Result<(), store::Error> {
        let most = usize::try_from(self.hook.config.concurrency).unwrap_or(1).max(1);
        while self.calls.len() < most {
            let found = self.find(most - self.calls.len()).await?;
            if found.is_empty() {
                break;
            }
            for incident in found {
                self.under_way.insert(incident.id.clone());
                let (hook, sink, stop) = (self.hook.clone(), self.sink.clone(), self.stop.clone());
                self.calls.spawn(async move {
                    (incident.id.clone(), deliver(&hook, &incident, &sink, stop).await)
                });
            }
        }
        Ok(())
    }

    /// The oldest `wanted` that the hook is for; those that it is not for leave the outbox.
    async fn find(&self, wanted: usize) -> Result<Vec<Arc<Incident>>, store::Error> {
        let (outbox, hook, under_way) = (self.outbox.clone(), self.hook.clone(), self.under_way.clone());
        let (sink, name) = (self.sink.clone(), self.hook.config.name.clone());
        let look = move || {
            let trimmed = outbox.trim(MAX_QUEUE)?;
            if trimmed > 0 {
                sink.dropped(trimmed);
                log::error!(
                    "hook {name} was not called for {trimmed} incidents: more than {MAX_QUEUE} waited"
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
            return;
        }
        match fate {
            Fate::Sent => self.sink.sent(1),
            _ => self.sink.dropped(1),
        }
        loop {
            let (outbox, of_task) = (self.outbox.clone(), id.to_owned());
            match spawn_blocking(move || outbox.done(&[&of_task])).await {
                Ok(Err(error)) => log::error!("hook {}: {error}", self.hook.config.name),
                Ok(Ok(())) => {
                    self.under_way.remove(id);
                    return;
                }
                Err(_) => return,
            }
            if *self.stop.borrow() {
                // The next daemon will call it once more.
                return;
            }
            tokio::time::sleep(STORE_PAUSE).await;
        }
    }
}

fn look(
    outbox: &Outbox,
    hook: &Hook,
    under_way: &HashSet<String>,
    wanted: usize,
) -> Result<Vec<Arc<Incident>>, store::Error> {
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
            let is_for_it = under_way.contains(&incident.id)
                || hook.fits(incident) && (!hook.config.first_seen || outbox.is_first(incident)?);
            if !is_for_it {
                not_for_it.push(incident.id.as_str());
                continue;
            }
            skip += 1;
            if !under_way.contains(&incident.id) {
                found.push(incident.clone());
            }
        }
        if !not_for_it.is_empty() {
            outbox.done(&not_for_it)?;
        }
    }
    Ok(found)
}

/// Calls until it succeeds, is given up, or the daemon ends.
async fn deliver(
    hook: &Hook,
    incident: &Incident,
    sink: &metrics::Sink,
    mut stop: watch::Receiver<bool>,
) -> Fate {
    let name = &hook.config.name;
    let mut pause = FIRST_PAUSE;
    for left in (0..=hook.config.retries).rev() {
        let Err(Failure { reason, again }) = hook.call(incident).await else { return Fate::Sent };
        sink.failed();
        let Some(asked) = again.filter(|_| left > 0) else {
            log::error!("hook {name} is given up for incident {}: {reason}", incident.id);
            return Fate::GivenUp;
        };
        let wait = asked.unwrap_or(pause).min(MAX_ASKED);
        log::warn!(
            "hook {name} failed for incident {}, again in {} s: {reason}",
            incident.id,
            wait.as_secs()
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            // Also when nobody is left who could say so.
            _ = stop.wait_for(|stop| *stop) => return Fate::Left,
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
    Fate::GivenUp
}

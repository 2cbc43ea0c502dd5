//! The HTTP server and the exporters, on a tokio runtime and thread of their own.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    runtime::{self, Runtime},
    sync::watch,
    task::JoinSet,
};

use super::{StartError, keeper::Keeper};
use crate::{
    config::{self, Config},
    hook::{self, Hook},
    http::{Site, server::Listeners},
    jsonl,
    metrics::Metrics,
    otlp,
    status::{Board, feed::Feed},
    store::{Outbox, Store},
    vital,
};

/// Outbox names of the exporters that exist at most once.
pub(super) const JSONL: &str = "jsonl";
const OTLP: &str = "otlp";

/// Returns the names of the outboxes that the configuration needs.
pub(super) fn consumers(config: &Config) -> Vec<String> {
    let jsonl = (!config.jsonl.path.is_empty()).then(|| JSONL.to_owned());
    let otlp = (!config.otlp.endpoint.is_empty()).then(|| OTLP.to_owned());
    let hooks = config.hook.iter().map(Hook::consumer);
    jsonl.into_iter().chain(otlp).chain(hooks).collect()
}

/// The exporters to start, with checked configuration.
pub(super) struct Plan {
    runtime: Runtime,
    jsonl: Option<config::Jsonl>,
    otlp: Option<(config::Otlp, otlp::Exporter)>,
    hooks: Vec<(String, Hook)>,
}

/// Checks that the OTLP exporter would start.
///
/// # Errors
/// When its endpoint, headers or certificate authorities cannot be used.
pub(super) fn check_otlp(config: &Config) -> Result<(), StartError> {
    Plan::new(&Config { hook: Vec::new(), ..config.clone() }).map(drop)
}

/// The parts of the daemon that exporters use.
pub(super) struct Around<'a> {
    pub(super) store: &'a Arc<Store>,
    pub(super) metrics: &'a Arc<Metrics>,
    pub(super) board: &'a Board,
    pub(super) feed: &'a Feed,
    pub(super) keeper: &'a Keeper,
}

/// The running HTTP server and exporters.
pub(super) struct Exporters {
    site: Arc<Site>,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    reopen: watch::Sender<u64>,
    thread: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

impl Plan {
    /// Prepares the exporters that `config` asks for.
    ///
    /// # Errors
    /// When a hook or the OTLP exporter cannot be prepared.
    pub(super) fn new(config: &Config) -> Result<Plan, StartError> {
        let hook = |hook: &config::Hook| {
            let ready = Hook::new(hook).map_err(|error| format!("hook {}: {error}", hook.name));
            let ready = ready.map(|ready| ready.linking_to(&config.http.external_url));
            ready.map(|ready| (hook.name.clone(), ready)).map_err(StartError::Config)
        };
        let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build();
        let runtime =
            runtime.map_err(|error| StartError::Config(format!("cannot start the I/O runtime: {error}")))?;
        // An exporter must be created within its runtime.
        let inside = runtime.enter();
        let otlp = Some(&config.otlp).filter(|otlp| !otlp.endpoint.is_empty());
        let otlp = otlp.map(|otlp| otlp::Exporter::new(otlp).map(|exporter| (otlp.clone(), exporter)));
        let otlp = otlp.transpose().map_err(|error| StartError::Config(error.to_string()))?;
        drop(inside);
        Ok(Plan {
            runtime,
            jsonl: Some(config.jsonl.clone()).filter(|jsonl| !jsonl.path.is_empty()),
            otlp,
            hooks: config.hook.iter().map(hook).collect::<Result<_, _>>()?,
        })
    }

    /// Starts the runtime, the HTTP server and the exporters on it.
    pub(super) fn start(
        self,
        listeners: Listeners,
        token: Option<String>,
        around: &Around<'_>,
    ) -> io::Result<Exporters> {
        let Around { store, metrics, board, feed, keeper } = around;
        let (stop, stopping) = watch::channel(false);
        let (reopen, reopened) = watch::channel(0);
        let of_site = Arc::clone(metrics);
        let render = Box::new(move || of_site.render());
        let site =
            Site::new(Arc::clone(store) as _, (*board).clone(), (*feed).clone(), render, stopping.clone());
        let site = Arc::new(site);
        site.set_token(token);
        let addresses = listeners.addresses();
        let mut tasks: Vec<Task> = Vec::new();
        let (of_server, stopped) = (site.clone(), stopping.clone());
        tasks.push(Box::pin(async move {
            if let Err(error) = listeners.serve(of_server, stopped).await {
                log::error!("HTTP serving failed: {error}");
            }
        }));
        let outbox = |consumer: &str| Outbox::new(Arc::clone(store), consumer);
        if let Some(jsonl) = self.jsonl {
            let signals =
                jsonl::Signals { stored: keeper.stored(), reopen: reopened, stop: stopping.clone() };
            tasks.push(Box::pin(jsonl::run(outbox(JSONL), jsonl, metrics.sink(JSONL), signals)));
        }
        if let Some((otlp, exporter)) = self.otlp {
            let (stored, stop) = (keeper.stored(), stopping.clone());
            tasks.push(Box::pin(otlp::run(outbox(OTLP), otlp, exporter, metrics.sink(OTLP), stored, stop)));
        }
        for (name, hook) in self.hooks {
            let consumer = format!("hook:{name}");
            let (stored, stop) = (keeper.stored(), stopping.clone());
            tasks.push(Box::pin(hook::run(outbox(&consumer), hook, metrics.sink(&consumer), stored, stop)));
        }
        let runtime = self.runtime;
        let (end, ended) = mpsc::channel();
        let thread = vital::spawn("exporters", move || {
            runtime.block_on(all(tasks));
            // Threads blocked on the disk end with the process.
            runtime.shutdown_background();
            let _ = end.send(());
        })?;
        Ok(Exporters { site, addresses, stop, reopen, thread, ended })
    }
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs the tasks until all have ended.
async fn all(tasks: Vec<Task>) {
    let mut running: JoinSet<()> = tasks.into_iter().collect();
    while let Some(ended) = running.join_next().await {
        if let Err(error) = ended {
            log::error!("an exporter exited: {error}");
        }
    }
}

impl Exporters {
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn set_token(&self, token: Option<String>) {
        self.site.set_token(token);
    }

    /// Makes exporters reopen files that may have been moved away.
    pub(super) fn reopen(&self) {
        self.reopen.send_modify(|n| *n += 1);
    }

    /// Stops the exporters after giving them up to `time` to send what they can; returns false when they did
    /// not end.
    pub(super) fn finish(self, time: Duration) -> bool {
        let _ = self.stop.send(true);
        let ended = self.ended.recv_timeout(time).is_ok();
        ended && self.thread.join().is_ok()
    }
}

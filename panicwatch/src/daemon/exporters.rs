//! Everything that talks to others: the HTTP server and the exporters, on a runtime of their own.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{runtime, sync::watch, task::JoinSet};

use super::{StartError, feed::Feed, keeper::Keeper, status::Board};
use crate::{
    config::Config,
    http::{Site, server::Listeners},
    metrics::Metrics,
    store::Store,
};

/// Names of the outboxes that the configuration asks for.
pub(super) fn consumers(_config: &Config) -> Vec<String> {
    Vec::new()
}

/// What will run, checked.
pub(super) struct Plan {}

/// What runs.
pub(super) struct Exporters {
    site: Arc<Site>,
    addresses: Vec<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
    ended: mpsc::Receiver<()>,
}

impl Plan {
    pub(super) fn new(_config: &Config) -> Result<Plan, StartError> {
        Ok(Plan {})
    }

    #[expect(clippy::too_many_arguments, reason = "all that the outside may see of the daemon")]
    pub(super) fn start(
        self,
        listeners: Listeners,
        token: Option<String>,
        store: &Arc<Store>,
        metrics: &Arc<Metrics>,
        board: &Board,
        feed: &Feed,
        _keeper: &Arc<Keeper>,
    ) -> io::Result<Exporters> {
        let (stop, stopping) = watch::channel(false);
        let of_site = metrics.clone();
        let render = Box::new(move || of_site.render());
        let site = Site::new(store.clone(), board.clone(), feed.clone(), render, stopping.clone());
        let site = Arc::new(site);
        site.set_token(token);
        let addresses = listeners.addresses();
        let runtime = runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        let (end, ended) = mpsc::channel();
        let of_server = site.clone();
        let thread = thread::Builder::new().name("exporters".into()).spawn(move || {
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                tasks.spawn(async move {
                    if let Err(error) = listeners.serve(of_server, stopping).await {
                        log::error!("HTTP is not served: {error}");
                    }
                });
                while let Some(ended) = tasks.join_next().await {
                    if let Err(error) = ended {
                        log::error!("an exporter ended: {error}");
                    }
                }
            });
            // Threads that wait for the disk end with the process.
            runtime.shutdown_background();
            let _ = end.send(());
        })?;
        Ok(Exporters { site, addresses, stop, thread, ended })
    }
}

impl Exporters {
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(super) fn set_token(&self, token: Option<String>) {
        self.site.set_token(token);
    }

    /// Files that somebody may have moved away are opened anew.
    pub(super) fn reopen(&self) {}

    /// Lets them send what they can in `time`; false when they did not end.
    pub(super) fn finish(self, time: Duration) -> bool {
        let _ = self.stop.send(true);
        let ended = self.ended.recv_timeout(time).is_ok();
        ended && self.thread.join().is_ok()
    }
}

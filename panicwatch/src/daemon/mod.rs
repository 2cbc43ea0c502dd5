//! The daemon: watches the whole host, and stores and exports incidents. docs/daemon.md documents the order
//! in which it starts and stops, and why.

mod check;
mod exporters;
pub mod keeper;
pub mod log;
mod lost;
mod main_loop;
mod options;
pub mod paint;
pub mod seccomp;
pub mod truncated;

use std::{io, path::Path, sync::Arc};

use jiff::Timestamp;

use crate::{
    config::Config,
    host::privileges,
    http::{self, server::Listeners},
    metrics::Metrics,
    probe::{error::ProbeError, links},
    status::{
        Board,
        feed::{self, Feed},
    },
    store::{self, Gap, Store},
    watch::session::{Scope, Session},
};
pub use check::check;
use exporters::Exporters;
use keeper::Keeper;

/// Reads the configuration again, when a reload is requested.
pub type Reload = Box<dyn Fn() -> Result<Config, String> + Send>;

/// A running daemon.
pub struct Daemon {
    config: Config,
    reload: Reload,
    session: Session,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    keeper: Arc<Keeper>,
    board: Board,
    exporters: Exporters,
    feed: Feed,
    /// Time at which the previous daemon was last alive; `None` once the gap has been reported.
    last_beat: Option<Timestamp>,
}

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The incident store cannot be opened.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// An address, a certificate or a token cannot be used.
    #[error(transparent)]
    Http(#[from] http::server::Error),
    /// The kernel refused a probe or program.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The system refused another operation.
    #[error("{what}: {source}")]
    System {
        /// The operation that failed.
        what: &'static str,
        /// Error of the system call.
        source: io::Error,
    },
    /// Something that the configuration names cannot be used.
    #[error("{0}")]
    Config(String),
}

impl Daemon {
    /// Starts watching. `reload` reads the configuration again on request.
    ///
    /// # Errors
    /// When the store, an address or the kernel refuses.
    pub fn start(config: Config, reload: Reload) -> Result<Daemon, StartError> {
        // One arena: each thread's own would retain the most memory that the thread ever needed.
        // SAFETY: sets a parameter of the C library, before other threads exist.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        truncated::survive().map_err(|source| StartError::System { what: "handling SIGBUS", source })?;
        let opened = Store::open(Path::new(&config.store.path), &exporters::consumers(&config))?;
        if let Some((aside, reason)) = &opened.damaged {
            ::log::error!(
                "the incident store was damaged ({reason}); it is kept as {}, a new one is created",
                aside.display()
            );
        }
        for (consumer, n) in &opened.dropped {
            ::log::warn!("{consumer} is no longer configured: {n} incidents that waited for it are not sent");
        }
        let (store, last_beat) = (Arc::new(opened.store), opened.last_beat);
        let listeners = Listeners::bind(&config.http)?;
        let token = http::server::token(&config.http.token_file)?;
        if token.is_none() && listeners.is_open_to_network() {
            ::log::warn!(
                "anyone on the network can read incidents: set [http] token_file, or listen on 127.0.0.1"
            );
        }
        let select = options::select(&config.watch).map_err(StartError::Config)?;
        let exporters = exporters::Plan::new(&config)?;
        for (key, what) in check::places(&config) {
            ::log::warn!("{key}: {what}");
        }
        // Executed before ambient capabilities are dropped, because it inherits them.
        links::holder().map_err(ProbeError::Helper)?;
        // Last step with a single thread: threads inherit the remaining capabilities.
        privileges::drop_others().map_err(StartError::Config)?;
        seccomp::apply().map_err(StartError::Config)?;
        let restored = store.counters()?;
        let metrics =
            Metrics::new(&config.metrics, &restored).map_err(|e| StartError::Config(e.to_string()))?;
        let metrics = Arc::new(metrics);
        let system = |what| move |source| StartError::System { what, source };
        let feed = Feed::new(feed::BACKLOG);
        let keeper = Keeper::start(store.clone(), metrics.clone(), feed.clone(), config.store.clone());
        let keeper = Arc::new(keeper.map_err(system("starting a thread"))?);
        let scope = Scope::Host { select, hold: config.watch.hold_new_binaries };
        let session = Session::start(scope, &options::recorder(&config.recorder))?;
        if config.watch.hold_new_binaries
            && let Some(problem) = session.gate_problem()
        {
            ::log::warn!("execs of new binaries are not held: {problem}");
        }
        let board = Board::default();
        let running = {
            let (store, metrics, board, feed, keeper) = (&store, &metrics, &board, &feed, &*keeper);
            exporters.start(listeners, token, &exporters::Around { store, metrics, board, feed, keeper })
        };
        let exporters = running.map_err(system("starting the runtime"))?;
        for address in exporters.addresses() {
            let scheme = if config.http.tls.cert.is_empty() { "http" } else { "https" };
            ::log::info!("serving the page, the API and /metrics at {scheme}://{address}/");
        }
        Ok(Daemon { config, reload, session, store, metrics, keeper, board, exporters, last_beat, feed })
    }
}

/// Period before the last beat that the gap includes: incidents seen then may not have been stored.
const UNSTORED: jiff::SignedDuration = jiff::SignedDuration::from_millis(500);

/// Returns the gap since the previous daemon was last alive.
fn gap_since(last_beat: Timestamp, now: Timestamp) -> Gap {
    Gap {
        from: format!("{:.9}", last_beat.saturating_sub(UNSTORED).unwrap_or(last_beat)),
        to: format!("{now:.9}"),
        reason: "panicwatch was not running (accurate to a second, the interval of its heartbeat)".to_owned(),
    }
}

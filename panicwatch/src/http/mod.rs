//! The daemon's HTTP side: the API, the live stream, the page and `/metrics`. docs/http-api.md is the reference.
//!
//! Reads what the store, the board and the feed have; changes nothing. Whoever calls is a stranger: every text of a watched
//! program leaves as JSON or as plain text, and pages may load nothing but what is served here.

mod api;
pub mod client;
mod connection;
mod groups;
mod guard;
mod pool;
mod reply;
pub mod server;
mod stream;

use std::sync::{Arc, PoisonError, RwLock};

use axum::{Router, middleware, routing::get};

use crate::{
    status::{Board, feed::Feed},
    store::Archive,
};

/// What is served.
pub struct Site {
    /// Stored incidents.
    pub archive: Arc<dyn Archive>,
    /// What is watched.
    pub board: Board,
    /// What happens.
    pub feed: Feed,
    /// Renders `/metrics`.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// What readers must show.
    token: RwLock<Option<String>>,
    /// Ends streams when the daemon stops.
    stop: tokio::sync::watch::Receiver<bool>,
}

impl Site {
    /// Serves these; streams end when `stop` becomes true.
    pub fn new(
        archive: Arc<dyn Archive>,
        board: Board,
        feed: Feed,
        metrics: Box<dyn Fn() -> String + Send + Sync>,
        stop: tokio::sync::watch::Receiver<bool>,
    ) -> Site {
        Site { archive, board, feed, metrics, token: RwLock::default(), stop }
    }

    /// From now on readers must show this; `None`: nothing.
    pub fn set_token(&self, token: Option<String>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn token(&self) -> Option<String> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// By which way a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TCP on a loopback address.
    Loopback,
    /// TCP from anywhere.
    Network,
    /// The Unix socket: its permissions have decided.
    Unix,
}

/// All paths, for requests that come by `way`.
pub fn router(site: Arc<Site>, way: Way) -> Router {
    // The page itself tells nothing: what it shows it asks for.
    let open = Router::new()
        .route("/", get(api::index))
        .route("/page/{file}", get(api::file))
        .route("/healthz", get(api::healthz))
        .route("/readyz", get(api::readyz));
    let guarded = Router::new()
        .route("/metrics", get(api::metrics))
        .route("/api/v1/incidents", get(api::incidents))
        .route("/api/v1/incidents/{id}", get(api::incident))
        .route("/api/v1/groups", get(groups::groups))
        .route("/api/v1/groups/{fingerprint}", get(groups::group))
        .route("/api/v1/processes", get(api::processes))
        .route("/api/v1/probes", get(api::probes))
        .route("/api/v1/gaps", get(api::gaps))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/stream", get(stream::stream));
    let guarded = match way {
        Way::Unix => guarded,
        _ => guarded.layer(middleware::from_fn_with_state(site.clone(), guard::token)),
    };
    let all = open.merge(guarded).fallback(reply::not_found).method_not_allowed_fallback(reply::not_allowed);
    let all = match way {
        Way::Loopback => all.layer(middleware::from_fn_with_state(site.clone(), guard::host)),
        _ => all,
    };
    all.layer(middleware::from_fn(guard::headers)).with_state(site)
}

//! The daemon's HTTP server: the API, the live stream, the page and `/metrics`. docs/http-api.md is the
//! reference.
//!
//! It reads from the store, the status and the live stream, and changes nothing. No client is trusted: every
//! text of a watched program is sent as JSON or plain text, and the page may load only what this server
//! serves.

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

/// The data that is served.
pub struct Site {
    /// The stored incidents.
    pub archive: Arc<dyn Archive>,
    /// The status of the daemon.
    pub board: Board,
    /// The live stream.
    pub feed: Feed,
    /// Renders `/metrics`.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Token that clients must send; `None`: no token is required.
    token: RwLock<Option<String>>,
    /// Becomes true when the daemon stops, which ends streams.
    stop: tokio::sync::watch::Receiver<bool>,
}

impl Site {
    /// Combines the sources of data; streams end when `stop` becomes true.
    pub fn new(
        archive: Arc<dyn Archive>,
        board: Board,
        feed: Feed,
        metrics: Box<dyn Fn() -> String + Send + Sync>,
        stop: tokio::sync::watch::Receiver<bool>,
    ) -> Site {
        Site { archive, board, feed, metrics, token: RwLock::default(), stop }
    }

    /// Sets the token that clients must send from now on; `None`: no token is required.
    pub fn set_token(&self, token: Option<String>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    fn token(&self) -> Option<String> {
        self.token.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The kind of listener that received a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TCP on a loopback address.
    Loopback,
    /// TCP on any other address.
    Network,
    /// The Unix socket, whose permissions control access.
    Unix,
}

/// Returns the router of all paths, for requests received by a listener of kind `way`.
pub fn router(site: Arc<Site>, way: Way) -> Router {
    // The page itself contains no data: it fetches everything it shows.
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

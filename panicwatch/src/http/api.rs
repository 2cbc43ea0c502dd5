//! Handlers of the API, the page, health checks and metrics.

use std::sync::Arc;

use axum::{
    extract::{Path, Query as UrlQuery, State, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::{Deserialize, Serialize};

use super::{Site, reply};
use crate::{
    escape,
    incident::Incident,
    render::{self, Format, page, text::Style},
    status::{Binary, Process},
    store::{self, Archive, Query},
    title,
};

type Shared = State<Arc<Site>>;

/// `GET /`: the page.
pub(super) async fn index(headers: HeaderMap) -> Response {
    reply::bytes(&headers, "text/html; charset=utf-8", page::INDEX.as_bytes().to_vec())
}

/// `GET /page/{file}`: a script, style or image of the page.
pub(super) async fn file(Path(name): Path<String>, headers: HeaderMap) -> Response {
    match page::FILES.iter().find(|file| file.name == name) {
        Some(file) => reply::bytes(&headers, file.media_type, file.text.as_bytes().to_vec()),
        None => reply::error(StatusCode::NOT_FOUND, "the page has no such file"),
    }
}

/// `GET /healthz`: reports that the process is alive.
pub(super) async fn healthz() -> Response {
    reply::text(StatusCode::OK, "text/plain; charset=utf-8", "alive\n")
}

/// `GET /readyz`: reports whether everything that should be watched is.
pub(super) async fn readyz(State(site): Shared) -> Response {
    let status = site.board.get();
    if status.is_ready() {
        return reply::text(StatusCode::OK, "text/plain; charset=utf-8", "ready\n");
    }
    let mut lines = status.problems.clone();
    if !status.ready {
        lines.push("process discovery is not complete yet".to_owned());
    }
    reply::text(
        StatusCode::SERVICE_UNAVAILABLE,
        "text/plain; charset=utf-8",
        escape::screen(&lines.join("\n"), false) + "\n",
    )
}

/// `GET /metrics`: metrics in Prometheus's text format.
pub(super) async fn metrics(State(site): Shared) -> Response {
    reply::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (site.metrics)())
}

/// Queries the store on a thread that may block on the disk.
pub(super) async fn ask<R: Send + 'static>(
    site: &Site,
    question: impl FnOnce(&dyn Archive) -> Result<R, store::Error> + Send + 'static,
) -> Result<R, Response> {
    let archive = site.archive.clone();
    let answer = tokio::task::spawn_blocking(move || question(&*archive)).await;
    match answer {
        Ok(answer) => answer.map_err(|error| reply::store_error(&error)),
        Err(error) => Err(reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string())),
    }
}

/// Returns the response, or the error response in its place.
pub(super) fn either(answer: Result<Response, Response>) -> Response {
    answer.unwrap_or_else(|error| error)
}

/// An incident with its title.
#[derive(Debug, Serialize)]
pub(super) struct Titled {
    #[serde(flatten)]
    incident: Incident,
    title: String,
}

impl From<Incident> for Titled {
    fn from(incident: Incident) -> Titled {
        Titled { title: title::title(&incident), incident }
    }
}

#[derive(Serialize)]
struct Incidents {
    incidents: Vec<Titled>,
    next: Option<String>,
}

/// `GET /api/v1/incidents`: a page of incidents, newest first.
pub(super) async fn incidents(
    State(site): Shared,
    headers: HeaderMap,
    query: Result<UrlQuery<Query>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(UrlQuery(query)) => query,
        Err(error) => return reply::error(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let page = ask(&site, move |archive| archive.incidents(&query)).await;
    either(page.map(|page| {
        let incidents = page.incidents.into_iter().map(Titled::from).collect();
        reply::json(&headers, &Incidents { incidents, next: page.next })
    }))
}

/// Query of a request for an incident.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct As {
    format: Option<Form>,
}

/// A format of [`render`], or the document with additional data for the page.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Form {
    View(ViewOnly),
    Of(Format),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ViewOnly {
    View,
}

/// `GET /api/v1/incidents/{id}`: a whole incident.
pub(super) async fn incident(
    State(site): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    query: Result<UrlQuery<As>, QueryRejection>,
) -> Response {
    let format = match query {
        Ok(UrlQuery(As { format })) => format,
        Err(error) => return reply::error(StatusCode::BAD_REQUEST, &error.body_text()),
    };
    let of_file = id.clone();
    let found = match ask(&site, move |archive| archive.incident(&id)).await {
        Ok(Some(incident)) => incident,
        Ok(None) => {
            return reply::error(StatusCode::NOT_FOUND, "there is no such incident, or it was deleted");
        }
        Err(response) => return response,
    };
    let format = match format {
        None => return reply::json(&headers, &found),
        Some(Form::View(ViewOnly::View)) => return reply::json(&headers, &page::View::of(&found)),
        Some(Form::Of(format)) => format,
    };
    match render::render(format, &found, None, &Style::default()) {
        Ok(bytes) => {
            let mut response = reply::bytes(&headers, format.media_type(), bytes);
            let name = format!("attachment; filename=\"panicwatch-{of_file}.{}\"", format.extension());
            if let Ok(name) = HeaderValue::from_str(&name) {
                response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
            }
            response
        }
        Err(error) => reply::error(StatusCode::UNPROCESSABLE_ENTITY, &error.to_string()),
    }
}

#[derive(Serialize)]
struct Gaps {
    gaps: Vec<store::Gap>,
}

/// `GET /api/v1/gaps`: periods in which no process was watched.
pub(super) async fn gaps(State(site): Shared, headers: HeaderMap) -> Response {
    let gaps = ask(&site, |archive| archive.gaps()).await;
    either(gaps.map(|gaps| reply::json(&headers, &Gaps { gaps })))
}

#[derive(Serialize)]
struct Processes<'a> {
    processes: &'a [Process],
}

/// `GET /api/v1/processes`: all Go processes.
pub(super) async fn processes(State(site): Shared, headers: HeaderMap) -> Response {
    reply::json(&headers, &Processes { processes: &site.board.get().processes })
}

#[derive(Serialize)]
struct Probes<'a> {
    binaries: &'a [Binary],
}

/// `GET /api/v1/probes`: all probes, by binary.
pub(super) async fn probes(State(site): Shared, headers: HeaderMap) -> Response {
    reply::json(&headers, &Probes { binaries: &site.board.get().binaries })
}

#[derive(Serialize)]
struct Daemon<'a> {
    version: &'static str,
    ready: bool,
    problems: &'a [String],
    processes: usize,
    watched: usize,
    binaries: usize,
    own: &'a crate::status::Own,
}

/// `GET /api/v1/status`: health and counters of the daemon.
pub(super) async fn status(State(site): Shared, headers: HeaderMap) -> Response {
    let status = site.board.get();
    let daemon = Daemon {
        version: env!("CARGO_PKG_VERSION"),
        ready: status.is_ready(),
        problems: &status.problems,
        processes: status.processes.len(),
        watched: status.processes.iter().filter(|process| process.watched).count(),
        binaries: status.binaries.len(),
        own: &status.own,
    };
    reply::json(&headers, &daemon)
}

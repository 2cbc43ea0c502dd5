//! The live stream: server-sent events, for up to [`MAX_READERS`] readers.
//! <https://www.w3.org/TR/eventsource/>
//!
//! Each reader subscribes to the daemon's live stream. A reader that falls behind receives the number of
//! items it missed and is disconnected; it can reconnect with the ID it saw last and receives the incidents
//! it missed from the store.

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream::{self, Stream};
use tokio::sync::{broadcast::error::RecvError, watch};

use super::{
    Site,
    api::{Titled, ask},
    connection::Endless,
    reply,
};
use crate::{
    incident::Incident,
    status::feed::News,
    store::{Archive, Query},
};

/// Interval between keep-alive messages.
const BEAT: Duration = Duration::from_secs(15);
/// Maximum number of incidents sent from the store to a reader that reconnects.
const MAX_MISSED: usize = 1000;
/// Maximum number of readers: each holds a connection for as long as it stays. Crossed by
/// `streams_have_their_own_limit` in tests/http.rs.
const MAX_READERS: usize = 128;
/// Value of `Retry-After` in seconds for a rejected reader.
const RETRY: &str = "10";

/// `GET /api/v1/stream`: the live stream.
pub(super) async fn stream(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    if site.feed.receiver_count() >= MAX_READERS {
        let sentence =
            "the stream already has 128 subscribers; try again in 10 seconds, or poll /api/v1/incidents";
        let mut response = reply::error(StatusCode::SERVICE_UNAVAILABLE, sentence);
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        return response;
    }
    // Subscribes before reading the store: an incident stored in between is found twice rather than never.
    let news = site.feed.subscribe();
    let mut missed = VecDeque::new();
    if let Some(last) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        let last = last.to_owned();
        missed = match ask(&site, move |archive| since(archive, &last)).await {
            Ok(missed) => missed,
            Err(response) => return response,
        };
    }
    let replayed = missed.iter().cloned().collect();
    let stop = site.stop.clone();
    let reader = Reader { site, missed, replayed, news, stop, over: false };
    let mut response = Sse::new(events(reader)).keep_alive(KeepAlive::new().interval(BEAT)).into_response();
    response.extensions_mut().insert(Endless);
    response
}

/// Returns the IDs of the newest incidents with an ID greater than `last`, oldest first.
fn since(archive: &dyn Archive, last: &str) -> Result<VecDeque<String>, crate::store::Error> {
    let mut found = VecDeque::new();
    let mut query = Query::default();
    loop {
        let page = archive.incidents(&query)?;
        for incident in page.incidents {
            if incident.id.as_str() <= last || found.len() >= MAX_MISSED {
                return Ok(found);
            }
            found.push_front(incident.id);
        }
        match page.next {
            Some(next) if next.as_str() > last => query.before = Some(next),
            _ => return Ok(found),
        }
    }
}

struct Reader {
    site: Arc<Site>,
    /// IDs, oldest first. Documents are read one at a time, so that a reader needs little memory.
    missed: VecDeque<String>,
    /// IDs of all incidents sent from the store: some of them may also be in the live stream. The order of
    /// IDs, which is that of the raises, does not tell: an incident with a lower ID may be stored later.
    replayed: HashSet<String>,
    news: tokio::sync::broadcast::Receiver<News>,
    stop: watch::Receiver<bool>,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        while let Some(id) = self.missed.pop_front() {
            // An incident that was deleted meanwhile is skipped.
            if let Ok(Some(incident)) = ask(&self.site, move |archive| archive.incident(&id)).await {
                return Some(of_incident(&incident));
            }
        }
        loop {
            if self.over {
                return None;
            }
            let news = tokio::select! {
                news = self.news.recv() => news,
                _ = self.stop.wait_for(|stop| *stop) => return None,
            };
            match news {
                Ok(News::Incident(incident)) if self.replayed.contains(&incident.id) => {}
                Ok(News::Incident(incident)) => return Some(of_incident(&incident)),
                Ok(News::Counted(counted)) => {
                    return Event::default().event("counted").json_data(&*counted).ok();
                }
                Ok(News::Gap(gap)) => return Event::default().event("gap").json_data(&*gap).ok(),
                Err(RecvError::Lagged(missed)) => {
                    self.over = true;
                    return Event::default()
                        .event("lagged")
                        .json_data(serde_json::json!({ "missed": missed }))
                        .ok();
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn of_incident(incident: &Incident) -> Event {
    let document = Incident { timeline: None, ..incident.clone() };
    let event = Event::default().event("incident").id(&incident.id);
    // Never fails: the incident was written to the store as JSON.
    event.json_data(Titled::from(document)).unwrap_or_default()
}

fn events(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    })
}

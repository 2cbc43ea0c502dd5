//! The live stream: server-sent events, for any number of readers.
//! <https://www.w3.org/TR/eventsource/>
//!
//! Each reader has a place in the feed. One that falls behind is told how much it missed and sent away; it can come back with
//! the ID it saw last and gets from the store what it missed.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{
        IntoResponse as _, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream::{self, Stream};
use tokio::sync::{broadcast::error::RecvError, watch};

use super::{Site, api::Titled, reply};
use crate::{
    daemon::feed::News,
    incident::Incident,
    store::{Archive, Query},
};

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(15);
/// Incidents that one who comes back is given.
const MAX_MISSED: usize = 1000;
/// Readers at once.
const MAX_READERS: usize = 1000;

/// `GET /api/v1/stream`.
pub(super) async fn stream(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    if site.feed.receiver_count() >= MAX_READERS {
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "there are too many readers of the stream");
    }
    // First a place in the feed, then the past: what happens meanwhile comes twice rather than never.
    let news = site.feed.subscribe();
    let mut missed = VecDeque::new();
    if let Some(last) = headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        let (archive, last) = (site.archive.clone(), last.to_owned());
        missed = match tokio::task::spawn_blocking(move || since(&*archive, &last)).await {
            Ok(Ok(missed)) => missed,
            Ok(Err(error)) => return reply::store_error(&error),
            Err(error) => return reply::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        };
    }
    let last = missed.back().map(|incident| incident.id.clone());
    let reader = Reader { missed, last, news, stop: site.stop.clone(), over: false };
    Sse::new(events(reader)).keep_alive(KeepAlive::new().interval(BEAT)).into_response()
}

/// Incidents that are newer than `last`, oldest first.
fn since(archive: &dyn Archive, last: &str) -> Result<VecDeque<Incident>, crate::store::Error> {
    let mut found = VecDeque::new();
    let mut query = Query::default();
    loop {
        let page = archive.incidents(&query)?;
        for incident in page.incidents {
            if incident.id.as_str() <= last || found.len() >= MAX_MISSED {
                return Ok(found);
            }
            found.push_front(incident);
        }
        match page.next {
            Some(next) if next.as_str() > last => query.before = Some(next),
            _ => return Ok(found),
        }
    }
}

struct Reader {
    missed: VecDeque<Incident>,
    /// The newest of those from the store.
    last: Option<String>,
    news: tokio::sync::broadcast::Receiver<News>,
    stop: watch::Receiver<bool>,
    over: bool,
}

impl Reader {
    async fn next(&mut self) -> Option<Event> {
        if let Some(incident) = self.missed.pop_front() {
            return Some(of_incident(&incident));
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
                Ok(News::Incident(incident))
                    if self.last.as_ref().is_some_and(|last| incident.id <= *last) => {}
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
    // Every incident can be written as JSON: it was, into the store.
    event.json_data(Titled::from(document)).unwrap_or_default()
}

fn events(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(reader, async |mut reader| {
        let event = reader.next().await?;
        Some((Ok(event), reader))
    })
}

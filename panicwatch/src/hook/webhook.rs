//! A hook that is a URL.

use std::time::Duration;

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect,
};
use rustls::crypto::ring;

use super::{Failure, slack};
use crate::{
    config::{self, Template},
    escape,
    incident::Incident,
};

/// What is kept of an answer, bytes.
const MAX_ANSWER: usize = 1024;

/// A client with its connections.
pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new(config: &config::Hook) -> Result<Client, String> {
        // Another part of the program may have chosen it already; there is only this one.
        let _ = ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let name_ = HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header"))?;
            let mut value = HeaderValue::try_from(value)
                .map_err(|_| format!("the header {name} has a value that none can have"))?;
            // Tokens are in them.
            value.set_sensitive(true);
            headers.insert(name_, value);
        }
        let mut builder = reqwest::Client::builder();
        if config.url.starts_with("http://") {
            // Nothing is verified, so a machine without certificates of authorities will do.
            builder = builder.tls_certs_only([]);
        }
        let client = builder
            .timeout(config.timeout.0)
            .default_headers(headers)
            .user_agent(concat!("panicwatch/", env!("CARGO_PKG_VERSION")))
            // An incident, and tokens, are for whom the configuration names.
            .redirect(redirect::Policy::none())
            .build();
        client
            .map(Client)
            .map_err(|error| format!("TLS is not to be had ({}); install ca-certificates", sentence(&error)))
    }

    /// POSTs `incident`.
    pub(super) async fn post(&self, hook: &config::Hook, incident: &Incident) -> Result<(), Failure> {
        let body = match hook.template {
            Template::Incident => serde_json::to_vec(incident),
            Template::Slack => serde_json::to_vec(&slack::message(incident)),
        };
        let body = body.map_err(|error| Failure::lasting(error.to_string()))?;
        let mut request = self.0.post(&hook.url).body(body);
        if !hook.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let answer = request.send().await.map_err(|error| Failure::passing(sentence(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = asked.and_then(|text| retry_after(text, Timestamp::now()));
        let reason = format!("the server answered {status}{}", said(answer).await);
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(Failure { reason, again: passing.then_some(asked) })
    }
}

/// An error with what it is from; without the URL, in which there may be a secret.
fn sentence(error: &reqwest::Error) -> String {
    let mut sources = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        sources.push(error.to_string());
        source = error.source();
    }
    match sources.is_empty() {
        true if error.is_timeout() => "it took too long".to_owned(),
        true => "the request could not be made".to_owned(),
        false => sources.join(": "),
    }
}

/// The beginning of an answer, for the log.
async fn said(mut answer: reqwest::Response) -> String {
    let mut text = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        text.extend(chunk.iter().take(MAX_ANSWER - text.len()));
        if text.len() >= MAX_ANSWER {
            break;
        }
    }
    let text = String::from_utf8_lossy(text.trim_ascii());
    if text.is_empty() { String::new() } else { format!("; it said: {}", escape::one_line(&text)) }
}

/// Seconds, or a time. <https://datatracker.ietf.org/doc/html/rfc9110#section-10.2.3>
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let now = "2026-01-31T12:00:00Z".parse().expect("a time");
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Sat, 31 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO), "it is past");
        assert_eq!(retry_after("soon", now), None);
        assert_eq!(retry_after("-5", now), None);
    }

    #[test]
    fn headers_are_checked() {
        let with = |name: &str, value: &str| {
            let headers = [(name.to_owned(), value.to_owned())].into();
            Client::new(&config::Hook { headers, ..config::Hook::default() }).map(|_| ())
        };
        assert!(with("Authorization", "Bearer x").is_ok());
        assert!(with("a b", "x").is_err() && with("a", "x\r\nforged: y").is_err());
    }
}

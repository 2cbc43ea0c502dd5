//! Calls a hook that is a URL.

use reqwest::{StatusCode, header::CONTENT_TYPE};

use super::{Body, Failure, Notification, slack};
use crate::{
    config::{self, Template},
    escape,
    incident::Incident,
    web,
};

/// Bytes kept of a response.
const MAX_ANSWER: usize = 1024;

/// An HTTP client with its connection pool.
pub(super) struct Client(reqwest::Client);

impl Client {
    pub(super) fn new(config: &config::Hook) -> Result<Client, web::Error> {
        let builder = web::client(&config.url, &config.ca_file)?
            .timeout(config.timeout.0)
            .default_headers(web::headers(&config.headers)?);
        Ok(Client(web::build(builder)?))
    }

    /// POSTs `incident`.
    pub(super) async fn post(
        &self,
        hook: &config::Hook,
        incident: &Incident,
        notification: &Notification,
    ) -> Result<(), Failure> {
        let body = match hook.template {
            Template::Incident => serde_json::to_vec(&Body::new(incident, notification)),
            Template::Slack => serde_json::to_vec(&slack::message(incident, notification)),
        };
        let body = body.map_err(|error| Failure::lasting(error.to_string()))?;
        let mut request = self.0.post(&hook.url).body(body);
        if !hook.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type")) {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let answer = request.send().await.map_err(|error| Failure::passing(web::causes(&error)))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let asked = web::retry_after(&answer);
        let reason = format!("the server answered {status}{}", said(answer).await);
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(Failure { reason, again: passing.then_some(asked) })
    }
}

/// Formats the start of a response, for the log.
async fn said(answer: reqwest::Response) -> String {
    let (text, _) = web::beginning(answer, MAX_ANSWER).await.unwrap_or_default();
    let text = String::from_utf8_lossy(text.trim_ascii());
    if text.is_empty() { String::new() } else { format!("; response: {}", escape::one_line(&text)) }
}

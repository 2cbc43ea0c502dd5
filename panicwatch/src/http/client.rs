//! Asking a daemon: over TCP, TLS or its Unix socket. Must not know what answers mean.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::{escape, web};

/// Where a daemon listens unless it is told otherwise.
pub const DEFAULT: &str = "http://127.0.0.1:9464";
/// A daemon that has not answered by then does not.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer is larger.
const MAX_BYTES: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address.
    #[error(
        "{0} is not a daemon's address; give http://HOST:PORT, https://HOST:PORT or the path of its Unix socket"
    )]
    Address(String),
    /// TLS.
    #[error(transparent)]
    Client(#[from] web::Error),
    /// Nobody there, or the connection broke.
    #[error("cannot reach the daemon at {place}: {reason}; set its address with --daemon")]
    Connection {
        /// Where.
        place: String,
        /// As the system says it.
        reason: String,
    },
    /// It wants a token.
    #[error("the daemon requires a token; name its file with --token-file")]
    Token,
    /// It wants another token.
    #[error(
        "the daemon rejects the token; give the one in the file that http.token_file in its configuration names"
    )]
    WrongToken,
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It refused.
    #[error("the daemon rejected the request: {0}")]
    Refused(String),
    /// What came is no answer.
    #[error("cannot read the daemon's response: {0}")]
    Answer(String),
}

/// A daemon that can be asked.
#[derive(Debug, Clone)]
pub struct Client {
    client: reqwest::Client,
    base: Url,
    /// For people.
    place: String,
    token: Option<String>,
}

impl Client {
    /// `address`: `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH` or the path of a socket. `ca_file` has the authorities of
    /// TLS; empty: the system's. `token` is shown with every question.
    ///
    /// # Errors
    /// When it is none of these, or the authorities cannot be used.
    pub fn new(address: &str, ca_file: &str, token: Option<String>) -> Result<Client, Error> {
        let wrong = || Error::Address(address.to_owned());
        let socket = match address.strip_prefix("unix:").unwrap_or(address) {
            path if path.starts_with(['/', '.']) => Some(path),
            _ => None,
        };
        let base = if socket.is_some() { "http://localhost" } else { address };
        let base: Url = base.parse().map_err(|_| wrong())?;
        let is_bare = base.path() == "/" && base.query().is_none() && base.fragment().is_none();
        let is_open = base.username().is_empty() && base.password().is_none();
        if !matches!(base.scheme(), "http" | "https") || !is_bare || !is_open {
            return Err(wrong());
        }
        // A proxy is for what lies outside.
        let mut builder = web::client(base.as_str(), ca_file)?.timeout(PATIENCE).no_proxy();
        if let Some(socket) = socket {
            builder = builder.unix_socket(socket);
        }
        let place = socket.map_or_else(|| base.as_str().trim_end_matches('/').to_owned(), str::to_owned);
        Ok(Client { client: web::build(builder)?, base, place, token })
    }

    /// Where it asks, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The bytes at `path`, which begins with a slash.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>, Error> {
        let broken = |error: reqwest::Error| Error::Connection {
            place: self.place.clone(),
            reason: web::causes(&error),
        };
        let url = self.base.join(path).map_err(|_| Error::Address(path.to_owned()))?;
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.map_err(broken)?;
        let status = answer.status();
        let (bytes, is_cut) = web::beginning(answer, MAX_BYTES).await.map_err(broken)?;
        match (status.is_success(), is_cut) {
            (false, _) => Err(refusal(status, &bytes, self.token.is_some())),
            (true, true) => Err(Error::Answer(format!("it is longer than {} MiB", MAX_BYTES >> 20))),
            (true, false) => Ok(bytes),
        }
    }

    /// The JSON at `path`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let bytes = self.bytes(path).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer(error.to_string()))
    }
}

/// `shown`: with a token.
fn refusal(status: StatusCode, body: &[u8], shown: bool) -> Error {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let sentence = document.as_ref().and_then(|d| d["error"].as_str());
    let sentence = sentence.map_or_else(|| status.to_string(), |s| escape::one_line_max(s, 300));
    match status {
        StatusCode::UNAUTHORIZED if shown => Error::WrongToken,
        StatusCode::UNAUTHORIZED => Error::Token,
        StatusCode::NOT_FOUND => Error::NotFound(sentence),
        _ => Error::Refused(sentence),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (address, place) in [
            (DEFAULT, "http://127.0.0.1:9464"),
            ("http://[::1]:9464/", "http://[::1]:9464"),
            ("http://box", "http://box"),
            ("https://box:1", "https://box:1"),
            ("/run/panicwatch/api.sock", "/run/panicwatch/api.sock"),
            ("unix:/run/x", "/run/x"),
        ] {
            assert_eq!(Client::new(address, "", None).expect(address).place(), place);
        }
        for address in ["", "http://", "ftp://box", "box:9464", "http://a@b:1", "http://a b:1", "http://a/b"]
        {
            assert!(Client::new(address, "", None).is_err(), "{address}");
        }
    }
}

//! HTTP client of a daemon: over TCP, TLS or its Unix socket. Does not depend on the meaning of responses.

use std::time::Duration;

use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;

use crate::{escape, web};

/// Default address of a daemon.
pub const DEFAULT: &str = "http://127.0.0.1:9464";
/// Time limit of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Maximum size of a response in bytes.
const MAX_BYTES: usize = 256 << 20;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is invalid.
    #[error(
        "{0} is not a daemon's address; give http://HOST:PORT, https://HOST:PORT or the path of its Unix socket"
    )]
    Address(String),
    /// TLS cannot be set up, or its certificate authorities cannot be used.
    #[error(transparent)]
    Client(#[from] web::Error),
    /// The daemon cannot be reached, or the connection failed.
    #[error("cannot reach the daemon at {place}: {reason}; set its address with --daemon")]
    Connection {
        /// Address of the daemon.
        place: String,
        /// Cause, as the system or the HTTP library reports it.
        reason: String,
    },
    /// The daemon requires a token, and none was given.
    #[error("the daemon requires a token; name its file with --token-file")]
    Token,
    /// The daemon rejects the given token.
    #[error(
        "the daemon rejects the token; give the one in the file that http.token_file in its configuration names"
    )]
    WrongToken,
    /// The requested object does not exist; the message of the daemon.
    #[error("{0}")]
    NotFound(String),
    /// The daemon rejected the request; the message of the daemon.
    #[error("the daemon rejected the request: {0}")]
    Refused(String),
    /// The response cannot be read.
    #[error("cannot read the daemon's response: {0}")]
    Answer(String),
}

/// HTTP client of one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    client: reqwest::Client,
    base: Url,
    /// Address in messages.
    place: String,
    token: Option<String>,
}

impl Client {
    /// Returns a client for `address`: `http://HOST:PORT`, `https://HOST:PORT`, `unix:PATH` or the path of a
    /// socket. `ca_file` has the certificate authorities for TLS; empty: the system's. `token` is sent with
    /// every request.
    ///
    /// # Errors
    /// When the address is invalid, or the certificate authorities cannot be used.
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
        // Proxies are for external hosts.
        let mut builder = web::client(base.as_str(), ca_file)?.timeout(PATIENCE).no_proxy();
        if let Some(socket) = socket {
            builder = builder.unix_socket(socket);
        }
        let place = socket.map_or_else(|| base.as_str().trim_end_matches('/').to_owned(), str::to_owned);
        Ok(Client { client: web::build(builder)?, base, place, token })
    }

    /// Returns the address of the daemon, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Fetches the bytes at `path`, which starts with a slash.
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

    /// Fetches the JSON at `path`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn json<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        let bytes = self.bytes(path).await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer(error.to_string()))
    }
}

/// Converts an error response. `shown`: a token was sent.
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

//! Asking a daemon: over TCP or its Unix socket, one connection a question. Must not know what answers mean.

use std::{path::PathBuf, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1,
    header::{AUTHORIZATION, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

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
        "{0} is no address of a daemon: give http://HOST:PORT or the path of its Unix socket (a daemon that speaks TLS is asked \
         over its socket)"
    )]
    Address(String),
    /// Nobody there, or the connection broke.
    #[error("the daemon at {place} cannot be asked: {reason}; --daemon says where it listens")]
    Connection {
        /// Where.
        place: String,
        /// As the system says it.
        reason: String,
    },
    /// It wants a token.
    #[error("the daemon asks for a token: --token-file names the file that holds it")]
    Token,
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It refused.
    #[error("the daemon refused: {0}")]
    Refused(String),
    /// What came is no answer.
    #[error("the daemon's answer cannot be read: {0}")]
    Answer(String),
}

#[derive(Debug, Clone)]
enum Place {
    /// Host and port.
    Tcp(String),
    Unix(PathBuf),
}

/// A daemon that can be asked.
#[derive(Debug, Clone)]
pub struct Client {
    place: Place,
    token: Option<String>,
}

impl Client {
    /// `address`: `http://HOST:PORT`, `unix:PATH` or the path of a socket. `token` is shown with every question.
    ///
    /// # Errors
    /// When it is none of these.
    pub fn new(address: &str, token: Option<String>) -> Result<Client, Error> {
        let wrong = || Error::Address(address.to_owned());
        let place = match address.strip_prefix("http://") {
            Some(rest) => {
                let host = rest.trim_end_matches('/');
                if host.is_empty() || host.contains(['/', '@', ' ']) || host.chars().any(char::is_control) {
                    return Err(wrong());
                }
                let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
                Place::Tcp(if port { host.to_owned() } else { format!("{host}:80") })
            }
            None => match address.strip_prefix("unix:").unwrap_or(address) {
                path if path.starts_with(['/', '.']) => Place::Unix(path.into()),
                _ => return Err(wrong()),
            },
        };
        Ok(Client { place, token })
    }

    /// Where it asks, for people.
    pub fn place(&self) -> String {
        match &self.place {
            Place::Tcp(host) => format!("http://{host}"),
            Place::Unix(path) => path.display().to_string(),
        }
    }

    /// The bytes at `path`, which begins with a slash.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn bytes(&self, path: &str) -> Result<Bytes, Error> {
        let answer = async {
            match &self.place {
                Place::Tcp(host) => self.ask(TcpStream::connect(host).await, host, path).await,
                Place::Unix(socket) => self.ask(UnixStream::connect(socket).await, "localhost", path).await,
            }
        };
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(&format!("no answer in {} seconds", PATIENCE.as_secs()))),
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

    fn broken(&self, reason: &dyn ToString) -> Error {
        Error::Connection { place: self.place(), reason: reason.to_string() }
    }

    async fn ask<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: std::io::Result<S>,
        host: &str,
        path: &str,
    ) -> Result<Bytes, Error> {
        let stream = stream.map_err(|error| self.broken(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(&error))?;
        let mut request = Request::get(path).header(HOST, host);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| self.broken(&error))?;
        // The connection moves while its answer is waited for, and ends with it.
        let driver = tokio::spawn(connection);
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| self.broken(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
            let body = body.map_err(|error| Error::Answer(error.to_string()))?.to_bytes();
            if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
        };
        let answer = answer.await;
        driver.abort();
        answer
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> Error {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let sentence = document.as_ref().and_then(|d| d["error"].as_str());
    let sentence = sentence.map_or_else(|| status.to_string(), |s| crate::escape::one_line_max(s, 300));
    match status {
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
            ("http://box", "http://box:80"),
            ("/run/panicwatch/api.sock", "/run/panicwatch/api.sock"),
            ("unix:/run/x", "/run/x"),
        ] {
            assert_eq!(Client::new(address, None).expect(address).place(), place);
        }
        for address in
            ["", "http://", "https://box", "box:9464", "http://a@b:1", "http://a\n:1", "http://a/b"]
        {
            assert!(Client::new(address, None).is_err(), "{address}");
        }
    }
}

//! Code shared by all HTTP clients of panicwatch: trusted certificate authorities, headers, and the handling
//! of responses. This module does not depend on the contents of requests.

use std::{collections::BTreeMap, fs, time::Duration};

use jiff::{Timestamp, fmt::rfc2822};
use reqwest::{
    Certificate, ClientBuilder, Response,
    header::{HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The certificate authorities cannot be used.
    #[error("cannot use the CA certificates in ca_file {path}: {reason}")]
    Authorities {
        /// Path of the `ca_file`.
        path: String,
        /// Reason given by the system or by the PEM parser.
        reason: String,
    },
    /// A header that cannot be sent, by name.
    #[error(
        "cannot send the header {0:?}: a name consists of letters, digits and dashes, a value has no line breaks"
    )]
    Header(String),
    /// TLS is not available: the causes.
    #[error("TLS is not available ({0}); install ca-certificates or set ca_file")]
    Tls(String),
}

/// Installs the process-wide cryptography provider. Later calls have no effect.
pub fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Returns a builder of a client for `url` that trusts the authorities in `ca_file`, or the system's if that
/// is empty. The client follows no redirects: the data and tokens it sends are for the configured server
/// alone.
///
/// # Errors
/// When `ca_file` cannot be read or has no certificate.
pub fn client(url: &str, ca_file: &str) -> Result<ClientBuilder, Error> {
    install_provider();
    let builder = reqwest::Client::builder()
        .user_agent(concat!("panicwatch/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none());
    Ok(match authorities(ca_file)? {
        Some(pem) => {
            let wrong = |error: reqwest::Error| Error::Authorities {
                path: ca_file.to_owned(),
                reason: causes(&error),
            };
            builder.tls_certs_only(Certificate::from_pem_bundle(&pem).map_err(wrong)?)
        }
        // Plain HTTP verifies nothing, so it must work on a machine without certificate authorities.
        None if url.starts_with("http://") => builder.tls_certs_only([]),
        None => builder,
    })
}

/// Builds the client.
///
/// # Errors
/// When the system has no certificate authorities.
pub fn build(builder: ClientBuilder) -> Result<reqwest::Client, Error> {
    builder.build().map_err(|error| Error::Tls(causes(&error)))
}

/// Reads the PEM file at `path`; `None` if `path` is empty.
///
/// # Errors
/// When the file cannot be read or has no certificate.
pub fn authorities(path: &str) -> Result<Option<Vec<u8>>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    let wrong = |reason: String| Error::Authorities { path: path.to_owned(), reason };
    let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(Some(pem)),
        Some(Err(error)) => Err(wrong(error.to_string())),
        None => Err(wrong("there is no certificate in it".to_owned())),
    }
}

/// Converts the configured headers, which are sent with every request.
///
/// # Errors
/// When a header has an invalid name or value.
pub fn headers(headers: &BTreeMap<String, String>) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong = || Error::Header(name.clone());
        let key = HeaderName::try_from(name).map_err(|_| wrong())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        // Header values may be tokens.
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(map)
}

/// Returns the time to wait that `answer` asks for in `Retry-After`: seconds, or the time until a date.
/// <https://datatracker.ietf.org/doc/html/rfc9110#section-10.2.3>
pub fn retry_after(answer: &Response) -> Option<Duration> {
    let header = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    wait(header.trim(), Timestamp::now())
}

fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO))
}

/// Returns the first `max` bytes of a response body, and whether there are more.
///
/// # Errors
/// When the connection fails.
pub async fn beginning(mut answer: Response, max: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        let fits = chunk.len().min(max - bytes.len());
        bytes.extend_from_slice(&chunk[..fits]);
        if fits < chunk.len() {
            return Ok((bytes, true));
        }
    }
    Ok((bytes, false))
}

/// Formats an error with all its causes: the outer ones alone are as vague as "transport error". Leaves out
/// the URL of a request, which may contain a secret.
pub fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => "it took too long".to_owned(),
        Some(error) if error.is_connect() => "no connection".to_owned(),
        Some(_) => "the request failed".to_owned(),
        None => error.to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_time() {
        let now = "2026-01-31T12:00:00Z".parse().expect("a time");
        assert_eq!(wait("7", now), Some(Duration::from_secs(7)));
        assert_eq!(wait("Sat, 31 Jan 2026 12:00:30 GMT", now), Some(Duration::from_secs(30)));
        assert_eq!(wait("Sat, 31 Jan 2026 11:00:00 GMT", now), Some(Duration::ZERO), "it is past");
        assert_eq!((wait("soon", now), wait("-5", now)), (None, None));
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display().to_string();
        for text in ["", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n"] {
            fs::write(&path, text).expect("written");
            assert!(matches!(client("https://x", &path), Err(Error::Authorities { .. })), "{text:?}");
        }
        assert!(authorities("/nowhere.pem").is_err());
        assert!(authorities("").expect("none").is_none());
    }

    #[test]
    fn what_no_header_can_be_is_refused() {
        let of = |name: &str, value: &str| headers(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(of("X-Token", "a b").is_ok());
        assert!(of("X Token", "a").is_err() && of("X-Token", "a\nb").is_err());
    }
}

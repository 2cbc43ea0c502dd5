//! One request to a collector, by the transport that the configuration names.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};

use super::{grpc::Grpc, http::Http, retry::Refusal};
use crate::config::{Otlp, Protocol};

/// Why nothing can be sent with this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL.
    #[error("otlp.endpoint {0:?} is no URL of a collector; write it as http://collector:4317")]
    Endpoint(String),
    /// A header.
    #[error(
        "the header {0:?} of otlp.headers cannot be sent: a name has letters, digits and dashes, a value no line ends"
    )]
    Header(String),
    /// The authorities.
    #[error("otlp.ca_file {path} cannot be used: {reason}")]
    Authorities {
        /// File.
        path: String,
        /// As the system or the reader of PEM says it.
        reason: String,
    },
    /// TLS.
    #[error("no connection to otlp.endpoint can be made: {0}")]
    Tls(String),
}

/// What is sent.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
}

/// The collector took it, but not all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Log records or spans that it will not keep.
    pub(super) rejected: u64,
    /// Why; text of the collector, not escaped.
    pub(super) message: String,
}

/// A connection to a collector, made when it is needed and again when it broke.
#[derive(Debug)]
pub struct Exporter(Transport);

#[derive(Debug)]
enum Transport {
    Grpc(Box<Grpc>),
    Http(Http),
}

impl Exporter {
    /// Reads the authorities' file; connects to nobody yet. Needs a runtime of tokio to be in.
    ///
    /// # Errors
    /// When the configuration cannot work.
    pub fn new(config: &Otlp) -> Result<Exporter, Error> {
        // A process has one provider; it does not matter who was first to say so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Exporter(match config.protocol {
            Protocol::Grpc => Transport::Grpc(Box::new(Grpc::new(config)?)),
            Protocol::HttpProtobuf => Transport::Http(Http::new(config)?),
        }))
    }

    pub(super) async fn send(&mut self, request: Request) -> Result<Accepted, Refusal> {
        match &mut self.0 {
            Transport::Grpc(grpc) => grpc.send(request).await,
            Transport::Http(http) => http.send(request).await,
        }
    }
}

/// The PEM file, if one is named.
pub(super) fn authorities(config: &Otlp) -> Result<Option<Vec<u8>>, Error> {
    if config.ca_file.is_empty() {
        return Ok(None);
    }
    let failed = |error: std::io::Error| Error::Authorities {
        path: config.ca_file.clone(),
        reason: error.to_string(),
    };
    std::fs::read(&config.ca_file).map(Some).map_err(failed)
}

/// An error and all that caused it: the outer ones alone say "transport error".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
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

//! Sends requests to a collector over the configured transport.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};

use super::{grpc::Grpc, http::Http, retry::Refusal};
use crate::{
    config::{Otlp, Protocol},
    web,
};

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The endpoint is not a valid URL.
    #[error("otlp.endpoint {0:?} is not the URL of a collector; write it as http://collector:4317")]
    Endpoint(String),
    /// A header, or the trusted certificate authorities, cannot be used.
    #[error("[otlp] {0}")]
    Client(#[from] web::Error),
    /// TLS cannot be set up.
    #[error("cannot connect to otlp.endpoint: {0}")]
    Tls(String),
}

/// An OTLP request.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
}

/// Response of a collector that accepted a request, possibly in part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Number of log records or spans that the collector rejected.
    pub(super) rejected: u64,
    /// The collector's reason, not escaped.
    pub(super) message: String,
}

/// A connection to a collector, established on first use and re-established after it broke.
#[derive(Debug)]
pub struct Exporter(Transport);

#[derive(Debug)]
enum Transport {
    Grpc(Box<Grpc>),
    Http(Http),
}

impl Exporter {
    /// Reads the file of certificate authorities; does not connect yet. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub fn new(config: &Otlp) -> Result<Exporter, Error> {
        web::install_provider();
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

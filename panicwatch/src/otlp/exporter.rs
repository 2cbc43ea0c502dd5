//! One request to a collector, by the transport that the configuration names.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};

use super::{grpc::Grpc, http::Http, retry::Refusal};
use crate::{
    config::{Otlp, Protocol},
    web,
};

/// Why nothing can be sent with this configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL.
    #[error("otlp.endpoint {0:?} is not the URL of a collector; write it as http://collector:4317")]
    Endpoint(String),
    /// What is sent with each request, or whom to trust.
    #[error("[otlp] {0}")]
    Client(#[from] web::Error),
    /// TLS.
    #[error("cannot connect to otlp.endpoint: {0}")]
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

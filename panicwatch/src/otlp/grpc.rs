//! OTLP/gRPC. <https://opentelemetry.io/docs/specs/otlp/#otlpgrpc>

use std::error::Error as _;

use opentelemetry_proto::tonic::collector::{
    logs::v1::logs_service_client::LogsServiceClient, trace::v1::trace_service_client::TraceServiceClient,
};
use tonic::{
    codec::CompressionEncoding,
    metadata::{MetadataKey, MetadataMap},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

use super::{
    exporter::{Accepted, Error, Request},
    retry::Refusal,
};
use crate::{
    config::Otlp,
    web::{self, causes},
};

#[derive(Debug)]
pub(super) struct Grpc {
    logs: LogsServiceClient<Channel>,
    traces: TraceServiceClient<Channel>,
    headers: MetadataMap,
}

impl Grpc {
    pub(super) fn new(config: &Otlp) -> Result<Grpc, Error> {
        let tls = |error: tonic::transport::Error| Error::Tls(causes(&error));
        let endpoint = Endpoint::from_shared(config.endpoint.clone())
            .map_err(|_| Error::Endpoint(config.endpoint.clone()))?
            .user_agent(concat!("panicwatch/", env!("CARGO_PKG_VERSION")))
            .map_err(tls)?
            .timeout(config.timeout.0)
            .connect_timeout(config.timeout.0);
        let endpoint = if config.endpoint.starts_with("https:") {
            let trusted = match web::authorities(&config.ca_file)? {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            endpoint.tls_config(trusted).map_err(tls)?
        } else {
            endpoint
        };
        let channel = endpoint.connect_lazy();
        let (mut logs, mut traces) =
            (LogsServiceClient::new(channel.clone()), TraceServiceClient::new(channel));
        if config.gzip {
            logs = logs.send_compressed(CompressionEncoding::Gzip);
            traces = traces.send_compressed(CompressionEncoding::Gzip);
        }
        let gzip = CompressionEncoding::Gzip;
        let (logs, traces) = (logs.accept_compressed(gzip), traces.accept_compressed(gzip));
        Ok(Grpc { logs, traces, headers: headers(config)? })
    }

    pub(super) async fn send(&mut self, request: Request) -> Result<Accepted, Refusal> {
        let headers = self.headers.clone();
        let answer = match request {
            Request::Logs(message) => {
                let answer = self.logs.export(with(headers, message)).await;
                answer.map(|answer| {
                    answer.into_inner().partial_success.map(|partial| Accepted {
                        rejected: u64::try_from(partial.rejected_log_records).unwrap_or(0),
                        message: partial.error_message,
                    })
                })
            }
            Request::Traces(message) => {
                let answer = self.traces.export(with(headers, message)).await;
                answer.map(|answer| {
                    answer.into_inner().partial_success.map(|partial| Accepted {
                        rejected: u64::try_from(partial.rejected_spans).unwrap_or(0),
                        message: partial.error_message,
                    })
                })
            }
        };
        answer.map(Option::unwrap_or_default).map_err(|status| match status.source() {
            // A source means that the connection failed and no collector responded.
            Some(cause) => Refusal { reason: causes(cause), ..Refusal::of_grpc(&status, false) },
            None => Refusal::of_grpc(&status, true),
        })
    }
}

fn with<T>(headers: MetadataMap, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = headers;
    request
}

fn headers(config: &Otlp) -> Result<MetadataMap, Error> {
    let mut map = MetadataMap::new();
    for (name, value) in &config.headers {
        let wrong = || web::Error::Header(name.clone());
        let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes()).map_err(|_| wrong())?;
        map.insert(key, value.parse().map_err(|_| wrong())?);
    }
    Ok(map)
}

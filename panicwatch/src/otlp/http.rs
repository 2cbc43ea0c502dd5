//! OTLP/HTTP with protobuf. <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message as _;
use reqwest::{
    Certificate, Client, Response, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};

use super::{
    exporter::{Accepted, Error, Request, authorities, causes},
    retry::{Refusal, retry_after},
};
use crate::config::Otlp;

/// An answer is read up to here.
const MAX_ANSWER: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    logs: Url,
    traces: Url,
    gzip: bool,
}

impl Http {
    pub(super) fn new(config: &Otlp) -> Result<Http, Error> {
        let mut builder = Client::builder()
            .user_agent(concat!("panicwatch/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(config)?)
            .timeout(config.timeout.0)
            .redirect(Policy::none());
        if let Some(pem) = authorities(config)? {
            let wrong = |reason: String| Error::Authorities { path: config.ca_file.clone(), reason };
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(causes(&error)))?;
            if certificates.is_empty() {
                return Err(wrong("there is no certificate in it".to_owned()));
            }
            builder = builder.tls_certs_only(certificates);
        } else if config.endpoint.starts_with("http://") {
            // Nothing is verified, so a machine without certificates of authorities will do.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| Error::Tls(causes(&error)))?;
        let url = |path: &str| {
            let base = config.endpoint.trim_end_matches('/');
            Url::parse(&format!("{base}{path}")).map_err(|_| Error::Endpoint(config.endpoint.clone()))
        };
        Ok(Http { client, logs: url("/v1/logs")?, traces: url("/v1/traces")?, gzip: config.gzip })
    }

    pub(super) async fn send(&self, request: Request) -> Result<Accepted, Refusal> {
        let (url, body) = match &request {
            Request::Logs(message) => (&self.logs, message.encode_to_vec()),
            Request::Traces(message) => (&self.traces, message.encode_to_vec()),
        };
        let mut post = self.client.post(url.clone()).header(CONTENT_TYPE, "application/x-protobuf");
        let body = if self.gzip {
            post = post.header(CONTENT_ENCODING, "gzip");
            compressed(&body)
        } else {
            body
        };
        let lost = |error: reqwest::Error| Refusal::unreachable(causes(&error));
        let answer = post.body(body).send().await.map_err(lost)?;
        let code = answer.status();
        let header = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = header.and_then(|value| retry_after(value, jiff::Timestamp::now()));
        let bytes = read(answer).await.map_err(lost)?;
        if !code.is_success() {
            let status = tonic_types::Status::decode(bytes.as_slice()).unwrap_or_default();
            return Err(Refusal::of_http(code.as_u16(), after, &status.message));
        }
        Ok(accepted(&request, &bytes))
    }
}

/// What a collector that took it says; one that says nothing that can be read took all.
fn accepted(request: &Request, bytes: &[u8]) -> Accepted {
    let (rejected, message) = match request {
        Request::Logs(_) => {
            let answer = ExportLogsServiceResponse::decode(bytes).unwrap_or_default();
            let partial = answer.partial_success.unwrap_or_default();
            (partial.rejected_log_records, partial.error_message)
        }
        Request::Traces(_) => {
            let answer = ExportTraceServiceResponse::decode(bytes).unwrap_or_default();
            let partial = answer.partial_success.unwrap_or_default();
            (partial.rejected_spans, partial.error_message)
        }
    };
    Accepted { rejected: u64::try_from(rejected).unwrap_or(0), message }
}

async fn read(mut answer: Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        bytes.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - bytes.len())]);
        if bytes.len() == MAX_ANSWER {
            break;
        }
    }
    Ok(bytes)
}

fn compressed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

fn headers(config: &Otlp) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in &config.headers {
        let wrong = |_| Error::Header(name.clone());
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Error::Header(name.clone()))?;
        let mut value = HeaderValue::from_str(value).map_err(wrong)?;
        // It may be a password.
        value.set_sensitive(true);
        map.insert(key, value);
    }
    Ok(map)
}

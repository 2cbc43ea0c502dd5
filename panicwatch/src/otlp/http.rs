//! OTLP/HTTP with protobuf. <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message as _;
use reqwest::{
    Client, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};

use super::{
    exporter::{Accepted, Error, Request},
    retry::Refusal,
};
use crate::{config::Otlp, web};

/// Maximum number of bytes read of a response.
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
        let builder = web::client(&config.endpoint, &config.ca_file)?
            .default_headers(web::headers(&config.headers)?)
            .timeout(config.timeout.0);
        let client = web::build(builder)?;
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
        let lost = |error: reqwest::Error| Refusal::unreachable(web::causes(&error));
        let answer = post.body(body).send().await.map_err(lost)?;
        let code = answer.status();
        let after = web::retry_after(&answer);
        let (bytes, _) = web::beginning(answer, MAX_ANSWER).await.map_err(lost)?;
        if !code.is_success() {
            let status = tonic_types::Status::decode(bytes.as_slice()).unwrap_or_default();
            return Err(Refusal::of_http(code.as_u16(), after, &status.message));
        }
        Ok(accepted(&request, &bytes))
    }
}

/// Decodes the response of a collector that accepted the request; an unreadable one counts as complete
/// acceptance.
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

fn compressed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default()
}

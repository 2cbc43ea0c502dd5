//! A collector that rejects on purpose: what is retried, what is dropped, and that one incident does not
//! block the others.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::post,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use panicwatch::config::{Otlp, Protocol};
use prost::Message as _;

use crate::{Bench, block_on, config};

/// Answers a request, given its path and the incident IDs of its log records.
type Rule = Box<dyn FnMut(&str, &[String]) -> Response + Send>;

/// Path and incident IDs of each accepted request.
type Taken = Vec<(String, Vec<String>)>;

#[derive(Clone)]
struct Collector {
    rule: Arc<Mutex<Rule>>,
    taken: Arc<Mutex<Taken>>,
}

async fn take(State(collector): State<Collector>, uri: Uri, body: Bytes) -> Response {
    let ids = if uri.path() == "/v1/logs" { ids(&body) } else { Vec::new() };
    let answer = collector.rule.lock().expect("whole")(uri.path(), &ids);
    if answer.status().is_success() {
        collector.taken.lock().expect("whole").push((uri.path().to_owned(), ids));
    }
    answer
}

fn ids(body: &[u8]) -> Vec<String> {
    let request = ExportLogsServiceRequest::decode(body).expect("it is a request");
    let records = request.resource_logs.into_iter().flat_map(|r| r.scope_logs).flat_map(|s| s.log_records);
    let id = |record: opentelemetry_proto::tonic::logs::v1::LogRecord| {
        let found = record.attributes.into_iter().find(|attribute| attribute.key == "panicwatch.id");
        let value = found.and_then(|attribute| attribute.value?.value).expect("an id");
        match value {
            opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue(id) => id,
            other => panic!("{other:?}"),
        }
    };
    records.map(id).collect()
}

impl Collector {
    async fn start(rule: impl FnMut(&str, &[String]) -> Response + Send + 'static) -> (Collector, Otlp) {
        let collector = Collector { rule: Arc::new(Mutex::new(Box::new(rule))), taken: Arc::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let app = Router::new().route("/{*path}", post(take)).with_state(collector.clone());
        tokio::spawn(async { axum::serve(listener, app).await.expect("it serves") });
        let config = config(format!("http://{address}"), Protocol::HttpProtobuf);
        (collector, Otlp { gzip: false, ..config })
    }

    fn logs(&self) -> Vec<String> {
        let taken = self.taken.lock().expect("whole");
        let mut ids: Vec<String> = taken.iter().flat_map(|(_, ids)| ids.clone()).collect();
        ids.sort();
        ids
    }
}

#[test]
fn one_that_is_refused_for_good_does_not_hold_up_the_others() {
    block_on(async {
        let mut bench = Bench::new();
        let mut ids = bench.add("A", 20);
        let poison = ids.remove(5);
        let refused = poison.clone();
        let (collector, config) = Collector::start(move |_, ids| {
            let bad = ids.contains(&refused);
            if bad { StatusCode::BAD_REQUEST } else { StatusCode::OK }.into_response()
        })
        .await;
        let sender = bench.start(config);
        bench.emptied().await;
        bench.stopped(sender).await;
        assert_eq!(collector.logs(), ids);
        assert_eq!(bench.number("panicwatch_export_sent_total"), 19.0);
        assert_eq!(bench.number("panicwatch_export_dropped_total"), 1.0);
    });
}

#[test]
fn logs_that_were_taken_are_not_sent_again_with_the_traces_that_were_not() {
    block_on(async {
        let mut bench = Bench::new();
        let ids = bench.add("A", 3);
        let mut refusals = 2;
        let (collector, config) = Collector::start(move |path, _| {
            if path == "/v1/traces" && refusals > 0 {
                refusals -= 1;
                return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response();
            }
            StatusCode::OK.into_response()
        })
        .await;
        let sender = bench.start(config);
        bench.emptied().await;
        bench.stopped(sender).await;
        assert_eq!(collector.logs(), ids, "each once");
        assert_eq!(bench.number("panicwatch_export_failures_total"), 2.0);
        assert_eq!(bench.number("panicwatch_export_sent_total"), 3.0);
    });
}

#[test]
fn what_is_taken_and_not_kept_is_counted_and_not_sent_again() {
    block_on(async {
        let mut bench = Bench::new();
        let ids = bench.add("A", 3);
        let (collector, config) = Collector::start(|path, _| {
            let partial =
                ExportLogsPartialSuccess { rejected_log_records: 1, error_message: "no".to_owned() };
            let answer = ExportLogsServiceResponse { partial_success: Some(partial) };
            if path == "/v1/logs" { answer.encode_to_vec() } else { Vec::new() }.into_response()
        })
        .await;
        let sender = bench.start(config);
        bench.emptied().await;
        bench.stopped(sender).await;
        assert_eq!(collector.logs(), ids, "each once");
        assert_eq!(bench.number("panicwatch_export_sent_total"), 2.0);
        assert_eq!(bench.number("panicwatch_export_dropped_total"), 1.0);
    });
}

#[test]
fn of_more_than_may_wait_the_oldest_go() {
    block_on(async {
        let mut bench = Bench::new();
        let ids = bench.add("A", 12);
        let (collector, config) = Collector::start(|_, _| StatusCode::OK.into_response()).await;
        let sender = bench.start(Otlp { max_queue: 5, ..config });
        bench.emptied().await;
        bench.stopped(sender).await;
        assert_eq!(collector.logs(), ids[7..]);
        assert_eq!(bench.number("panicwatch_export_dropped_total"), 7.0);
    });
}

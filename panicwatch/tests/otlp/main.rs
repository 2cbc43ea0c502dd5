//! OTLP delivery to third-party collectors: to rotel by gRPC and HTTP, and to OpenTelemetry's own Python
//! classes behind TLS; and to a collector that rejects on purpose.

mod collectors;
#[path = "../tls/front.rs"]
mod front;
mod refusals;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use panicwatch::{
    config::{Metrics as Bounds, Otlp, Protocol},
    incident::Incident,
    metrics::Metrics,
    otlp,
    render::otlp::encode,
    store::{Batch, Outbox, Store},
};
use prost::Message as _;
use tokio::sync::watch;

use collectors::{Judge, Rotel, tools};
use front::Certificate;

/// Timeout of every wait in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

const DOCUMENTS: [&str; 4] = [
    include_str!("../incidents/recovered.json"),
    include_str!("../incidents/repanicked_chain.json"),
    include_str!("../incidents/hostile.json"),
    include_str!("../incidents/slow_read.json"),
];

/// A store with an outbox, and what a sender needs to drain it.
pub(crate) struct Bench {
    store: Arc<Store>,
    pub(crate) outbox: Outbox,
    stored: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    pub(crate) metrics: Metrics,
    batches: u64,
    _dir: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let dir = tempfile::tempdir().expect("a folder");
        let opened = Store::open(dir.path(), &["otlp".to_owned()]).expect("a store");
        let store = Arc::new(opened.store);
        let outbox = Outbox::new(store.clone(), "otlp");
        let metrics = Metrics::new(&Bounds::default(), &Default::default()).expect("metrics");
        let (stored, stop) = (watch::Sender::new(0), watch::Sender::new(false));
        Bench { store, outbox, stored, stop, metrics, batches: 0, _dir: dir }
    }

    /// Stores `n` incidents with the IDs `prefix`000, `prefix`001 … and returns the IDs.
    pub(crate) fn add(&mut self, prefix: &str, n: usize) -> Vec<String> {
        let of = |i: usize| {
            let mut incident: Incident = serde_json::from_str(DOCUMENTS[i % DOCUMENTS.len()]).expect("one");
            incident.id = format!("{prefix}{i:03}");
            incident
        };
        let incidents: Vec<Incident> = (0..n).map(of).collect();
        let ids = incidents.iter().map(|incident| incident.id.clone()).collect();
        let incidents = incidents.into_iter().map(|incident| (Arc::new(incident), true)).collect();
        self.batches += 1;
        let batch = Batch { id: self.batches, incidents, ..Batch::default() };
        self.store.append(&batch).expect("it is written");
        self.stored.send_modify(|n| *n += 1);
        ids
    }

    pub(crate) fn start(&self, config: Otlp) -> tokio::task::JoinHandle<()> {
        let (outbox, sink) = (self.outbox.clone(), self.metrics.sink("otlp"));
        let exporter = otlp::Exporter::new(&config).expect("an exporter");
        tokio::spawn(otlp::run(
            outbox,
            config,
            exporter,
            sink,
            self.stored.subscribe(),
            self.stop.subscribe(),
        ))
    }

    /// Waits until the outbox is empty.
    pub(crate) async fn emptied(&self) {
        let empty = async {
            while self.outbox.waiting().expect("it is read") > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, empty).await.expect("all is sent in time");
    }

    /// Signals the sender to stop, and waits until it has.
    pub(crate) async fn stopped(&self, sender: tokio::task::JoinHandle<()>) {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(PATIENCE, sender).await.expect("it stops in time");
        ended.expect("it does not panic");
    }

    pub(crate) fn number(&self, metric: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{metric}{{sink=\"otlp\"}}")));
        let value = line.and_then(|line| line.rsplit(' ').next()).expect("it is there");
        value.parse().expect("a number")
    }
}

/// Runs a test's future on a runtime of its own.
pub(crate) fn block_on(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future);
}

pub(crate) fn config(endpoint: String, protocol: Protocol) -> Otlp {
    Otlp { endpoint, protocol, ..Otlp::default() }
}

#[test]
fn every_incident_arrives_once_by_either_transport() {
    let Some(tools) = tools("rotel/rotel-agent") else { return };
    block_on(async {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            for gzip in [true, false] {
                let mut bench = Bench::new();
                let rotel = Rotel::start(&tools, None).await;
                let ids = bench.add("A", 40);
                let sender = bench.start(Otlp { gzip, ..config(rotel.url(protocol), protocol) });
                bench.emptied().await;
                let more = bench.add("B", 1);
                bench.emptied().await;
                bench.stopped(sender).await;
                for id in ids.iter().chain(&more) {
                    rotel.shows(id, 2).await;
                }
                assert_eq!(bench.number("panicwatch_export_sent_total"), 41.0, "{protocol:?}");
                assert_eq!(bench.number("panicwatch_export_dropped_total"), 0.0, "{protocol:?}");
            }
        }
    });
}

#[test]
fn nothing_is_lost_while_the_collector_is_away() {
    let Some(tools) = tools("rotel/rotel-agent") else { return };
    block_on(async {
        let mut bench = Bench::new();
        let first = Rotel::start(&tools, None).await;
        let before = bench.add("A", 20);
        let sender = bench.start(config(first.url(Protocol::Grpc), Protocol::Grpc));
        bench.emptied().await;
        for id in &before {
            first.shows(id, 2).await;
        }
        let ports = first.kill();
        let meanwhile = bench.add("B", 20);
        let failing = async {
            while bench.number("panicwatch_export_failures_total") == 0.0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, failing).await.expect("it notices");
        let second = Rotel::start(&tools, Some(ports)).await;
        bench.emptied().await;
        for id in &meanwhile {
            second.shows(id, 2).await;
        }
        for id in &before {
            second.shows(id, 0).await;
        }
        bench.stopped(sender).await;
        assert_eq!(bench.number("panicwatch_export_sent_total"), 40.0);
    });
}

#[test]
fn stopping_with_nobody_there_keeps_what_waits() {
    block_on(async {
        let mut bench = Bench::new();
        bench.add("A", 3);
        // Nothing listens on port 9 (discard).
        let sender = bench.start(config("http://127.0.0.1:9".to_owned(), Protocol::Grpc));
        bench.stopped(sender).await;
        assert_eq!(bench.outbox.waiting().expect("it is read"), 3);
    });
}

#[test]
fn both_transports_go_through_tls_and_only_to_whom_they_trust() {
    let Some(tools) = tools("rotel/rotel-agent") else { return };
    let (Some(certificate), Some(other)) = (Certificate::make(), Certificate::make()) else { return };
    block_on(async {
        for protocol in [Protocol::Grpc, Protocol::HttpProtobuf] {
            let mut bench = Bench::new();
            let rotel = Rotel::start(&tools, None).await;
            let url = format!("https://{}", certificate.in_front_of(rotel.address(protocol)));
            let ids = bench.add("A", 3);
            let distrusts = Otlp { ca_file: other.cert(), ..config(url.clone(), protocol) };
            let sender = bench.start(distrusts);
            let failed = async {
                while bench.number("panicwatch_export_failures_total") == 0.0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(PATIENCE, failed).await.expect("it fails in time");
            bench.stopped(sender).await;
            assert_eq!(bench.outbox.waiting().expect("it is read"), 3, "{protocol:?}");
            bench.stop.send_replace(false);
            let sender = bench.start(Otlp { ca_file: certificate.cert(), ..config(url, protocol) });
            bench.emptied().await;
            bench.stopped(sender).await;
            for id in &ids {
                rotel.shows(id, 2).await;
            }
        }
    });
}

#[test]
fn opentelemetrys_own_classes_read_the_same_through_tls() {
    let Some(tools) = tools("python/google/protobuf/__init__.py") else { return };
    let Some(certificate) = Certificate::make() else { return };
    block_on(async {
        let mut bench = Bench::new();
        let mut judge = Judge::start(&tools, &certificate);
        let ids = bench.add("A", 4);
        let mut config = config(judge.url(), Protocol::HttpProtobuf);
        config.ca_file = certificate.cert();
        config.headers.insert("X-Tenant".to_owned(), "shop".to_owned());
        let sender = bench.start(config);
        bench.emptied().await;
        bench.stopped(sender).await;
        let told = judge.told(8);
        for (i, id) in ids.iter().enumerate() {
            let incident: Incident = serde_json::from_str(DOCUMENTS[i]).expect("one");
            let log = told.iter().find(|one| one["attributes"]["panicwatch.id"] == **id).expect("a record");
            assert_eq!(log["event"], "exception");
            assert_eq!(log["attributes"]["exception.message"].as_str(), incident.message.as_deref());
            assert_eq!(log["resource"]["process.pid"], incident.process.pid);
            let time: jiff::Timestamp = incident.time.parse().expect("a time");
            assert_eq!(log["time"].as_i64().map(i128::from), Some(time.as_nanosecond()));
            let of = |one: &&serde_json::Value| one["spans"][0]["attributes"]["panicwatch.id"] == **id;
            let trace = told.iter().find(of).expect("a trace");
            let root = &trace["spans"][0];
            assert_eq!((&root["trace"], &root["span"]), (&log["trace"], &log["span"]));
            assert_eq!(root["status"], 2, "an error");
            let length = root["to"].as_i64().zip(root["from"].as_i64()).map(|(to, from)| to - from);
            let expected = incident.end_ns.map(|end| (end - incident.start_ns) as i64);
            assert!(expected.is_none_or(|expected| length == Some(expected)), "{length:?} {expected:?}");
        }
    });
}

#[test]
fn opentelemetrys_own_classes_read_the_same_from_json() {
    let Some(tools) = tools("python/google/protobuf/__init__.py") else { return };
    for document in DOCUMENTS {
        let mut show = Command::new(env!("CARGO_BIN_EXE_panicwatch"))
            .args(["show", "-", "--format", "otlp"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("panicwatch starts");
        show.stdin.take().expect("a pipe").write_all(document.as_bytes()).expect("it reads");
        let read = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otlp/json_reader.py"))
            .env("PYTHONPATH", tools.join("python"))
            .stdin(show.stdout.take().expect("a pipe"))
            .output()
            .expect("Python runs");
        assert!(show.wait().expect("it ends").success());
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        let text = String::from_utf8(read.stdout).expect("text");
        let messages: Vec<Vec<u8>> = text.lines().map(bytes).collect();
        let incident: Incident = serde_json::from_str(document).expect("one");
        let host = panicwatch::incident::Host::default();
        let logs = ExportLogsServiceRequest::decode(messages[0].as_slice()).expect("logs");
        assert_eq!(logs.resource_logs, [encode::logs(&incident, &host)]);
        let traces = ExportTraceServiceRequest::decode(messages[1].as_slice()).expect("traces");
        assert_eq!(traces.resource_spans, [encode::spans(&incident, &host)]);
    }
}

/// Decodes hexadecimal digits.
fn bytes(hex: &str) -> Vec<u8> {
    let digits = |i: usize| u8::from_str_radix(&hex[i..i + 2], 16).expect("digits");
    (0..hex.len()).step_by(2).map(digits).collect()
}

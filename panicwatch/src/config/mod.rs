//! The daemon's configuration: its tables and keys, each with its meaning and default.
//!
//! This module does no I/O: its callers pass the text of the file and the environment. docs/configuration.md
//! and the shipped sample (`deploy/panicwatch.toml`) document the same keys.

mod check;
mod load;
mod place;
pub mod select;
mod units;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    incident::{Kind, Outcome},
    recorder::{CAPTURE_TIME, Level, OverheadBudget},
};
pub use load::{Checked, Problem, needs_restart};
pub use select::Selectors;
pub use units::{Bytes, Span};

/// The whole configuration; a key that the file omits has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Selects the processes to watch.
    pub watch: Watch,
    /// Configures the recording that precedes a panic.
    pub recorder: Recorder,
    /// Location and limits of the incident store.
    pub store: Store,
    /// Configures the API, the page and `/metrics`.
    pub http: Http,
    /// Limits of `/metrics`.
    pub metrics: Metrics,
    /// Export over OpenTelemetry's protocol (OTLP).
    pub otlp: Otlp,
    /// Export as JSON lines.
    pub jsonl: Jsonl,
    /// Commands and webhooks called for incidents.
    pub hook: Vec<Hook>,
    /// Configures the daemon's own log.
    pub log: Log,
    /// Limits of the daemon's own resources.
    pub limits: Limits,
}

/// Selects the watched processes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// A process that matches one of these selectors is watched; empty: all Go processes are.
    pub include: Vec<Selector>,
    /// A process that matches one of these selectors is not watched, even if `include` matches.
    pub exclude: Vec<Selector>,
    /// Blocks the first exec of a Go binary not seen before until its probes are attached (fanotify
    /// permission events), so that the first millisecond of its first run is covered as well.
    pub hold_new_binaries: bool,
}

/// Describes processes. Every key that is set must match; a key matches if one of its patterns does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// Globs for the path of the executable, as the process sees it.
    pub exe: Vec<String>,
    /// Regular expressions for the command line: the arguments joined by spaces.
    pub command: Vec<String>,
    /// Globs for the path of the main module.
    pub module: Vec<String>,
    /// Globs for the cgroup path.
    pub cgroup: Vec<String>,
    /// Globs for the container ID.
    pub container: Vec<String>,
    /// Globs for the pod's namespace.
    pub namespace: Vec<String>,
    /// Globs for the pod's name.
    pub pod: Vec<String>,
    /// Globs for the labels of container and pod, as "key=value"; one label must match.
    pub label: Vec<String>,
    /// Names or UIDs of the user the process runs as.
    pub user: Vec<String>,
}

/// The flight recorder; the keys match the options of `panicwatch run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recorder {
    /// Length of the timeline before a panic.
    pub window: Span,
    /// Amount of detail to record.
    pub level: Level,
    /// Names of the recording sources to disable.
    pub without: Vec<String>,
    /// Patterns for functions whose entries are recorded.
    pub functions: Vec<String>,
    /// Overhead budget of watched processes: percent of their CPU time, "off", or "auto".
    pub budget: OverheadBudget,
    /// Overhead budget of the rest of the host: percent of the machine's CPU capacity, "off", or "auto".
    pub host_budget: OverheadBudget,
    /// Overhead limit of watched processes on each core, whatever their budget allows: percent, "off", or
    /// "auto".
    pub core_limit: OverheadBudget,
    /// Panics per second and program that are captured; those beyond are only counted. 0: all are captured.
    pub max_captures: u32,
    /// Longest time that one capture may take in the target; the rest is not copied.
    pub max_capture_time: Span,
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder {
            window: Span(Duration::from_millis(10)),
            level: Level::Default,
            without: Vec::new(),
            functions: Vec::new(),
            budget: OverheadBudget::Auto,
            host_budget: OverheadBudget::Auto,
            core_limit: OverheadBudget::Auto,
            max_captures: 200,
            max_capture_time: Span(CAPTURE_TIME),
        }
    }
}

/// The incident store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Store {
    /// Directory of all data that outlives the daemon.
    pub path: String,
    /// Size limit of the stored incidents; the oldest are deleted first.
    pub max_bytes: Bytes,
    /// Incidents older than this are deleted.
    pub max_age: Span,
    /// Limit on the number of incidents; the oldest are deleted first.
    pub max_count: u64,
    /// Incidents kept per group and minute. Those beyond are counted exactly, and one in a hundred of them is
    /// kept. 0: all.
    pub group_rate: u32,
}

impl Default for Store {
    fn default() -> Store {
        Store {
            path: "/var/lib/panicwatch".to_owned(),
            max_bytes: Bytes(1 << 30),
            max_age: Span(Duration::from_secs(30 * 24 * 3600)),
            max_count: 100_000,
            group_rate: 600,
        }
    }
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Addresses to listen on; empty: no TCP.
    pub listen: Vec<String>,
    /// Path of a Unix socket; empty: none.
    pub unix_socket: String,
    /// File with the token that clients must send (`Authorization: Bearer …`); empty: no token is required.
    /// `/healthz` and `/readyz` never require it, nor does the Unix socket, which relies on the permissions
    /// of its file.
    pub token_file: String,
    /// URL at which users reach the page; hooks link to incidents below it. Empty: hooks send no links.
    pub external_url: String,
    /// Certificate and key of the HTTPS server.
    pub tls: Tls,
}

impl Default for Http {
    fn default() -> Http {
        Http {
            listen: vec!["127.0.0.1:9464".to_owned()],
            unix_socket: String::new(),
            token_file: String::new(),
            external_url: String::new(),
            tls: Tls::default(),
        }
    }
}

/// Certificate and key; both empty: no TLS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and its chain.
    pub cert: String,
    /// PEM file of the private key.
    pub key: String,
}

/// Limits of the metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Maximum number of label sets of `panicwatch_panics_total`; panics beyond are counted in the overflow
    /// series.
    pub max_series: usize,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { max_series: 2000 }
    }
}

/// Export over OpenTelemetry's protocol (OTLP).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// URL of the collector; empty: nothing is exported.
    pub endpoint: String,
    /// Transport of the OTLP requests.
    pub protocol: Protocol,
    /// HTTP headers or gRPC metadata of every request.
    pub headers: BTreeMap<String, String>,
    /// Compresses requests with gzip.
    pub gzip: bool,
    /// PEM file of the certificate authorities to trust; empty: the system's.
    pub ca_file: String,
    /// Sends a log record for each incident.
    pub logs: bool,
    /// Sends a trace for each incident.
    pub traces: bool,
    /// Time limit of a request; a request that takes longer has failed.
    pub timeout: Span,
    /// Maximum number of waiting incidents; beyond it the oldest are dropped and counted.
    pub max_queue: u64,
}

impl Default for Otlp {
    fn default() -> Otlp {
        Otlp {
            endpoint: String::new(),
            protocol: Protocol::Grpc,
            headers: BTreeMap::new(),
            gzip: true,
            ca_file: String::new(),
            logs: true,
            traces: true,
            timeout: Span(Duration::from_secs(10)),
            max_queue: 10_000,
        }
    }
}

/// Transports of OTLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Protocol {
    /// OTLP over gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// OTLP over HTTP, encoded as protobuf.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// Export as JSON lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jsonl {
    /// Path of the file; `-`: standard output; empty: no export.
    pub path: String,
    /// Size at which the file is rotated; 0: never by panicwatch (logrotate, then SIGUSR1).
    pub max_bytes: Bytes,
    /// Number of rotated files to keep.
    pub keep: u32,
    /// Includes the timeline, which is most of an incident.
    pub timeline: bool,
}

impl Default for Jsonl {
    fn default() -> Jsonl {
        Jsonl { path: String::new(), max_bytes: Bytes(100 << 20), keep: 5, timeline: true }
    }
}

/// A command or a webhook to call for incidents. Exactly one of `command` and `url` is set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// Name in logs and metrics.
    pub name: String,
    /// Program and arguments, started without a shell; the incident is written to its standard input.
    pub command: Vec<String>,
    /// URL to POST to.
    pub url: String,
    /// PEM file of the certificate authorities that must have issued the URL's certificate; empty: the
    /// system's.
    pub ca_file: String,
    /// Body of the POST.
    pub template: Template,
    /// HTTP headers of every POST.
    pub headers: BTreeMap<String, String>,
    /// Kinds of incident to call the hook for; empty: all.
    pub kind: Vec<Kind>,
    /// Outcomes to call the hook for; empty: all.
    pub outcome: Vec<Outcome>,
    /// Selectors of the processes to call the hook for; empty: all.
    pub processes: Vec<Selector>,
    /// Calls the hook only for the first incident of a fingerprint.
    pub first_seen: bool,
    /// Time limit of a call; a call that takes longer is ended and has failed.
    pub timeout: Span,
    /// Maximum number of concurrent calls.
    pub concurrency: u32,
    /// Time for which a failed call is retried, with exponential back-off; 0: never.
    pub retry_for: Span,
}

impl Default for Hook {
    fn default() -> Hook {
        Hook {
            name: String::new(),
            command: Vec::new(),
            url: String::new(),
            ca_file: String::new(),
            template: Template::Incident,
            headers: BTreeMap::new(),
            kind: Vec::new(),
            outcome: Vec::new(),
            processes: Vec::new(),
            first_seen: false,
            timeout: Span(Duration::from_secs(10)),
            concurrency: 2,
            retry_for: Span(Duration::from_secs(3600)),
        }
    }
}

/// Body of a webhook's POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    /// The incident document.
    #[default]
    Incident,
    /// A message in the format of Slack and compatible services.
    Slack,
}

/// The daemon's own log, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// Lowest level to log.
    pub level: LogLevel,
    /// Format of the lines.
    pub format: LogFormat,
}

/// Levels of the log, most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Data was lost or a part of panicwatch does not work.
    Error,
    /// A possible problem.
    Warn,
    /// Events that an on-call engineer wants to see.
    #[default]
    Info,
    /// Details for debugging.
    Debug,
}

/// Formats of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Sentences; under journald each starts with its level as `<3>`.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Limits of the daemon's own resources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Target for resident memory: beyond it the decoded data of the least recently used binaries is evicted
    /// first.
    pub memory: Bytes,
    /// Time limit of an orderly shutdown.
    pub stop_timeout: Span,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: Bytes(56 << 20), stop_timeout: Span(Duration::from_secs(10)) }
    }
}

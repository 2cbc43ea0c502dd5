//! The daemon's configuration: its tables and keys, each with its meaning and default.
//!
//! Knows text and values, no files and no environment: those are handed in. docs/configuration.md and the shipped sample
//! (`deploy/panicwatch.toml`) tell people the same.

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

/// Everything; what a file leaves out has its default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which processes.
    pub watch: Watch,
    /// What is recorded before a panic.
    pub recorder: Recorder,
    /// Where incidents are kept.
    pub store: Store,
    /// The API, the page and `/metrics`.
    pub http: Http,
    /// Bounds of `/metrics`.
    pub metrics: Metrics,
    /// OpenTelemetry.
    pub otlp: Otlp,
    /// JSON lines.
    pub jsonl: Jsonl,
    /// What is called on incidents.
    pub hook: Vec<Hook>,
    /// The daemon's own log.
    pub log: Log,
    /// The daemon's own bounds.
    pub limits: Limits,
}

/// Which processes are watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Watch {
    /// A process that one of these fits is watched; empty: all Go processes are.
    pub include: Vec<Selector>,
    /// And none that one of these fits.
    pub exclude: Vec<Selector>,
    /// Holds the first exec of a Go binary not seen before until its probes are in (fanotify permission events), so that
    /// the first millisecond of its first run is covered as well.
    pub hold_new_binaries: bool,
}

/// What a process must be like; keys that are given must all fit, each takes several patterns of which one must fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Selector {
    /// Globs for the path of the executable, as the process sees it.
    pub exe: Vec<String>,
    /// Regular expressions for the command line, arguments joined by blanks.
    pub command: Vec<String>,
    /// Globs for the main module's path.
    pub module: Vec<String>,
    /// Globs for the control group's path.
    pub cgroup: Vec<String>,
    /// Globs for the container's id.
    pub container: Vec<String>,
    /// Globs for the pod's namespace.
    pub namespace: Vec<String>,
    /// Globs for the pod's name.
    pub pod: Vec<String>,
    /// Globs for the labels of container and pod, as "key=value"; one label must fit.
    pub label: Vec<String>,
    /// Names or numbers of the user it runs as.
    pub user: Vec<String>,
}

/// The flight recorder, as the options of `panicwatch run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recorder {
    /// How far before a panic its timeline reaches.
    pub window: Span,
    /// How much is recorded.
    pub level: Level,
    /// Sources that are left out.
    pub without: Vec<String>,
    /// Functions whose entries are recorded.
    pub functions: Vec<String>,
    /// What watched processes may pay: percent of their CPU time, "off", or "auto".
    pub budget: OverheadBudget,
    /// What everybody else may pay: percent of the machine's CPU capacity, "off", or "auto".
    pub host_budget: OverheadBudget,
    /// What watched processes may pay of each core, whatever their budget allows: percent, "off", or "auto".
    pub core_limit: OverheadBudget,
    /// Panics of a program that are captured a second; more are counted. 0: all are captured.
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
    /// Directory of everything that outlives the daemon.
    pub path: String,
    /// Incidents beyond this go, oldest first.
    pub max_bytes: Bytes,
    /// Incidents older than this go.
    pub max_age: Span,
    /// Incidents beyond this number go, oldest first.
    pub max_count: u64,
    /// Incidents of one group that are kept a minute; more are counted exactly, and one in a hundred of them is kept. 0: all.
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
    /// Addresses; none: no TCP.
    pub listen: Vec<String>,
    /// Path of a Unix socket; empty: none.
    pub unix_socket: String,
    /// File with the token that readers must show (`Authorization: Bearer …`); empty: none is asked for. `/healthz` and
    /// `/readyz` never ask, the Unix socket neither: its file's permissions decide.
    pub token_file: String,
    /// URL at which people reach the page; hooks link to incidents below it. Empty: they have no links.
    pub external_url: String,
    /// TLS.
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

/// A certificate; both empty: no TLS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM file of the certificate and its chain.
    pub cert: String,
    /// PEM file of the private key.
    pub key: String,
}

/// Bounds of the metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Label sets of `panicwatch_panics_total`; more are counted under the overflow's.
    pub max_series: usize,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics { max_series: 2000 }
    }
}

/// OpenTelemetry's protocol.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// URL of the collector; empty: nothing is sent.
    pub endpoint: String,
    /// How.
    pub protocol: Protocol,
    /// Sent with every request.
    pub headers: BTreeMap<String, String>,
    /// Compress.
    pub gzip: bool,
    /// PEM file of the authorities to trust; empty: the system's.
    pub ca_file: String,
    /// Send a log record for each incident.
    pub logs: bool,
    /// Send a trace for each incident.
    pub traces: bool,
    /// A request that takes longer has failed.
    pub timeout: Span,
    /// Incidents that may wait; of more the oldest go unsent, counted.
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

/// OTLP's transports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Protocol {
    /// gRPC.
    #[default]
    #[serde(rename = "grpc")]
    Grpc,
    /// HTTP with protobuf.
    #[serde(rename = "http/protobuf")]
    HttpProtobuf,
}

/// JSON lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Jsonl {
    /// File; `-` for standard output; empty: none.
    pub path: String,
    /// The file is rotated when it has grown to this; 0: never by us (logrotate, then SIGUSR1).
    pub max_bytes: Bytes,
    /// Rotated files that are kept.
    pub keep: u32,
    /// With the timeline, which is most of an incident.
    pub timeline: bool,
}

impl Default for Jsonl {
    fn default() -> Jsonl {
        Jsonl { path: String::new(), max_bytes: Bytes(100 << 20), keep: 5, timeline: true }
    }
}

/// Something that is called on incidents: a command or a webhook, one of both.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hook {
    /// For logs and metrics.
    pub name: String,
    /// Program and arguments, started without a shell; the incident is on its standard input.
    pub command: Vec<String>,
    /// URL that is POSTed to.
    pub url: String,
    /// PEM file of the authorities that the URL's certificate is checked by; empty: the system's.
    pub ca_file: String,
    /// What is POSTed.
    pub template: Template,
    /// Sent with every POST.
    pub headers: BTreeMap<String, String>,
    /// Kinds; empty: all.
    pub kind: Vec<Kind>,
    /// Outcomes; empty: all.
    pub outcome: Vec<Outcome>,
    /// Processes; empty: all.
    pub processes: Vec<Selector>,
    /// Only the first incident of a fingerprint.
    pub first_seen: bool,
    /// A call that takes longer is ended and has failed.
    pub timeout: Span,
    /// Calls at once.
    pub concurrency: u32,
    /// A call that fails is retried for so long, with exponential back-off; 0: never.
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
    /// A message that Slack and what is compatible with it understand.
    Slack,
}

/// The daemon's own log, on standard error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// From which level on.
    pub level: LogLevel,
    /// How.
    pub format: LogFormat,
}

/// Levels of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something was lost or does not work.
    Error,
    /// Something may be wrong.
    Warn,
    /// What a person on call wants to see.
    #[default]
    Info,
    /// Everything.
    Debug,
}

/// Forms of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Sentences; under journald with the level in front as `<3>`.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// What the daemon may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Resident memory that is aimed at: decoded data of binaries that were not asked for longest goes first.
    pub memory: Bytes,
    /// Orderly stopping takes no longer.
    pub stop_timeout: Span,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory: Bytes(56 << 20), stop_timeout: Span(Duration::from_secs(10)) }
    }
}

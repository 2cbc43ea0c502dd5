//! The incident document, `panicwatch.incident/1`: what every output of panicwatch is made from.
//!
//! Names and meanings are a promise to other tools (docs/incident.md). What could not be known is `None` (JSON
//! `null`) and has an entry in [`Incident::missing`]. Knows no events, no binaries, no processes.

pub mod escape;
pub mod fingerprint;
pub mod frame_class;
pub mod json;
pub mod stored;
pub mod timeline;
pub mod title;

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use self::timeline::Timeline;

/// The value of [`Incident::schema`].
pub const SCHEMA: &str = "panicwatch.incident/1";

/// An address in the watched process; in JSON a string, `"0x…"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Addr(pub u64);

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Addr {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        let digits = text.strip_prefix("0x").ok_or_else(|| de::Error::custom("address without 0x"))?;
        u64::from_str_radix(digits, 16).map(Addr).map_err(de::Error::custom)
    }
}

/// One panic chain, throw, fatal error or deadly signal, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// ULID.
    pub id: String,
    /// Wall time of the first raise, RFC 3339 UTC with nanoseconds.
    pub time: String,
    /// First raise, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// Recovery or death, CLOCK_MONOTONIC nanoseconds.
    pub end_ns: Option<u64>,
    /// What happened.
    pub kind: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// How the process ended, when it did.
    pub exit: Option<Exit>,
    /// What Go prints after "panic: " for the first panic (without notes), or after "fatal error: ".
    pub message: Option<String>,
    /// The process it happened in.
    pub process: Process,
    /// The machine it happened on; `None` in documents of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// The goroutine it happened on; `None` for a deadlock or a crash with no goroutine.
    pub goroutine: Option<Goroutine>,
    /// The chain, oldest first; empty for fatal errors, throws and signals outside a panic.
    pub panics: Vec<Panic>,
    /// As Go's traceback shows it, innermost first.
    pub stack: Vec<Frame>,
    /// Frames left out between the 50 innermost and 50 outermost; `None` when not all of them are known.
    #[serde(deserialize_with = "present")]
    pub stack_elided: Option<u64>,
    /// Creators, nearest first.
    pub ancestry: Vec<Ancestor>,
    /// Set when it happened before main.main.
    pub init: Option<Init>,
    /// The window before it; `None` until recorded.
    pub timeline: Option<Timeline>,
    /// What the capture itself took.
    pub capture: Capture,
    /// The same for the same defect, on every host.
    pub fingerprint: String,
    /// Everything that is `None` above, with its reason.
    pub missing: Vec<Missing>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `panic(…)` or a run-time error.
    Panic,
    /// `runtime.fatal`: concurrent map writes, deadlock, unlock of unlocked mutex …
    FatalError,
    /// `runtime.throw`: the runtime found itself broken, out of memory, stack overflow …
    Throw,
    /// A signal that Go dies of.
    Signal,
}

impl Kind {
    /// As the document writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Panic => "panic",
            Kind::FatalError => "fatal_error",
            Kind::Throw => "throw",
            Kind::Signal => "signal",
        }
    }
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The goroutine lives on.
    Recovered,
    /// The process died of it.
    Fatal,
    /// `runtime.Goexit` ended the goroutine.
    Goexit,
    /// The program ended while it was under way, and not because of it: os.Exit, main's return, a signal or exec.
    Exited,
    /// No end was seen, or records were lost.
    Unknown,
}

impl Outcome {
    /// As the document writes it.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Recovered => "recovered",
            Outcome::Fatal => "fatal",
            Outcome::Goexit => "goexit",
            Outcome::Exited => "exited",
            Outcome::Unknown => "unknown",
        }
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit status, when it exited.
    pub code: Option<i32>,
    /// Signal number, when a signal killed it.
    pub signal: Option<i32>,
}

/// The machine that an incident happened on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Host {
    /// Host name, as `uname -n` prints it outside containers.
    pub name: Option<String>,
    /// The kernel's boot id: incidents with the same one share a CLOCK_MONOTONIC.
    pub boot_id: Option<String>,
}

/// The watched process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Process {
    /// Process id in panicwatch's pid namespace.
    pub pid: u32,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Command line.
    pub args: Option<Vec<String>>,
    /// RFC 3339 UTC.
    pub start_time: Option<String>,
    /// For example "go1.24.11".
    pub go_version: Option<String>,
    /// Main module path.
    pub module: Option<String>,
    /// Main module version.
    pub module_version: Option<String>,
    /// vcs.revision of the build.
    pub vcs_revision: Option<String>,
    /// GNU build id, else Go build id.
    pub build_id: Option<String>,
    /// GODEBUG, GOTRACEBACK, GOGC, GOMAXPROCS, GOMEMLIMIT as set in its environment; unset ones are absent.
    pub env: Option<BTreeMap<String, String>>,
    /// Container, when it runs in one.
    pub container: Option<serde_json::Value>,
    /// Pod, when it runs in one.
    pub kubernetes: Option<serde_json::Value>,
}

impl Process {
    /// Base name of the executable.
    pub fn binary_name(&self) -> Option<&str> {
        base_name(self.exe.as_deref()?)
    }

    /// What is known of its container under that key: "id", "name", "runtime".
    pub fn in_container(&self, key: &str) -> Option<&str> {
        self.container.as_ref()?.get(key)?.as_str()
    }

    /// What is known of its pod under that key: "namespace", "pod", "pod_uid", "container".
    pub fn in_pod(&self, key: &str) -> Option<&str> {
        self.kubernetes.as_ref()?.get(key)?.as_str()
    }

    /// What is known of its container's labels.
    pub fn labels_of_container(&self) -> Vec<(&str, &str)> {
        labels(self.container.as_ref())
    }

    /// What is known of its pod's labels.
    pub fn labels_of_pod(&self) -> Vec<(&str, &str)> {
        labels(self.kubernetes.as_ref())
    }
}

fn labels(of: Option<&serde_json::Value>) -> Vec<(&str, &str)> {
    let labels = of.and_then(|of| of.get("labels")).and_then(serde_json::Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}

/// Base name of an executable's path, without what /proc says of one that was deleted.
pub fn base_name(exe: &str) -> Option<&str> {
    exe.trim_end_matches(" (deleted)").rsplit('/').next().filter(|name| !name.is_empty())
}

/// The goroutine at the raise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Goroutine {
    /// goid.
    pub id: u64,
    /// As Go's goroutine header names it: "running", "syscall", …
    pub status: Option<String>,
    /// Only while waiting.
    pub wait_reason: Option<String>,
    /// goid of the creator (Go 1.21 and later).
    pub parent_id: Option<u64>,
    /// The go statement.
    pub created_by: Option<Frame>,
    /// The goroutine's first function.
    pub start: Option<Frame>,
    /// Kernel thread id.
    pub thread_id: Option<u32>,
    /// runtime.LockOSThread in force.
    pub locked_to_thread: Option<bool>,
    /// pprof labels.
    pub labels: BTreeMap<String, String>,
    /// Stack bounds.
    pub stack_lo: Option<Addr>,
    /// Stack bounds.
    pub stack_hi: Option<Addr>,
    /// Stack guard.
    pub stackguard0: Option<Addr>,
    /// Deferred calls pending at the raise.
    pub defer_depth: Option<u64>,
}

/// One panic of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panic {
    /// The argument of panic().
    pub value: Value,
    /// It implements runtime.Error.
    pub runtime_error: bool,
    /// It stands for a runtime.Goexit in the chain.
    pub goexit: bool,
    /// How it ended.
    pub state: State,
    /// CLOCK_MONOTONIC nanoseconds.
    pub raised_ns: u64,
    /// Where it was raised: the innermost frame of the user's code.
    pub site: Option<Frame>,
    /// The signal it was made from.
    pub signal: Option<Signal>,
    /// General registers at the raise, by name.
    pub registers: BTreeMap<String, Addr>,
    /// Instructions around the raising one.
    pub instructions: Vec<Instruction>,
    /// What raised it and what that compares, in words, from the code alone; absent when the code does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Deferred calls in the order they ran.
    pub defers: Vec<Defer>,
    /// The recover that caught it; `None`: never recovered.
    pub recover: Option<Recover>,
}

/// How one panic of a chain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// recover() caught it.
    Recovered,
    /// recover() caught it and a new panic followed from the same deferred call.
    Repanicked,
    /// A later panic took over and was recovered, or the goroutine went away under it.
    Aborted,
    /// The process died of it.
    Fatal,
    /// Still under way when last seen.
    Running,
}

/// A panic value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Value {
    /// Type name as Go prints it; "nil" for nil.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// The text of the value (string, error message, number); `None` when only the program could tell.
    pub text: Option<String>,
    /// Exactly what Go prints for it after "panic: ".
    pub printed: Option<String>,
    /// Set when `text` is not valid UTF-8: the bytes in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_hex: Option<String>,
    /// The contents of a composite value, such as `{Code:5 Msg:"x"}`. Neither what Go prints nor a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A signal turned into a panic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// 11 …
    pub number: u32,
    /// SIGSEGV …
    pub name: String,
    /// si_code.
    pub code: Option<i64>,
    /// si_addr.
    pub addr: Option<Addr>,
    /// Faulting instruction.
    pub pc: Option<Addr>,
}

/// One machine instruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instruction {
    /// Run-time address.
    pub address: Addr,
    /// Hex.
    pub bytes: String,
    /// Disassembly.
    pub text: String,
    /// This one raised the panic.
    pub raised: bool,
}

/// A deferred call that ran during a panic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Defer {
    /// The deferred function.
    pub function: Option<Frame>,
    /// It was a nil function: calling it raised the next panic.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nil: bool,
    /// The function (and line where known) of the defer statement.
    pub registered_by: Option<Frame>,
    /// CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub end_ns: Option<u64>,
    /// How it ended; `None` while it runs.
    pub ended: Option<DeferEnd>,
}

/// A field that may be null, but not be absent.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(d)
}

/// Left out of the document.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// How a deferred call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeferEnd {
    /// Returned, the panic goes on.
    Returned,
    /// Returned, having recovered the panic.
    Recovered,
    /// Raised a new panic and did not come back.
    Panicked,
    /// Ended the process.
    Exited,
    /// Called runtime.Goexit.
    Goexit,
}

/// The recover() that caught a panic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recover {
    /// The caller of recover().
    pub by: Option<Frame>,
    /// Nanoseconds from raise to recover().
    pub ns_after_raise: u64,
}

/// A creator of the goroutine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ancestor {
    /// goid.
    pub goroutine_id: Option<u64>,
    /// The go statement.
    pub created_at: Option<Frame>,
}

/// Where in initialisation it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// Import path of the package whose initialisation was running.
    pub package: Option<String>,
    /// runtime.main, the init function …, outermost first.
    pub chain: Vec<String>,
}

/// What the capture took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Capture {
    /// From the raise to the end of its capture, nanoseconds.
    pub delay_ns: Option<u64>,
    /// Time spent in all captures of this incident, nanoseconds.
    pub cost_ns: Option<u64>,
    /// Bytes of the process's memory that they copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// Something that could not be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Path of the field, such as `panics[0].value.text`.
    pub what: String,
    /// A sentence.
    pub reason: String,
}

/// One (possibly inlined) function activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Frame {
    /// Name as Go prints it.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
    /// Program counter as Go's traceback takes it (a return address, or the faulting instruction).
    pub pc: Addr,
    /// pc minus the function's entry: the +0x… of Go's traceback.
    pub offset: u64,
    /// Inlined into the next frame.
    pub inlined: bool,
}

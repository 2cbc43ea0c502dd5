//! The incident document, `panicwatch.incident/1`, from which panicwatch makes every output.
//!
//! Field names and meanings are a stable interface for other tools (docs/incident.md). A value that could not
//! be determined is `None` (JSON `null`) and has an entry in [`Incident::missing`]. This module knows no
//! events, binaries or processes.

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

/// An address in the watched process, serialized as a string, `"0x…"`.
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

/// One complete panic chain, throw, fatal error or fatal signal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// Unique id, a ULID: sorts by time.
    pub id: String,
    /// Wall-clock time of the first raise, RFC 3339 UTC with nanoseconds.
    pub time: String,
    /// Time of the first raise, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// Time of the recovery or death, CLOCK_MONOTONIC nanoseconds; `None` when neither was seen.
    pub end_ns: Option<u64>,
    /// Panic, fatal error, throw or signal.
    pub kind: Kind,
    /// How the incident ended for the goroutine or the process.
    pub outcome: Outcome,
    /// How the process ended; `None` while it lives.
    pub exit: Option<Exit>,
    /// The text Go prints after "panic: " for the first panic (without notes), or after "fatal error: ".
    pub message: Option<String>,
    /// The process in which it happened.
    pub process: Process,
    /// The machine on which it happened; `None` in documents of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Host>,
    /// The goroutine on which it happened; `None` for a deadlock or a crash with no goroutine.
    pub goroutine: Option<Goroutine>,
    /// The panic chain, oldest first; empty for fatal errors, throws and signals outside a panic.
    pub panics: Vec<Panic>,
    /// Stack as Go's traceback shows it, innermost frame first.
    pub stack: Vec<Frame>,
    /// Number of frames omitted between the 50 innermost and 50 outermost; `None` when some of them are
    /// unknown.
    #[serde(deserialize_with = "present")]
    pub stack_elided: Option<u64>,
    /// Creators of the goroutine, nearest first.
    pub ancestry: Vec<Ancestor>,
    /// Where in package initialization it happened; set only before main.main.
    pub init: Option<Init>,
    /// Events in the window before the incident; `None` until recorded.
    pub timeline: Option<Timeline>,
    /// Cost of the capture.
    pub capture: Capture,
    /// Identifies the defect: equal for the same defect on every host.
    pub fingerprint: String,
    /// Every field that is `None` above, with the reason.
    pub missing: Vec<Missing>,
}

/// What happened in an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `panic(…)` or a run-time error.
    Panic,
    /// `runtime.fatal`: concurrent map writes, deadlock, unlock of unlocked mutex …
    FatalError,
    /// `runtime.throw`: an inconsistency in the runtime, out of memory, stack overflow …
    Throw,
    /// A signal that kills a Go program.
    Signal,
}

impl Kind {
    /// Returns the name used in the document.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Panic => "panic",
            Kind::FatalError => "fatal_error",
            Kind::Throw => "throw",
            Kind::Signal => "signal",
        }
    }
}

/// How an incident ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The panic was recovered and the goroutine continued.
    Recovered,
    /// The incident killed the process.
    Fatal,
    /// `runtime.Goexit` ended the goroutine.
    Goexit,
    /// The program ended while the incident was in progress, for another reason: os.Exit, main's return, a
    /// signal or exec.
    Exited,
    /// No end was seen, or records were lost.
    Unknown,
}

impl Outcome {
    /// Returns the name used in the document.
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
    /// Exit status; `None` when a signal killed the process.
    pub code: Option<i32>,
    /// Number of the signal that killed the process; `None` when it exited.
    pub signal: Option<i32>,
}

/// The machine on which an incident happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Host {
    /// Host name, as `uname -n` prints it outside containers.
    pub name: Option<String>,
    /// The kernel's boot id. Incidents with the same boot id share a CLOCK_MONOTONIC.
    pub boot_id: Option<String>,
}

/// The watched process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Process {
    /// Process id in panicwatch's pid namespace.
    pub pid: u32,
    /// Path of the executable.
    pub exe: Option<String>,
    /// Command line; the program name is the first element.
    pub args: Option<Vec<String>>,
    /// Start time, RFC 3339 UTC.
    pub start_time: Option<String>,
    /// Go version of the build, for example "go1.24.11".
    pub go_version: Option<String>,
    /// Main module path.
    pub module: Option<String>,
    /// Main module version.
    pub module_version: Option<String>,
    /// vcs.revision of the build.
    pub vcs_revision: Option<String>,
    /// GNU build id, else Go build id.
    pub build_id: Option<String>,
    /// GODEBUG, GOTRACEBACK, GOGC, GOMAXPROCS and GOMEMLIMIT from the process's environment; unset ones are
    /// absent.
    pub env: Option<BTreeMap<String, String>>,
    /// Container metadata; `None` outside a container.
    pub container: Option<serde_json::Value>,
    /// Pod metadata; `None` outside Kubernetes.
    pub kubernetes: Option<serde_json::Value>,
}

impl Process {
    /// Returns the base name of the executable.
    pub fn binary_name(&self) -> Option<&str> {
        base_name(self.exe.as_deref()?)
    }

    /// Returns the container's metadata for `key`: "id", "name" or "runtime".
    pub fn in_container(&self, key: &str) -> Option<&str> {
        self.container.as_ref()?.get(key)?.as_str()
    }

    /// Returns the pod's metadata for `key`: "namespace", "pod", "pod_uid" or "container".
    pub fn in_pod(&self, key: &str) -> Option<&str> {
        self.kubernetes.as_ref()?.get(key)?.as_str()
    }

    /// Returns the labels of the container.
    pub fn labels_of_container(&self) -> Vec<(&str, &str)> {
        labels(self.container.as_ref())
    }

    /// Returns the labels of the pod.
    pub fn labels_of_pod(&self) -> Vec<(&str, &str)> {
        labels(self.kubernetes.as_ref())
    }
}

fn labels(of: Option<&serde_json::Value>) -> Vec<(&str, &str)> {
    let labels = of.and_then(|of| of.get("labels")).and_then(serde_json::Value::as_object);
    let pairs = labels.into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.as_str(), value.as_str()?))).collect()
}

/// Returns the base name of an executable's path, without the " (deleted)" that /proc appends to a deleted
/// file's path.
pub fn base_name(exe: &str) -> Option<&str> {
    exe.trim_end_matches(" (deleted)").rsplit('/').next().filter(|name| !name.is_empty())
}

/// The goroutine's state at the raise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Goroutine {
    /// Goroutine id (goid).
    pub id: u64,
    /// Status as in Go's goroutine header: "running", "syscall", …
    pub status: Option<String>,
    /// Go's wait reason; set only while the goroutine waits.
    pub wait_reason: Option<String>,
    /// goid of the creator (Go 1.21 and later).
    pub parent_id: Option<u64>,
    /// Call site of the go statement that created the goroutine.
    pub created_by: Option<Frame>,
    /// The goroutine's first function.
    pub start: Option<Frame>,
    /// Kernel thread id.
    pub thread_id: Option<u32>,
    /// Whether runtime.LockOSThread is in effect.
    pub locked_to_thread: Option<bool>,
    /// pprof labels by key.
    pub labels: BTreeMap<String, String>,
    /// Lower bound of the stack.
    pub stack_lo: Option<Addr>,
    /// Upper bound of the stack.
    pub stack_hi: Option<Addr>,
    /// Stack guard (`g.stackguard0`).
    pub stackguard0: Option<Addr>,
    /// Number of deferred calls pending at the raise.
    pub defer_depth: Option<u64>,
}

/// One panic of a chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Panic {
    /// The argument of panic().
    pub value: Value,
    /// Whether the value implements runtime.Error.
    pub runtime_error: bool,
    /// Whether this entry stands for a runtime.Goexit in the chain.
    pub goexit: bool,
    /// How this panic ended.
    pub state: State,
    /// Time of the raise, CLOCK_MONOTONIC nanoseconds.
    pub raised_ns: u64,
    /// Where it was raised: the innermost frame of user code.
    pub site: Option<Frame>,
    /// The signal from which the runtime made this panic.
    pub signal: Option<Signal>,
    /// General-purpose registers at the raise, by name.
    pub registers: BTreeMap<String, Addr>,
    /// Instructions around the raising instruction.
    pub instructions: Vec<Instruction>,
    /// Description of the raising operation and of the operands that it compares, derived from the machine
    /// code alone; absent when the code does not determine it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<String>,
    /// Deferred calls in the order they ran.
    pub defers: Vec<Defer>,
    /// The recover() that caught this panic; `None` if it was never recovered.
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
    /// A later panic replaced it and was recovered, or the goroutine exited before it ended.
    Aborted,
    /// It killed the process.
    Fatal,
    /// Still in progress when last observed.
    Running,
}

/// A panic value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Value {
    /// Type name as Go prints it; "nil" for nil.
    #[serde(rename = "type")]
    pub type_name: Option<String>,
    /// The text of the value (string, error message, number); `None` when only running the program's code
    /// could produce it.
    pub text: Option<String>,
    /// Exactly what Go prints for the value after "panic: ".
    pub printed: Option<String>,
    /// The bytes in hex; set only when `text` is not valid UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_hex: Option<String>,
    /// The contents of a composite value, such as `{Code:5 Msg:"x"}`. Neither Go's output nor a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A signal that the runtime turned into a panic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Signal number, such as 11.
    pub number: u32,
    /// Signal name, such as SIGSEGV.
    pub name: String,
    /// `si_code` of the signal.
    pub code: Option<i64>,
    /// `si_addr` of the signal.
    pub addr: Option<Addr>,
    /// Address of the faulting instruction.
    pub pc: Option<Addr>,
}

/// One machine instruction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instruction {
    /// Run-time address of the instruction.
    pub address: Addr,
    /// Machine code in hex.
    pub bytes: String,
    /// Disassembly, AT&T syntax.
    pub text: String,
    /// Whether this instruction raised the panic.
    pub raised: bool,
}

/// A deferred call that ran during a panic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Defer {
    /// The deferred function.
    pub function: Option<Frame>,
    /// Whether it was a nil function: calling it raised the next panic.
    #[serde(default, skip_serializing_if = "is_false")]
    pub nil: bool,
    /// The function (and the line, if known) of the defer statement.
    pub registered_by: Option<Frame>,
    /// Start of the call, CLOCK_MONOTONIC nanoseconds.
    pub start_ns: u64,
    /// End of the call, CLOCK_MONOTONIC nanoseconds.
    pub end_ns: Option<u64>,
    /// How the call ended; `None` while it runs.
    pub ended: Option<DeferEnd>,
}

/// Deserializes a field that may be null but must be present.
fn present<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(d)
}

/// Reports whether serde omits the flag from the document.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// How a deferred call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeferEnd {
    /// Returned; the panic continues.
    Returned,
    /// Returned after recovering the panic.
    Recovered,
    /// Raised a new panic and did not return.
    Panicked,
    /// Ended the process.
    Exited,
    /// The goroutine called runtime.Goexit.
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

/// A direct or indirect creator of the goroutine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Goroutine id (goid) of the creator.
    pub goroutine_id: Option<u64>,
    /// Call site of the go statement.
    pub created_at: Option<Frame>,
}

/// Position in package initialization at which the incident happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Init {
    /// Import path of the package that was being initialized.
    pub package: Option<String>,
    /// Functions from runtime.main to the init function and beyond, outermost first.
    pub chain: Vec<String>,
}

/// Cost of the capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Capture {
    /// Time from the raise to the end of its capture, nanoseconds.
    pub delay_ns: Option<u64>,
    /// Time spent in all captures of this incident, nanoseconds.
    pub cost_ns: Option<u64>,
    /// Bytes of process memory copied by the captures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

/// A value that could not be determined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Path of the field, such as `panics[0].value.text`.
    pub what: String,
    /// Why it could not be determined, as a sentence.
    pub reason: String,
}

/// One (possibly inlined) function activation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Frame {
    /// Function name as Go prints it.
    pub function: String,
    /// Path of the source file, as recorded by the compiler.
    pub file: Option<String>,
    /// Line in `file`.
    pub line: Option<u32>,
    /// Program counter as in Go's traceback (a return address, or the faulting instruction).
    pub pc: Addr,
    /// pc minus the function's entry: the +0x… of Go's traceback.
    pub offset: u64,
    /// Whether this call is inlined into the next frame.
    pub inlined: bool,
}

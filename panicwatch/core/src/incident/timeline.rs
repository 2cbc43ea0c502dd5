//! The timeline in the incident document: names and meanings are a stable interface for other tools
//! (docs/timeline.md).
//!
//! Does not know records. All times are CLOCK_MONOTONIC nanoseconds, all durations nanoseconds. Optional
//! fields without a value are left out of the JSON.

pub mod event;

use serde::{Deserialize, Serialize};

use self::event::Event;
use crate::incident::{Addr, Frame};

/// The only reason for being stopped that is not a stop-the-world: the collector scans the goroutine's stack.
pub(crate) const STACK_SCAN: &str = "stack scan";

/// What happened in the window before an incident, and until its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Timeline {
    /// Requested length of the window before the raise.
    pub window_ns: u64,
    /// Beginning of the window.
    pub from_ns: u64,
    /// Time of the raise.
    #[serde(default)]
    pub raise_ns: u64,
    /// End of the timeline: the end of the incident, or of what was recorded.
    pub to_ns: u64,
    /// Number of records lost in the window: overwritten, or torn while they were copied.
    pub lost: u64,
    /// Intervals in which records were lost.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Sources that were not recorded all the time, and why.
    #[serde(default)]
    pub off: Vec<Off>,
    /// Summary of the panicking goroutine, from the window's beginning to the raise.
    pub summary: Summary,
    /// Tracks of goroutines (the panicking one first), threads, CPUs, the garbage collector and the process.
    pub tracks: Vec<Track>,
    /// Number of tracks left out because there were too many.
    #[serde(default)]
    pub tracks_left_out: u64,
    /// All events, in order of time.
    pub events: Vec<Event>,
    /// Number of events left out because there were too many: those farthest from the raise.
    #[serde(default)]
    pub events_left_out: u64,
}

/// Interval in which records of one CPU were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Number of the CPU, as in /proc/cpuinfo.
    pub cpu: u32,
    /// Beginning of the interval.
    pub from_ns: u64,
    /// End of the interval.
    pub to_ns: u64,
    /// Number of lost records; 0 if the CPU was not recorded.
    pub lost: u64,
}

/// A source that was not recorded all the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    /// Name of the source: "syscall", "sample" and so on.
    pub source: String,
    /// Why, as a sentence.
    pub reason: String,
}

/// Summary of the panicking goroutine, from the window's beginning to the raise.
///
/// `running_ns`, `runnable_ns`, `waiting_ns`, `syscall_ns`, `stopped_ns`, `not_running_ns`, `ended_ns` and
/// `unknown_ns` add up to that time. If system calls were not recorded, the time in them counts as the
/// thread's state, running or waiting. Counts are `None` if their source was not recorded all the time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Summary {
    /// ID of the goroutine; `None` if the incident has no goroutine.
    pub goroutine: Option<u64>,
    /// Running: on a CPU, outside system calls.
    pub running_ns: u64,
    /// Runnable: the goroutine waited for a thread, or its thread for a CPU.
    pub runnable_ns: u64,
    /// Time in which the goroutine waited.
    pub waiting_ns: u64,
    /// Waiting time by wait reason.
    pub waiting: Vec<Share>,
    /// In system calls, running or blocked there.
    pub syscall_ns: u64,
    /// System call time by system call.
    pub syscalls: Vec<Share>,
    /// Runnable, but the world was stopped.
    pub stopped_ns: u64,
    /// Stopped time by STW reason.
    pub stopped: Vec<Share>,
    /// On no thread; whether it was waiting or runnable was not recorded.
    pub not_running_ns: u64,
    /// Not created yet.
    pub ended_ns: u64,
    /// Time in which the goroutine's state is unknown.
    pub unknown_ns: u64,
    /// Part of `running_ns` that is inferred from records before and after.
    pub inferred_ns: u64,
    /// Part of `not_running_ns` that is inferred from the other goroutines recorded on the running threads.
    pub not_running_inferred_ns: u64,
    /// How often the kernel preempted its thread.
    pub preemptions: Option<u64>,
    /// How often it yielded or the Go scheduler preempted it.
    pub yields: Option<u64>,
    /// How often its thread was migrated to another CPU.
    pub migrations: Option<u64>,
    /// How often it continued on another thread.
    pub thread_changes: u64,
    /// Number of page faults.
    pub page_faults: Option<u64>,
    /// Number of GC mark assists.
    pub gc_assists: Option<u64>,
    /// Signals delivered to its thread while it was running there.
    pub signals: Vec<SignalCount>,
    /// Number of stack samples.
    pub samples: Option<u64>,
    /// Its last wake-up.
    pub woken: Option<Woken>,
    /// Its last steps before the raise, oldest first.
    pub last: Vec<Last>,
}

/// A part of a time in the summary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Wait reason, system call or STW reason.
    pub what: String,
    /// Sum of the durations, nanoseconds.
    pub ns: u64,
    /// Number of occurrences.
    pub count: u64,
}

/// Number of deliveries of one signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalCount {
    /// Number of the signal on this architecture.
    pub number: u32,
    /// Signal name such as "SIGURG"; `None` if it has none.
    pub name: Option<String>,
    /// Number of deliveries.
    pub count: u64,
}

/// A wake-up of a goroutine or its thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    /// Time of the wake-up.
    pub time_ns: u64,
    /// Waking thread, possibly of another process.
    pub thread: Option<u32>,
    /// Goroutine that made it runnable, if known.
    pub goroutine: Option<u64>,
    /// System call that the waker was in.
    pub syscall: Option<String>,
    /// Whether the Go scheduler woke the goroutine; otherwise the kernel woke its thread.
    pub by_runtime: bool,
}

/// One of the last steps of the goroutine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// Time at which the step began.
    pub time_ns: u64,
    /// Description of the step.
    pub words: String,
}

/// Subject of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrackKind {
    /// A goroutine; `id` is its goid.
    Goroutine,
    /// A thread; `id` is its tid.
    Thread,
    /// A CPU; `id` is its number.
    Cpu,
    /// The garbage collector; `id` is 0.
    Gc,
    /// The process; `id` is its pid.
    Process,
}

/// States, slices and samples of one goroutine, thread, CPU, of the garbage collector or the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// Kind of subject.
    pub kind: TrackKind,
    /// ID of the subject; see [`TrackKind`].
    pub id: u64,
    /// For a thread: its name; for a goroutine: its first function, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// States in order, without gaps or overlaps, from the window's beginning to its end.
    pub states: Vec<State>,
    /// Nested slices: function calls, panics and deferred calls, stop-the-world pauses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    /// Stacks sampled by the scheduler tick or a sampling clock.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Stack>,
}

/// What the subject of a track was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// It was running on a CPU. Of a CPU: it was running a thread of the process. Of the process: at least
    /// one thread was running.
    Running,
    /// It was runnable and waited for a CPU or a thread.
    Runnable,
    /// It was waiting; `detail` is the reason.
    Waiting,
    /// It was in the system call `detail`; with `cpu` while running there, without while blocked.
    Syscall,
    /// It was runnable, but the world was stopped for `detail`. Of the garbage collector: it had stopped the
    /// world.
    Stopped,
    /// It was on no thread; nothing more was recorded. Of a thread: it was on no CPU. Of the process: no
    /// thread was running.
    NotRunning,
    /// Of a CPU: it was running threads of other processes or idle; `detail` has the first and the last of
    /// them.
    Other,
    /// Of the garbage collector: marking.
    Marking,
    /// Of the garbage collector: not marking.
    Idle,
    /// It did not exist: not created yet, or ended.
    Ended,
    /// Unknown; `detail` is the reason.
    Unknown,
}

/// A state and its interval.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Beginning of the interval.
    pub from_ns: u64,
    /// End of the interval.
    pub to_ns: u64,
    /// Kind of state.
    pub state: Doing,
    /// Detail of the state; see [`Doing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Thread on which the subject was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// CPU on which the subject was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Goroutine that was running on the subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goroutine: Option<u64>,
    /// Whether the state was not recorded, but inferred from records before and after.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inferred: bool,
}

/// Kind of slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SliceKind {
    /// Call of a function that the user named.
    Function,
    /// A panic, from its raise to its end.
    Panic,
    /// A deferred call that ran during a panic.
    Defer,
    /// Stop-the-world pause, including the time until all goroutines had stopped.
    StopTheWorld,
}

/// A span with a beginning and an end, nested in others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// Time of the beginning.
    pub from_ns: u64,
    /// Time of the end; `None` if it had not ended at the end of the timeline.
    pub to_ns: Option<u64>,
    /// Kind of slice.
    pub kind: SliceKind,
    /// Function, text of the panic, or STW reason.
    pub name: String,
    /// Number of slices of the track that enclose it.
    pub depth: u32,
    /// Whether the end was not recorded: it is then the earliest time at which the call is known to be over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inferred: bool,
    /// Source position of the function, of the raise, or of the deferred function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<Frame>,
}

/// A stack sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// Time of the sample.
    pub time_ns: u64,
    /// Number of the CPU, as in /proc/cpuinfo.
    pub cpu: u32,
    /// ID of the thread in the host's PID namespace.
    pub thread: u32,
    /// User stack, innermost frame first.
    pub frames: Vec<Frame>,
    /// Kernel stack, innermost frame first; empty if the thread was not in the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<KernelFrame>,
}

/// A frame of a kernel stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFrame {
    /// Address in the kernel.
    pub pc: Addr,
    /// Symbol and offset, if the kernel's symbols are readable.
    pub symbol: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

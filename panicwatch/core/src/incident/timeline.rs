//! The timeline as it stands in the document: names and meanings are a promise to other tools (docs/timeline.md).
//!
//! Knows no records. All times are CLOCK_MONOTONIC nanoseconds, all durations nanoseconds. Optional fields that have
//! nothing to say are left out of the JSON.

pub mod event;

use serde::{Deserialize, Serialize};

use self::event::Event;
use crate::incident::{Addr, Frame};

/// What happened in the window before an incident, and until its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Timeline {
    /// How long before the raise the window begins, as it was asked for.
    pub window_ns: u64,
    /// Where the window begins.
    pub from_ns: u64,
    /// The raise.
    #[serde(default)]
    pub raise_ns: u64,
    /// The end of what is told: the end of the incident, or of what was recorded.
    pub to_ns: u64,
    /// Records lost in the window: overwritten, or torn while they were copied.
    pub lost: u64,
    /// Where they were lost.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// Sources that told nothing, and why.
    #[serde(default)]
    pub off: Vec<Off>,
    /// The panicking goroutine from the window's beginning to the raise, in numbers.
    pub summary: Summary,
    /// Who did what: goroutines (the panicking one first), threads, CPUs, the collector, the process.
    pub tracks: Vec<Track>,
    /// Tracks left out because there were too many.
    #[serde(default)]
    pub tracks_left_out: u64,
    /// Everything that happened, in order of time.
    pub events: Vec<Event>,
    /// Events left out because there were too many: those farthest from the raise.
    #[serde(default)]
    pub events_left_out: u64,
}

/// A time in which records of one CPU are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The CPU.
    pub cpu: u32,
    /// From.
    pub from_ns: u64,
    /// To.
    pub to_ns: u64,
    /// How many records; 0: the CPU was not recorded.
    pub lost: u64,
}

/// A source that told nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Off {
    /// Which: "system calls", "samples" and so on.
    pub source: String,
    /// A sentence.
    pub reason: String,
}

/// The panicking goroutine in numbers, from the window's beginning to the raise.
///
/// `running_ns`, `runnable_ns`, `waiting_ns`, `syscall_ns`, `stopped_ns`, `not_running_ns`, `ended_ns` and
/// `unknown_ns` add up to that time. Where system calls were not recorded, time in them counts as the thread's: running or
/// waiting. Counts are none where their source was not listened to all the time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
#[serde(default)]
pub struct Summary {
    /// The goroutine; none when no goroutine was concerned.
    pub goroutine: Option<u64>,
    /// It ran on a CPU, outside system calls.
    pub running_ns: u64,
    /// It could have run: it waited for a thread, or its thread for a CPU.
    pub runnable_ns: u64,
    /// It waited.
    pub waiting_ns: u64,
    /// What for.
    pub waiting: Vec<Share>,
    /// It was in system calls, running there or blocked.
    pub syscall_ns: u64,
    /// In which.
    pub syscalls: Vec<Share>,
    /// It could have run, but the world was stopped.
    pub stopped_ns: u64,
    /// What for.
    pub stopped: Vec<Share>,
    /// It was on no thread; whether it waited or could have run was not recorded.
    pub not_running_ns: u64,
    /// It did not exist: not created yet.
    pub ended_ns: u64,
    /// Nothing is known.
    pub unknown_ns: u64,
    /// So much of `running_ns` is inferred from what was seen before and after.
    pub inferred_ns: u64,
    /// So much of `not_running_ns` is inferred from which other goroutines were seen on the threads that ran.
    pub not_running_inferred_ns: u64,
    /// The kernel took the CPU away from its thread.
    pub preemptions: Option<u64>,
    /// The Go scheduler took the thread away from it, or it gave it up.
    pub yields: Option<u64>,
    /// Its thread was moved to another CPU.
    pub migrations: Option<u64>,
    /// It went on on another thread.
    pub thread_changes: u64,
    /// Page faults.
    pub page_faults: Option<u64>,
    /// Assists to the collector it was made to give.
    pub gc_assists: Option<u64>,
    /// Signals delivered to its thread while it ran there.
    pub signals: Vec<SignalCount>,
    /// Samples of its stack.
    pub samples: Option<u64>,
    /// Who woke it last.
    pub woken: Option<Woken>,
    /// The last things it did before the raise, oldest first.
    pub last: Vec<Last>,
}

/// A part of a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Wait reason, system call and so on.
    pub what: String,
    /// How long in all.
    pub ns: u64,
    /// How often.
    pub count: u64,
}

/// How often a signal came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalCount {
    /// Number.
    pub number: u32,
    /// "SIGURG"; none for one without a name.
    pub name: Option<String>,
    /// How often.
    pub count: u64,
}

/// A wake-up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    /// When.
    pub time_ns: u64,
    /// The thread that did it; of another process perhaps.
    pub thread: Option<u32>,
    /// The goroutine that did it.
    pub goroutine: Option<u64>,
    /// The system call the waker was in.
    pub syscall: Option<String>,
    /// The Go scheduler's wake-up (of the goroutine), or the kernel's (of its thread).
    pub by_runtime: bool,
}

/// Something the goroutine did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When it began.
    pub time_ns: u64,
    /// In words.
    pub words: String,
}

/// What a track is of.
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

/// One line of the picture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Track {
    /// Of what.
    pub kind: TrackKind,
    /// Which.
    pub id: u64,
    /// Of a thread: its name; of a goroutine: its first function, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In order, without holes or overlaps, from the window's beginning to its end.
    pub states: Vec<State>,
    /// Nested: functions, panics and deferred calls, stopped worlds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<Slice>,
    /// Where it was when the scheduler's tick or a sampling clock struck.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<Stack>,
}

/// What something was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// It ran on a CPU. Of a CPU: it ran a thread of the process. Of the process: at least one thread ran.
    Running,
    /// It could have run and waited for a CPU or a thread.
    Runnable,
    /// It waited; `detail` is what for.
    Waiting,
    /// In the system call `detail`; with `cpu` while it ran there, without while it was blocked.
    Syscall,
    /// It could have run, but the world was stopped for `detail`. Of the collector: it had the world stopped.
    Stopped,
    /// On no thread; more was not recorded. Of a thread: on no CPU. Of the process: no thread ran.
    NotRunning,
    /// Of a CPU: it ran others, of which `detail` tells the first and the last.
    Other,
    /// Of the collector: marking.
    Marking,
    /// Of the collector: not marking.
    Idle,
    /// Not there: not begun, or ended.
    Ended,
    /// Not known, `detail` is why.
    Unknown,
}

/// A state and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// From.
    pub from_ns: u64,
    /// To.
    pub to_ns: u64,
    /// What it was doing.
    pub state: Doing,
    /// See [`Doing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// On which thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// On which CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Running which goroutine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goroutine: Option<u64>,
    /// Not recorded, but concluded from what was recorded before and after.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inferred: bool,
}

/// What a slice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SliceKind {
    /// A call of a function that was asked for.
    Function,
    /// A panic, from its raise to its end.
    Panic,
    /// A deferred call that ran during a panic.
    Defer,
    /// The world was stopped, or about to be.
    StopTheWorld,
}

/// Something with a beginning and an end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// When it began.
    pub from_ns: u64,
    /// When it ended; none: it had not when the timeline ends.
    pub to_ns: Option<u64>,
    /// What it is.
    pub kind: SliceKind,
    /// Function, panic's text, reason.
    pub name: String,
    /// How many others it is in.
    pub depth: u32,
    /// The end was not recorded: it is the first moment at which the call is known to be over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub inferred: bool,
    /// Where it begins in the source, or was called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<Frame>,
}

/// A sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack {
    /// When.
    pub time_ns: u64,
    /// The CPU.
    pub cpu: u32,
    /// The thread.
    pub thread: u32,
    /// The user's stack, innermost first.
    pub frames: Vec<Frame>,
    /// The kernel's, innermost first, when it was in the kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<KernelFrame>,
}

/// A place in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFrame {
    /// Address.
    pub pc: Addr,
    /// Symbol and offset, where the kernel tells.
    pub symbol: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(value: &bool) -> bool {
    !value
}

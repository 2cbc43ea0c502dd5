//! The events of a timeline as they stand in the document (docs/timeline.md). Knows no records.

use serde::{Deserialize, Serialize};

use crate::incident::Addr;

/// What an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The thread left its CPU, `name`: "preempted", "yielded" or "blocked". `other_thread`: the one that follows.
    /// `other_goroutine`: in the Go scheduler, the goroutine that ran last on it.
    SwitchOut,
    /// The thread got a CPU. `other_thread`: the one before.
    SwitchIn,
    /// The thread was woken. `other_thread`, `other_goroutine`: the waker; `name`: the waker's system call.
    Waking,
    /// The thread was moved to another CPU, `number`.
    Migrate,
    /// The thread began. `other_thread`: its creator.
    ThreadBegin,
    /// The thread ended.
    ThreadEnd,
    /// The thread was sent signal `number`, `name`. `other_thread`: the sender; `result`: `si_code`.
    SignalSent,
    /// Signal `number`, `name` was delivered. `result`: `si_code`.
    SignalDelivered,
    /// System call `number`, `name` began, with `args`.
    SyscallEnter,
    /// It ended, with `result`.
    SyscallExit,
    /// A page fault at `address`.
    PageFault,
    /// A garbage collection began.
    GcStart,
    /// Marking was over.
    GcMarkDone,
    /// The world was to be stopped, for `name`.
    StwBegin,
    /// The world was started again.
    StwEnd,
    /// A mark worker began to mark.
    GcWorker,
    /// The goroutine had to assist the collector.
    GcAssist,
    /// The goroutine was created, to run `name`. `other_goroutine`: the creator.
    GoCreate,
    /// The goroutine parked, for `name`.
    GoPark,
    /// The goroutine was made ready. `other_goroutine`: by which.
    GoReady,
    /// The goroutine was given the thread.
    GoRun,
    /// The goroutine gave way, because of `name`.
    GoYield,
    /// The goroutine ended.
    GoEnd,
    /// The function `name` was entered. `address`: the instruction.
    Function,
    /// A panic was raised. `number`: which of the chain, from 1.
    Raise,
    /// The deferred call of `name` began. `number`: in which panic of the chain.
    DeferBegin,
    /// It ended.
    DeferEnd,
    /// The panic was recovered, in `name`.
    Recover,
    /// It ended otherwise: the process died, or the goroutine ended.
    End,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub time_ns: u64,
    /// On which CPU it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// The thread it tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// The goroutine it tells of: the one that thread was running, as far as known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goroutine: Option<u64>,
    /// What.
    pub what: What,
    /// The same, in words.
    pub words: String,
    /// See [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// See [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// See [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<i64>,
    /// See [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Addr>,
    /// See [`What`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Addr>,
    /// See [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_thread: Option<u32>,
    /// See [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_goroutine: Option<u64>,
}

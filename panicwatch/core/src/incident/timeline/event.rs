//! The events of a timeline in the incident document (docs/timeline.md). Does not know records.

use serde::{Deserialize, Serialize};

use crate::incident::Addr;

/// Kind of event, with the meaning of the event's optional fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The thread was switched out; `name`: "preempted", "yielded" or "blocked". `other_thread`: the thread
    /// switched in. `other_goroutine`: the goroutine that ran last on the thread, if the thread was in the Go
    /// scheduler.
    SwitchOut,
    /// The thread was switched in. `other_thread`: the thread switched out.
    SwitchIn,
    /// The thread was woken. `other_thread`, `other_goroutine`: the waker; `name`: the waker's system call.
    Waking,
    /// The thread was migrated to another CPU, `number`.
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
    /// The system call ended, with `result`.
    SyscallExit,
    /// A page fault at `address`.
    PageFault,
    /// A garbage collection began.
    GcStart,
    /// The GC's mark phase ended.
    GcMarkDone,
    /// The world was about to be stopped, for `name`.
    StwBegin,
    /// The world was started again.
    StwEnd,
    /// A mark worker began to mark.
    GcWorker,
    /// The goroutine began a GC mark assist.
    GcAssist,
    /// The goroutine was created, to run `name`. `other_goroutine`: the creator.
    GoCreate,
    /// The goroutine parked; `name` is the wait reason.
    GoPark,
    /// The goroutine was made ready. `other_goroutine`: the goroutine that did it.
    GoReady,
    /// The goroutine started to run on the thread.
    GoRun,
    /// The goroutine yielded or was preempted; `name` is the reason.
    GoYield,
    /// The goroutine ended.
    GoEnd,
    /// The function `name` was entered. `address`: the instruction.
    Function,
    /// A panic was raised. `number`: its index in the chain of panics, from 1.
    Raise,
    /// The deferred call of `name` began. `number`: index of its panic in the chain.
    DeferBegin,
    /// The deferred call ended.
    DeferEnd,
    /// The panic was recovered, in `name`.
    Recover,
    /// The panic ended otherwise: the process died, or the goroutine ended.
    End,
}

/// An event of the timeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Time of the event.
    pub time_ns: u64,
    /// CPU on which it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Thread that the event is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<u32>,
    /// Goroutine that the event is about: the one that the thread was running, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub goroutine: Option<u64>,
    /// Kind of event.
    pub what: What,
    /// Description of the event.
    pub words: String,
    /// Depends on the kind of event; see [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// Depends on the kind of event; see [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Depends on the kind of event; see [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<i64>,
    /// Depends on the kind of event; see [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Addr>,
    /// Depends on the kind of event; see [`What`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Addr>,
    /// Depends on the kind of event; see [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_thread: Option<u32>,
    /// Depends on the kind of event; see [`What`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_goroutine: Option<u64>,
}

//! The flight recorder as user space sees it: its sources, which of them are enabled, and what its rings
//! contained. Pure.
//!
//! Knows the records and their order; must not know how they get here (`probe`) or what they mean for an
//! incident (`timeline`).

pub mod budget;
pub mod cost;
pub mod history;
mod options;

pub use options::{CAPTURE_TIME, Level, Options, OverheadBudget, check_capture_time};
use panicwatch_common::recorder::kind;

/// A source of records; each can be disabled separately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Scheduler switches: threads switched in and out.
    Switch,
    /// Thread wake-ups, with the waker.
    Wakeup,
    /// Threads migrated to another CPU.
    Migrate,
    /// Signals sent and delivered.
    Signal,
    /// System calls with arguments, result and duration.
    Syscall,
    /// Page faults in user mode.
    Fault,
    /// Socket sends: which goroutine a thread runs when it sends.
    Send,
    /// Stack samples at intervals.
    Sample,
    /// Phases of the garbage collector, stop-the-world pauses and their ends.
    Gc,
    /// Goroutines that mark on behalf of the collector (mark assist).
    Assist,
    /// Goroutines created, parked, made ready, running, preempted or ended.
    Goroutine,
    /// Entries of the functions that the user names.
    Function,
}

impl Source {
    /// All sources, ordered by their cost for a busy server, cheapest first.
    pub const ALL: [Source; 12] = [
        Source::Gc,
        Source::Migrate,
        Source::Signal,
        Source::Fault,
        Source::Send,
        Source::Sample,
        Source::Wakeup,
        Source::Switch,
        Source::Assist,
        Source::Syscall,
        Source::Goroutine,
        Source::Function,
    ];

    /// Name of the source, as in options and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Source::Switch => "switch",
            Source::Wakeup => "wakeup",
            Source::Migrate => "migrate",
            Source::Signal => "signal",
            Source::Syscall => "syscall",
            Source::Fault => "fault",
            Source::Send => "send",
            Source::Sample => "sample",
            Source::Gc => "gc",
            Source::Assist => "assist",
            Source::Goroutine => "goroutine",
            Source::Function => "function",
        }
    }

    /// Name of the source's recording in messages.
    pub fn recording(self) -> &'static str {
        match self {
            Source::Switch => "context-switch recording",
            Source::Wakeup => "wake-up recording",
            Source::Migrate => "CPU-migration recording",
            Source::Signal => "signal recording",
            Source::Syscall => "system-call recording",
            Source::Fault => "page-fault recording",
            Source::Send => "socket-send recording",
            Source::Sample => "sampling",
            Source::Gc => "GC recording",
            Source::Assist => "mark-assist recording",
            Source::Goroutine => "goroutine recording",
            Source::Function => "function recording",
        }
    }

    /// Returns the source named `name`.
    pub fn of_name(name: &str) -> Option<Source> {
        Source::ALL.into_iter().find(|source| source.name() == name)
    }

    /// Returns the kinds of records that the source writes.
    pub fn kinds(self) -> &'static [u32] {
        match self {
            Source::Switch => &[kind::SWITCH_OUT, kind::SWITCH_IN],
            Source::Wakeup => &[kind::WAKING],
            Source::Migrate => &[kind::MIGRATE],
            Source::Signal => &[kind::SIGNAL_SENT, kind::SIGNAL_DELIVERED],
            Source::Syscall => &[kind::SYSCALL_ENTER, kind::SYSCALL_EXIT],
            Source::Fault => &[kind::PAGE_FAULT],
            Source::Send => &[kind::SEND],
            Source::Sample => &[kind::SAMPLE, kind::TIMER],
            Source::Gc => {
                &[kind::GC_START, kind::GC_MARK_DONE, kind::STW_BEGIN, kind::STW_END, kind::GC_WORKER]
            }
            Source::Assist => &[kind::GC_ASSIST],
            Source::Goroutine => {
                &[kind::GO_CREATE, kind::GO_PARK, kind::GO_READY, kind::GO_RUN, kind::GO_YIELD, kind::GO_END]
            }
            Source::Function => &[kind::FUNCTION],
        }
    }

    /// Reports whether the source consists of probes in the program's own code, not in the kernel.
    pub fn is_in_program(self) -> bool {
        matches!(self, Source::Gc | Source::Assist | Source::Goroutine | Source::Function)
    }
}

//! The flight recorder as user space sees it: its sources, what is switched on, and what its rings held. Pure.
//!
//! Knows what records are and in which order they happened; must not know how they get here (`probe`) nor what they mean
//! for an incident (`timeline`).

pub mod budget;
pub mod cost;
pub mod history;
mod options;

pub use options::{Level, Options, OverheadBudget};
use panicwatch_common::recorder::kind;

/// One thing the recorder can listen to; each can be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Who gets and who loses a CPU.
    Switch,
    /// Who wakes a thread.
    Wakeup,
    /// Threads moved to another CPU.
    Migrate,
    /// Signals sent and delivered.
    Signal,
    /// System calls with arguments, result and duration.
    Syscall,
    /// Page faults in user mode.
    Fault,
    /// Where threads are, now and then.
    Sample,
    /// Phases of the collector, stopping and starting the world.
    Gc,
    /// Goroutines that have to assist the collector.
    Assist,
    /// Goroutines created, parked, made ready, running, preempted, ended.
    Goroutine,
    /// Entries of the functions the user names.
    Function,
}

impl Source {
    /// All, in the order of their price for a busy server, cheapest first.
    pub const ALL: [Source; 11] = [
        Source::Gc,
        Source::Migrate,
        Source::Signal,
        Source::Fault,
        Source::Sample,
        Source::Wakeup,
        Source::Switch,
        Source::Assist,
        Source::Syscall,
        Source::Goroutine,
        Source::Function,
    ];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Switch => "switch",
            Source::Wakeup => "wakeup",
            Source::Migrate => "migrate",
            Source::Signal => "signal",
            Source::Syscall => "syscall",
            Source::Fault => "fault",
            Source::Sample => "sample",
            Source::Gc => "gc",
            Source::Assist => "assist",
            Source::Goroutine => "goroutine",
            Source::Function => "function",
        }
    }

    /// What recording it is called in messages.
    pub fn recording(self) -> &'static str {
        match self {
            Source::Switch => "context-switch recording",
            Source::Wakeup => "wake-up recording",
            Source::Migrate => "CPU-migration recording",
            Source::Signal => "signal recording",
            Source::Syscall => "system-call recording",
            Source::Fault => "page-fault recording",
            Source::Sample => "sampling",
            Source::Gc => "GC recording",
            Source::Assist => "mark-assist recording",
            Source::Goroutine => "goroutine recording",
            Source::Function => "function recording",
        }
    }

    /// The source of that name.
    pub fn of_name(name: &str) -> Option<Source> {
        Source::ALL.into_iter().find(|source| source.name() == name)
    }

    /// The kinds of records it writes.
    pub fn kinds(self) -> &'static [u32] {
        match self {
            Source::Switch => &[kind::SWITCH_OUT, kind::SWITCH_IN],
            Source::Wakeup => &[kind::WAKING],
            Source::Migrate => &[kind::MIGRATE],
            Source::Signal => &[kind::SIGNAL_SENT, kind::SIGNAL_DELIVERED],
            Source::Syscall => &[kind::SYSCALL_ENTER, kind::SYSCALL_EXIT],
            Source::Fault => &[kind::PAGE_FAULT],
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

    /// Probes in the program's own code, not in the kernel.
    pub fn is_in_program(self) -> bool {
        matches!(self, Source::Gc | Source::Assist | Source::Goroutine | Source::Function)
    }
}

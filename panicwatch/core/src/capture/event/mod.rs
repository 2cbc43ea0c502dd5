//! Events: decodes and assembles the records of the eBPF programs. Pure: bytes in, events out.
//!
//! [`decode`] converts one ring record to one [`Record`]; [`assemble`] joins memory records to the capture
//! that they belong to.

pub mod assemble;
pub mod decode;

pub use assemble::Assembler;
pub use decode::{DecodeError, Record};

use panicwatch_common::{Regs, event as raw};

use crate::go::memory::Snapshot;

/// One event with everything that was captured with it.
#[derive(Debug, Clone)]
pub struct Event {
    /// Common header: kind, time, thread, goroutine and the like.
    pub head: raw::Head,
    /// Data specific to the kind of event.
    pub body: Body,
    /// Process memory captured at that moment.
    pub memory: Snapshot,
    /// Number of memory records dropped because the ring was full.
    pub lost_memory: u32,
}

/// Data of an event by kind; the kinds are those of [`panicwatch_common::event::kind`].
#[derive(Debug, Clone)]
pub enum Body {
    /// PANIC, THROW, DIE, SIGNAL, FATAL_SIGNAL.
    Capture(Box<Capture>),
    /// DEFER_BEGIN, DEFER_END, RECOVER, RECOVERY, GOEXIT, EXIT, START_PANIC, INIT_STEP, INIT_TASK.
    Point(Box<Point>),
    /// The body of `EXEC` and `PROCESS_EXIT`.
    Process(ProcessEvent),
}

/// Registers and the addresses of Go's structs. The g, m and p are in the event's memory as well.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Registers at the probe.
    pub regs: Regs,
    /// Address of the m, 0 when unknown.
    pub m_addr: u64,
    /// Address of the p, 0 when there is none.
    pub p_addr: u64,
    /// Start of the stack that Go's traceback walks, 0 when none was captured.
    pub stack_addr: u64,
    /// End of that stack, exclusive.
    pub stack_end: u64,
}

/// A small event. The `_panic` and `_defer` are in the event's memory.
#[derive(Debug, Clone)]
pub struct Point {
    /// Arguments by event kind, as set by the eBPF program.
    pub args: [u64; 6],
    /// Top `_panic` of the goroutine, 0 when there is none.
    pub panic_addr: u64,
    /// Top `_defer` of the goroutine, 0 when there is none.
    pub defer_addr: u64,
}

/// A process executed a new image or exited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEvent {
    /// Wait status, for an exit reported by the kernel.
    pub wait_status: Option<u32>,
    /// argv, if it was captured.
    pub args: Option<Vec<u8>>,
    /// Environment block, if it was captured.
    pub env: Option<Vec<u8>>,
}

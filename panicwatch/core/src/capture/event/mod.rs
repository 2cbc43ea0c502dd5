//! Events: what the eBPF programs said, decoded and put together. Pure: bytes go in, events come out.
//!
//! [`decode`] turns one ring record into one [`Record`]; [`assemble`] joins memory records to the capture they
//! belong to.

pub mod assemble;
pub mod decode;

pub use assemble::Assembler;
pub use decode::{DecodeError, Record};

use panicwatch_common::{Regs, event as raw};

use crate::go::memory::Snapshot;

/// One event with everything that was captured with it.
#[derive(Debug, Clone)]
pub struct Event {
    /// When, where, who.
    pub head: raw::Head,
    /// What.
    pub body: Body,
    /// Memory of the process at that moment.
    pub memory: Snapshot,
    /// Memory records that the ring had no room for.
    pub lost_memory: u32,
}

/// What happened; the kinds are those of [`panicwatch_common::event::kind`].
#[derive(Debug, Clone)]
pub enum Body {
    /// PANIC, THROW, DIE, SIGNAL, FATAL_SIGNAL.
    Capture(Box<Capture>),
    /// DEFER_BEGIN, DEFER_END, RECOVER, RECOVERY, GOEXIT, EXIT, START_PANIC, INIT_STEP, INIT_TASK.
    Point(Box<Point>),
    /// EXEC, PROCESS_EXIT.
    Process(ProcessEvent),
}

/// Registers and Go's structs, raw. The g, m and p are in the event's memory too.
#[derive(Debug, Clone)]
pub struct Capture {
    /// Registers under the probe.
    pub regs: Regs,
    /// Address of the m, 0 when unknown.
    pub m_addr: u64,
    /// Address of the p, 0 when there is none.
    pub p_addr: u64,
    /// Start of the stack that Go walks, 0 when none was captured.
    pub stack_addr: u64,
    /// Its end.
    pub stack_end: u64,
}

/// A small event. The `_panic` and `_defer` are in the event's memory.
#[derive(Debug, Clone)]
pub struct Point {
    /// See the eBPF program.
    pub args: [u64; 6],
    /// Top `_panic` of the goroutine, 0 when there is none.
    pub panic_addr: u64,
    /// Top `_defer` of the goroutine, 0 when there is none.
    pub defer_addr: u64,
}

/// A process began a new image or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessEvent {
    /// Wait status, for an exit that the kernel told.
    pub wait_status: Option<u32>,
    /// argv, as far as it was captured.
    pub args: Option<Vec<u8>>,
    /// Environment block, as far as it was captured.
    pub env: Option<Vec<u8>>,
}

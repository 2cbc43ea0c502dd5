//! The records in the event ring.
//!
//! Each starts with a [`Head`]. A capture is one main record, followed by any number of [`MemHead`] records of the same
//! (tid, time): pieces of the target's memory as they were at that moment. `Head::mem_records` says how many.

use crate::Regs;

/// `Head::kind`: what happened. Zero is never used.
pub mod kind {
    /// `runtime.gopanic` entered, stack already checked: a [`Capture`](super::CaptureHead).
    pub const PANIC: u32 = 1;
    /// A deferred call begins: a [`Point`](super::Point).
    pub const DEFER_BEGIN: u32 = 2;
    /// The deferred call returned: a [`Point`](super::Point).
    pub const DEFER_END: u32 = 3;
    /// recover() succeeded: a [`Point`](super::Point).
    pub const RECOVER: u32 = 4;
    /// The recovered goroutine is about to continue: a [`Point`](super::Point), older panics as memory.
    pub const RECOVERY: u32 = 5;
    /// `runtime.throw` or `runtime.fatal` entered: a capture without stack, the text as memory.
    pub const THROW: u32 = 7;
    /// `runtime.dopanic_m`: Go is about to print; a capture of the very stack that Go walks, and of the chain of panics
    /// with their values resolved to strings.
    pub const DIE: u32 = 8;
    /// `runtime.sighandler` got a signal of the kind that becomes a panic or kills: a capture without stack.
    pub const SIGNAL: u32 = 9;
    /// `runtime.fatalsignal`: Go dies of a signal: a capture.
    pub const FATAL_SIGNAL: u32 = 10;
    /// `runtime.Goexit` entered: a [`Point`](super::Point).
    pub const GOEXIT: u32 = 11;
    /// `runtime.exit` entered: a [`Point`](super::Point); `args[0]` is the status.
    pub const EXIT: u32 = 12;
    /// A piece of memory: a [`MemHead`](super::MemHead).
    pub const MEMORY: u32 = 13;
    /// A watched process called execve: an [`Exec`](super::Exec), arguments and environment as memory.
    pub const EXEC: u32 = 14;
    /// A watched process ended: an [`Exec`](super::Exec) with `code`.
    pub const PROCESS_EXIT: u32 = 15;
    /// `runtime.startpanic_m` (only where there is no `fatalsignal` to probe): a [`Point`](super::Point).
    pub const START_PANIC: u32 = 16;
    /// A step of the way to main.main, named by the site's flags: a [`Point`](super::Point).
    pub const INIT_STEP: u32 = 17;
    /// A package's initialisation calls its next function, or is through: a [`Point`](super::Point); `args` are the
    /// task, the number of the function, and 1 when it is about to be called.
    pub const INIT_TASK: u32 = 18;
}

/// Start of every record.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// See [`kind`].
    pub kind: u32,
    /// Bytes of this record that hold something, this head included.
    pub len: u32,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Row of the binary; `u32::MAX` for process events.
    pub binary: u32,
    /// Site flags.
    pub site: u32,
    /// Instruction under the probe.
    pub ip: u64,
    /// Stack pointer there.
    pub sp: u64,
    /// The user goroutine, or 0.
    pub g: u64,
    /// Its goid, or 0.
    pub goid: u64,
    /// Its `stack.hi`, or 0.
    pub stack_hi: u64,
    /// Memory records that follow.
    pub mem_records: u32,
    /// Memory records for which the ring had no room.
    pub mem_lost: u32,
    /// Nanoseconds from entry to the end of the capture.
    pub cost_ns: u64,
    /// Records about goroutine `goid` for which the ring had no room, from its beginning to this record. Wraps.
    pub lost: u32,
    /// See [`flag`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Head>() == 96);

/// Bits of `Head::flags`.
pub mod flag {
    /// The goroutine's panic under way was counted only: it is beyond the rate at which panics are captured.
    pub const COUNTED_ONLY: u32 = 1;
    /// Some panic of this binary was counted only.
    pub const SOME_COUNTED: u32 = 2;
    /// The capture reached [`Config::max_capture_ns`](crate::config::Config::max_capture_ns): what would have followed was
    /// not copied.
    pub const OUT_OF_TIME: u32 = 4;
}

/// `_panic`s of the dying goroutine that are copied, newest first. Crossed by `fatal chains around every bound`.
pub const CHAIN: usize = 64;
/// Ancestors of a goroutine that are copied, nearest first. Crossed by `"ancestors", ancestors`.
pub const ANCESTORS: usize = 64;
/// Bytes of a `runtime.ancestorInfo`, in every release from 1.19 to 1.27.
pub const ANCESTOR_BYTES: usize = 40;

/// A small event.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Head.
    pub head: Head,
    /// Meaning depends on the kind: see the program.
    pub args: [u64; 6],
    /// Address of the top `_panic` of the goroutine, or 0.
    pub panic_addr: u64,
    /// Address of the top `_defer` of the goroutine, or 0.
    pub defer_addr: u64,
    /// Structs that do not hold anything, of [`unread`].
    pub unread: u64,
    /// The top `_panic`, raw.
    pub panic: [u8; PANIC_BYTES],
    /// The top `_defer`, raw.
    pub defer: [u8; DEFER_BYTES],
}

/// Bits of [`Point::unread`].
pub mod unread {
    /// The `_panic` was left out or could not be read.
    pub const PANIC: u64 = 1;
    /// The `_defer` likewise.
    pub const DEFER: u64 = 2;
}

/// Bytes of a `_panic` that are copied (104 is the largest known).
pub const PANIC_BYTES: usize = 112;
/// Bytes of a `_defer` that are copied (72 is the largest known).
pub const DEFER_BYTES: usize = 80;
const _: () = assert!(size_of::<Point>() == 96 + 48 + 24 + PANIC_BYTES + DEFER_BYTES);

/// Bytes of a g that are copied (456 is the largest known).
pub const G_BYTES: usize = 472;
/// Bytes of an m that are copied: all the fields that are read lie below.
pub const M_BYTES: usize = 440;
/// Bytes of a p that are copied.
pub const P_BYTES: usize = 64;

/// A full capture: registers and Go's structs, raw; the stack and everything else is in memory records.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureHead {
    /// Head.
    pub head: Head,
    /// Registers under the probe.
    pub regs: Regs,
    /// Address of `g.m`.
    pub m_addr: u64,
    /// Address of `m.p`, or 0.
    pub p_addr: u64,
    /// Bytes of `g` that could be read.
    pub g_len: u32,
    /// Bytes of `m` that could be read.
    pub m_len: u32,
    /// Bytes of `p` that could be read.
    pub p_len: u32,
    /// Zero.
    pub reserved: u32,
    /// The user goroutine's g, raw.
    pub g: [u8; G_BYTES],
    /// Its m, raw.
    pub m: [u8; M_BYTES],
    /// Its p, raw.
    pub p: [u8; P_BYTES],
    /// First byte of the stack that was asked for, 0 when none was.
    pub stack_addr: u64,
    /// The captured stack ends here (`stack.hi` of its goroutine).
    pub stack_end: u64,
}

const _: () = assert!(size_of::<CaptureHead>() == 96 + 144 + 32 + G_BYTES + M_BYTES + P_BYTES + 16);

/// A piece of memory; `data_len` bytes follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemHead {
    /// [`kind::MEMORY`].
    pub kind: u32,
    /// Bytes of this record that hold something, this head included.
    pub len: u32,
    /// Time of the capture it belongs to.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Where the bytes were.
    pub addr: u64,
    /// How many follow; 0 when the memory could not be read.
    pub data_len: u64,
}

const _: () = assert!(size_of::<MemHead>() == 40);

/// A process event.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exec {
    /// Head; `binary` is `u32::MAX`.
    pub head: Head,
    /// Zero.
    pub reserved: u32,
    /// Wait status as `wait4` gives it, for an exit; `u32::MAX` when it could not be read.
    pub code: u32,
    /// argv block of the new image, 0 when unknown.
    pub arg_start: u64,
    /// End of the argv block.
    pub arg_end: u64,
    /// Environment block.
    pub env_start: u64,
    /// End of the environment block.
    pub env_end: u64,
    /// Thread name.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Exec>() == 96 + 8 + 32 + 16);

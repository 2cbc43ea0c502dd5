//! Records of the event ring.
//!
//! Every record starts with a [`Head`]. A capture is one main record followed by [`Head::mem_records`]
//! [`MemHead`] records of the same (tid, time), which hold pieces of the target's memory as of that moment.

use crate::Regs;

/// Values of [`Head::kind`]. Zero is never used.
pub mod kind {
    /// `runtime.gopanic` was entered and has passed its stack check: a [`CaptureHead`](super::CaptureHead).
    pub const PANIC: u32 = 1;
    /// A deferred call begins: a [`Point`](super::Point).
    pub const DEFER_BEGIN: u32 = 2;
    /// The deferred call returned: a [`Point`](super::Point).
    pub const DEFER_END: u32 = 3;
    /// A call of recover() succeeded: a [`Point`](super::Point).
    pub const RECOVER: u32 = 4;
    /// The recovered goroutine is about to continue: a [`Point`](super::Point).
    pub const RECOVERY: u32 = 5;
    /// `runtime.throw` or `runtime.fatal` was entered: a capture without a stack; the text follows as memory.
    pub const THROW: u32 = 7;
    /// `runtime.dopanic_m`, where Go is about to print: a capture of the stack that Go walks and of the chain
    /// of panics, whose values have been resolved to strings.
    pub const DIE: u32 = 8;
    /// `runtime.sighandler` received a signal that becomes a panic or ends the process: a capture, without a
    /// stack unless the site has [`NO_FATALSIGNAL`](crate::binary::site::NO_FATALSIGNAL).
    pub const SIGNAL: u32 = 9;
    /// `runtime.fatalsignal`, where Go dies of a signal: a capture.
    pub const FATAL_SIGNAL: u32 = 10;
    /// `runtime.Goexit` was entered: a [`Point`](super::Point).
    pub const GOEXIT: u32 = 11;
    /// `runtime.exit` was entered: a [`Point`](super::Point); `args[0]` is the exit status.
    pub const EXIT: u32 = 12;
    /// A piece of memory: a [`MemHead`](super::MemHead).
    pub const MEMORY: u32 = 13;
    /// A watched process called execve: an [`Exec`](super::Exec); arguments and environment follow as memory.
    pub const EXEC: u32 = 14;
    /// A watched process ended: an [`Exec`](super::Exec), with its wait status in `code`.
    pub const PROCESS_EXIT: u32 = 15;
    /// `runtime.startpanic_m` (only where there is no `fatalsignal` to probe): a [`Point`](super::Point).
    pub const START_PANIC: u32 = 16;
    /// A step on the way to main.main, identified by the site's flags: a [`Point`](super::Point).
    pub const INIT_STEP: u32 = 17;
    /// A package's initialization is about to call its next function, or has finished: a
    /// [`Point`](super::Point). `args` are the task, the index of the function, and 1 if it is about to be
    /// called.
    pub const INIT_TASK: u32 = 18;
}

/// Header of every record.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Head {
    /// What happened, see [`kind`].
    pub kind: u32,
    /// Used bytes of this record, including this header.
    pub len: u32,
    /// Time of the hit, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Process ID (thread group).
    pub tgid: u32,
    /// Thread ID in the host's PID namespace.
    pub tid: u32,
    /// Row of the binary in `BINARIES`; `u32::MAX` for process events.
    pub binary: u32,
    /// Flags of the probe site, see [`site`](crate::binary::site).
    pub site: u32,
    /// Run-time address of the probed instruction.
    pub ip: u64,
    /// Stack pointer at the probed instruction.
    pub sp: u64,
    /// Address of the user goroutine's g, or 0.
    pub g: u64,
    /// Id of that goroutine, or 0.
    pub goid: u64,
    /// `stack.hi` of that goroutine, or 0.
    pub stack_hi: u64,
    /// Number of memory records that follow.
    pub mem_records: u32,
    /// Number of memory records that were dropped because the ring was full.
    pub mem_lost: u32,
    /// Time from the hit to the end of the capture, nanoseconds.
    pub cost_ns: u64,
    /// Number of records about goroutine `goid` that the ring had no room for, from its start to this record,
    /// plus those that could not be attributed to any goroutine. Wraps.
    pub lost: u32,
    /// Bits of [`flag`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Head>() == 96);

/// Bits of `Head::flags`.
pub mod flag {
    /// The goroutine's current panic was only counted: it is beyond the rate at which panics are captured.
    pub const COUNTED_ONLY: u32 = 1;
    /// At least one panic of this binary was only counted.
    pub const SOME_COUNTED: u32 = 2;
    /// The capture reached [`Config::max_capture_ns`](crate::config::Config::max_capture_ns): what would have
    /// followed was not copied.
    pub const OUT_OF_TIME: u32 = 4;
}

/// Number of the dying goroutine's `_panic`s that are copied, newest first.
/// Crossed by `fatal chains around every bound`.
pub const CHAIN: usize = 64;
/// Number of a goroutine's ancestors that are copied, nearest first. Crossed by `"ancestors", ancestors`.
pub const ANCESTORS: usize = 64;
/// Size of `runtime.ancestorInfo` in bytes, in every release from 1.19 to 1.27.
pub const ANCESTOR_BYTES: usize = 40;

/// A small event without memory records.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The header that every record starts with.
    pub head: Head,
    /// Values whose meaning depends on the kind; documented at the eBPF program that writes them.
    pub args: [u64; 6],
    /// Address of the goroutine's top `_panic`, or 0.
    pub panic_addr: u64,
    /// Address of the goroutine's top `_defer`, or 0.
    pub defer_addr: u64,
    /// Structs below that hold no data: bits of [`unread`].
    pub unread: u64,
    /// The top `_panic`, undecoded.
    pub panic: [u8; PANIC_BYTES],
    /// The top `_defer`, undecoded.
    pub defer: [u8; DEFER_BYTES],
}

/// Bits of [`Point::unread`].
pub mod unread {
    /// The `_panic` was omitted or could not be read.
    pub const PANIC: u64 = 1;
    /// The `_defer` was omitted or could not be read.
    pub const DEFER: u64 = 2;
}

/// Number of bytes that are copied of a `_panic` (the largest known is 104).
pub const PANIC_BYTES: usize = 112;
/// Number of bytes that are copied of a `_defer` (the largest known is 72).
pub const DEFER_BYTES: usize = 80;
const _: () = assert!(size_of::<Point>() == 96 + 48 + 24 + PANIC_BYTES + DEFER_BYTES);

/// Number of bytes that are copied of a g (the largest known is 456).
pub const G_BYTES: usize = 472;
/// Number of bytes that are copied of an m; all fields that user space reads lie below.
pub const M_BYTES: usize = 440;
/// Number of bytes that are copied of a p.
pub const P_BYTES: usize = 64;

/// Main record of a capture: registers and Go's structs, undecoded; the stack and everything else follows in
/// memory records.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureHead {
    /// The header that every record starts with.
    pub head: Head,
    /// Registers at the probed instruction.
    pub regs: Regs,
    /// Address of `g.m`.
    pub m_addr: u64,
    /// Address of `m.p`, or 0.
    pub p_addr: u64,
    /// Number of bytes of `g` that could be read.
    pub g_len: u32,
    /// Number of bytes of `m` that could be read.
    pub m_len: u32,
    /// Number of bytes of `p` that could be read.
    pub p_len: u32,
    /// Padding, always zero.
    pub reserved: u32,
    /// The user goroutine's g, undecoded.
    pub g: [u8; G_BYTES],
    /// The m of that goroutine, undecoded.
    pub m: [u8; M_BYTES],
    /// The p of that m, undecoded.
    pub p: [u8; P_BYTES],
    /// Lowest address of the requested stack, 0 when none was requested.
    pub stack_addr: u64,
    /// End of that stack: `stack.hi` of its g.
    pub stack_end: u64,
}

const _: () = assert!(size_of::<CaptureHead>() == 96 + 144 + 32 + G_BYTES + M_BYTES + P_BYTES + 16);

/// Header of a piece of memory; `data_len` bytes follow.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemHead {
    /// [`kind::MEMORY`].
    pub kind: u32,
    /// Used bytes of this record, including this header and the data.
    pub len: u32,
    /// `Head::time_ns` of the capture that this piece belongs to.
    pub time_ns: u64,
    /// Process ID (thread group).
    pub tgid: u32,
    /// Thread ID in the host's PID namespace.
    pub tid: u32,
    /// Address of the bytes in the target.
    pub addr: u64,
    /// Number of bytes that follow.
    pub data_len: u64,
}

const _: () = assert!(size_of::<MemHead>() == 40);

/// A process event: an exec or an exit.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exec {
    /// Common header; `binary` is `u32::MAX`.
    pub head: Head,
    /// Padding, always zero.
    pub reserved: u32,
    /// For an exit, the wait status as `wait4` returns it; `u32::MAX` when it could not be read.
    pub code: u32,
    /// Start address of the new image's argv block, 0 when unknown.
    pub arg_start: u64,
    /// End address of the argv block.
    pub arg_end: u64,
    /// Start address of the environment block.
    pub env_start: u64,
    /// End address of the environment block.
    pub env_end: u64,
    /// Name of the thread, padded with zeros.
    pub comm: [u8; 16],
}

const _: () = assert!(size_of::<Exec>() == 96 + 8 + 32 + 16);

//! What the eBPF programs must know of one watched binary: the row of the `BINARIES` map that a probe's cookie names.
//!
//! The programs copy Go's structs raw and leave decoding to user space, so this is short.

/// Most binaries watched at once.
pub const MAX_BINARIES: u32 = 1024;

/// Offsets and switches of one binary.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Binary {
    /// Report every process of this binary, not only those in `WATCHED`.
    pub watch_all: u32,
    /// `runtime.g.goid`.
    pub g_goid: u32,
    /// `runtime.m.curg`.
    pub m_curg: u32,
    /// `runtime._panic.link`.
    pub panic_link: u32,
    /// `runtime._panic.recovered`.
    pub panic_recovered: u32,
    /// `runtime._panic.arg` (an eface: type word, data word).
    pub panic_arg: u32,
    /// `runtime._defer.link`.
    pub defer_link: u32,
    /// `runtime._defer.fn`.
    pub defer_fn: u32,
    /// `runtime.g.labels`.
    pub g_labels: u32,
    /// Not zero: pprof labels are a slice (Go 1.24 and later), else a map.
    pub label_list: u32,
    /// `runtime.g.sched.sp`.
    pub g_sched_sp: u32,
    /// `runtime.g.syscallsp`.
    pub g_syscallsp: u32,
    /// `runtime.m.p`.
    pub m_p: u32,
    /// Where the current g is, from the thread pointer: a signed distance; 0 when that is not known.
    pub tls_g: i32,
    /// `runtime.g.startpc`.
    pub g_startpc: u32,
    /// `runtime.g.gopc`.
    pub g_gopc: u32,
    /// From the first of the binary's bytes that never change to the probe in gopanic.
    pub image_below: u32,
    /// From the probe in gopanic to the end of the bytes that never change.
    pub image_above: u32,
    /// `runtime.g.ancestors`.
    pub g_ancestors: u32,
    /// Offset of `runtime.g.trackingSeq`, a byte that counts how often the goroutine has stopped running.
    pub g_tracking_seq: u32,
}

const _: () = assert!(size_of::<Binary>() == 80);

/// What the table of watched processes has for a process: the row of its binary plus one, or one of these.
pub mod row {
    /// It is watched; what it runs is not known yet.
    pub const UNKNOWN: u32 = 0;
    /// It is not to be reported, though its binary has probes.
    pub const IGNORED: u32 = u32::MAX;
    /// Stands for a process that is not in the table; never in it.
    pub const ABSENT: u32 = u32::MAX - 1;
}

/// A probe's cookie: the binary's row in the low half, site flags in the high half.
pub const fn cookie(binary: u32, site: u32) -> u64 {
    (site as u64) << 32 | binary as u64
}

/// Site flags: what the instruction under the probe means for the program.
pub mod site {
    /// The probe stands on the prologue's branch to morestack: with CF or ZF set the function will start again.
    pub const ON_STACK_CHECK: u32 = 1;
    /// defer begin: the closure is in RAX when BL is set (Go 1.22 and later, after nextDefer).
    pub const CLOSURE_RAX_IF_BL: u32 = 2;
    /// defer begin: the closure is in RBX (deferCallSave, before Go 1.22).
    pub const CLOSURE_RBX: u32 = 4;
    /// defer begin: the closure is `g._defer.fn` (linked defers before Go 1.22).
    pub const CLOSURE_G_DEFER: u32 = 8;
    /// recover: the flags mean success when ZF is set; without this bit, when it is clear.
    pub const SUCCESS_IF_ZF: u32 = 16;
    /// throw: this is `runtime.fatal`.
    pub const IS_FATAL: u32 = 32;
    /// defer begin or end: inside `runtime.Goexit`.
    pub const IN_GOEXIT: u32 = 64;
    /// sighandler: there is no fatalsignal to probe (Go 1.19), so the stack is taken here, for deadly signals too.
    pub const NO_FATALSIGNAL: u32 = 128;
    /// defer end: `_panic.argp` (its first word) is zero until the first deferred call (Go 1.22 to 1.25).
    pub const ARGP_TELLS: u32 = 256;
    /// init task: the task is in RCX and the number of the function in RAX (a runtime built with -N); without this bit
    /// in RAX and RSI.
    pub const TASK_RCX: u32 = 512;
    /// Recorder: the record's kind is here.
    pub const KIND_SHIFT: u32 = 16;
    /// And has these bits.
    pub const KIND_MASK: u32 = 63;
    /// Recorder: AL is the reason to stop the world (Go 1.21 and later).
    pub const HAS_REASON: u32 = 256;
    /// Recorder: the reason to give way, as `GO_YIELD` has it.
    pub const YIELD: u32 = 3 << YIELD_SHIFT;
    /// And is here.
    pub const YIELD_SHIFT: u32 = 9;
    /// Recorder: BL says whether the goroutine that gives way was preempted.
    pub const PREEMPTED_BL: u32 = 1 << 11;
    /// Recorder, a function of the user's: words that the stack pointer is below the return address.
    pub const BELOW_SHIFT: u32 = 22;
    /// And has these bits.
    pub const BELOW_MASK: u32 = 0x3ff;
    /// init step: which one.
    pub const STEP: u32 = 0xf << 16;
    /// init step: `runtime.rt0_go` begins.
    pub const STEP_RT0: u32 = 1 << 16;
    /// init step: `runtime.schedinit` is about to be called.
    pub const STEP_SCHEDINIT: u32 = 2 << 16;
    /// init step: `runtime.newproc` is about to be called for the first goroutine.
    pub const STEP_NEWPROC: u32 = 3 << 16;
    /// init step: `runtime.mstart` is about to be called on the first thread.
    pub const STEP_MSTART: u32 = 4 << 16;
    /// init step: `runtime.main` begins.
    pub const STEP_RUNTIME_MAIN: u32 = 5 << 16;
    /// init step: `main.main` begins.
    pub const STEP_MAIN: u32 = 6 << 16;
}

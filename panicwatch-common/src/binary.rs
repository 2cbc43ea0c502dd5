//! Per-binary data for the eBPF programs: one row of the `BINARIES` map, selected by a probe's cookie.
//!
//! The programs copy Go's structs raw and leave decoding to user space, so a row holds only a few offsets.

/// Maximum number of binaries watched at the same time.
pub const MAX_BINARIES: u32 = 1024;

/// Offsets and switches of one binary. Offsets are in bytes, from the start of the struct that each field
/// names.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Binary {
    /// Nonzero: report every process of this binary, not only those in `WATCHED`.
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
    /// Nonzero: pprof labels are a slice (Go 1.24 and later); zero: they are a map.
    pub label_list: u32,
    /// `runtime.g.sched.sp`.
    pub g_sched_sp: u32,
    /// `runtime.g.syscallsp`.
    pub g_syscallsp: u32,
    /// `runtime.m.p`.
    pub m_p: u32,
    /// Signed distance from the thread pointer to the word that holds the current g; 0 when unknown.
    pub tls_g: i32,
    /// `runtime.g.startpc`.
    pub g_startpc: u32,
    /// `runtime.g.gopc`.
    pub g_gopc: u32,
    /// Distance from the start of the binary's constant bytes to the probe in gopanic.
    pub image_below: u32,
    /// Distance from the probe in gopanic to the end of the binary's constant bytes.
    pub image_above: u32,
    /// `runtime.g.ancestors`.
    pub g_ancestors: u32,
    /// `runtime.g.trackingSeq`, a byte that counts how often the goroutine has stopped running.
    pub g_tracking_seq: u32,
}

const _: () = assert!(size_of::<Binary>() == 80);

/// Values of the `WATCHED` map: the row of the process's binary plus one, or one of these.
pub mod row {
    /// The process is watched; its binary is not known yet.
    pub const UNKNOWN: u32 = 0;
    /// The process is not reported, although its binary has probes.
    pub const IGNORED: u32 = u32::MAX;
    /// Stands for a process that is not in the map; never stored in it.
    pub const ABSENT: u32 = u32::MAX - 1;
}

/// Returns a probe's cookie: the binary's row in the low half, site flags in the high half.
pub const fn cookie(binary: u32, site: u32) -> u64 {
    (site as u64) << 32 | binary as u64
}

/// Site flags: how a program must interpret the probed instruction.
pub mod site {
    /// The probed instruction is the prologue's branch to morestack: with CF or ZF set, the function will
    /// start again.
    pub const ON_STACK_CHECK: u32 = 1;
    /// defer begin: the closure is in RAX when BL is set (Go 1.22 and later, after nextDefer).
    pub const CLOSURE_RAX_IF_BL: u32 = 2;
    /// defer begin: the closure is in RBX (deferCallSave, before Go 1.22).
    pub const CLOSURE_RBX: u32 = 4;
    /// defer begin: the closure is `g._defer.fn` (linked defers before Go 1.22).
    pub const CLOSURE_G_DEFER: u32 = 8;
    /// recover: recover() succeeds when ZF is set; without this flag, when ZF is clear.
    pub const SUCCESS_IF_ZF: u32 = 16;
    /// throw: the probed function is `runtime.fatal`.
    pub const IS_FATAL: u32 = 32;
    /// defer begin or end: the probe is inside `runtime.Goexit`.
    pub const IN_GOEXIT: u32 = 64;
    /// sighandler: there is no fatalsignal to probe (Go 1.19), so the stack is captured here, also for fatal
    /// signals.
    pub const NO_FATALSIGNAL: u32 = 128;
    /// defer end: `_panic.argp` (its first word) is zero until the first deferred call (Go 1.22 to 1.25).
    pub const ARGP_TELLS: u32 = 256;
    /// init task: the task is in RCX and the index of the function in RAX (a runtime built with -N); without
    /// this flag they are in RAX and RSI.
    pub const TASK_RCX: u32 = 512;
    /// Recorder: lowest bit of the record's kind.
    pub const KIND_SHIFT: u32 = 16;
    /// Recorder: mask of the record's kind, applied after the shift by [`KIND_SHIFT`].
    pub const KIND_MASK: u32 = 63;
    /// Recorder: AL holds the stop-the-world reason (Go 1.21 and later).
    pub const HAS_REASON: u32 = 256;
    /// Recorder: mask of the reason why the goroutine yields, with the values of
    /// [`GO_YIELD`](crate::recorder::kind::GO_YIELD).
    pub const YIELD: u32 = 3 << YIELD_SHIFT;
    /// Recorder: lowest bit of [`YIELD`].
    pub const YIELD_SHIFT: u32 = 9;
    /// Recorder: BL is nonzero when the goroutine that yields was preempted.
    pub const PREEMPTED_BL: u32 = 1 << 11;
    /// Recorder, user-named function: lowest bit of the number of words from the stack pointer up to the
    /// return address.
    pub const BELOW_SHIFT: u32 = 22;
    /// Recorder, user-named function: mask of that number, applied after the shift by [`BELOW_SHIFT`].
    pub const BELOW_MASK: u32 = 0x3ff;
    /// init step: mask of the step.
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

//! The flight recorder's overwriting rings, which the eBPF programs write and user space maps.
//!
//! Each CPU has one ring of [`Slot`]s and one ring of [`Sample`]s, stored in two arrays: slot `i` of CPU `c`
//! is element `c * slots + i % slots`. A ring's [`Head`] counts the records ever begun on that CPU. A writer
//! takes the next number `i` with an atomic addition, zeroes `seq`, writes the record and then sets
//! `seq = i + 1`. A reader that finds another `seq` before or after it copies a record knows that the record
//! was being written or was overwritten.

/// Values of [`Slot::kind`]. Zero is never used. `goid` is the goroutine that the thread was running, 0 when
/// it ran none or the goroutine could not be read; other threads are encoded with [`pair`].
pub mod kind {
    /// The thread leaves its CPU. `extra`: the [task state](super::TASK_STATE) in which it leaves (0:
    /// runnable) and [`PREEMPTED`](super::PREEMPTED). With [`RAN_LAST`](super::RAN_LAST), the thread is in
    /// the Go scheduler and `goid` is the goroutine that ran last on it. args: the thread that follows it,
    /// and the name of that thread in two words.
    pub const SWITCH_OUT: u32 = 1;
    /// The thread gets a CPU. args: the thread that had the CPU before, and the name of that thread in two
    /// words.
    pub const SWITCH_IN: u32 = 2;
    /// The thread is woken. `goid` is 0. `extra`: number of the system call that the waker is executing, or
    /// [`NO_SYSCALL`](super::NO_SYSCALL). args: the waker, the waker's goroutine, 0.
    pub const WAKING: u32 = 3;
    /// The thread, which is not running, is moved to another CPU. args: the new CPU, 0, 0.
    pub const MIGRATE: u32 = 4;
    /// A thread of the process is created. `goid` is the creator's goroutine. args: the creating thread, 0,
    /// 0.
    pub const THREAD_BEGIN: u32 = 5;
    /// The thread exits.
    pub const THREAD_END: u32 = 6;
    /// A signal is sent to the thread. `goid` is the sender's goroutine if the sender is watched. `extra`:
    /// the signal number. args: the sender, `si_code` (sign-extended), the result (0: queued).
    pub const SIGNAL_SENT: u32 = 7;
    /// A signal is delivered. `extra`: the signal number. args: `si_code` (sign-extended), address of the
    /// handler, 0.
    pub const SIGNAL_DELIVERED: u32 = 8;
    /// A system call begins. `extra`: its number. args: the first three arguments.
    pub const SYSCALL_ENTER: u32 = 9;
    /// A system call ended. `extra`: its number. args: the return value, 0, 0.
    pub const SYSCALL_EXIT: u32 = 10;
    /// A page fault in user mode. `extra`: the processor's error code. args: faulting address, address of the
    /// instruction, 0.
    pub const PAGE_FAULT: u32 = 11;

    /// A sample was taken. Counted under this kind; written as a [`Sample`](super::Sample).
    pub const SAMPLE: u32 = 12;
    /// A timer expired while an unwatched process ran. Counted only: this is the cost that sampling in the
    /// tick has for that process.
    pub const TIMER: u32 = 13;
    /// The thread has sent on a socket: shows which goroutine it runs. At most one record per CPU in
    /// [`SEND_GAP_NS`](super::SEND_GAP_NS). args: 0.
    pub const SEND: u32 = 14;

    /// A garbage collection begins (`runtime.gcBgMarkStartWorkers`, the first thing the collector does).
    pub const GC_START: u32 = 20;
    /// Marking has ended (`runtime.gcMarkTermination`).
    pub const GC_MARK_DONE: u32 = 21;
    /// `runtime.stopTheWorldWithSema` begins. `extra`: number of the stop-the-world reason, `u32::MAX` when
    /// Go passes none.
    pub const STW_BEGIN: u32 = 22;
    /// `runtime.startTheWorldWithSema` begins.
    pub const STW_END: u32 = 23;
    /// A mark worker begins to mark (`runtime.gcDrain`). `goid`: the worker's goroutine.
    pub const GC_WORKER: u32 = 24;
    /// The goroutine begins a mark assist (`runtime.gcAssistAlloc`).
    pub const GC_ASSIST: u32 = 25;

    /// A goroutine is created. `goid`: the new goroutine. args: address of its first instruction, address of
    /// the go statement, goid of the creator.
    pub const GO_CREATE: u32 = 30;
    /// The goroutine parks. `extra`: number of the wait reason. args: return address of gopark, 0, 0.
    pub const GO_PARK: u32 = 31;
    /// The goroutine is made runnable. args: goid of the goroutine that made it so (0: none), 0, 0. `tid` is
    /// the thread that runs that goroutine.
    pub const GO_READY: u32 = 32;
    /// The goroutine is about to run on this thread.
    pub const GO_RUN: u32 = 33;
    /// The goroutine yields. `extra`: 1 preempted, 2 runtime.Gosched, 3 stopped for the collector.
    pub const GO_YIELD: u32 = 34;
    /// The goroutine has ended.
    pub const GO_END: u32 = 35;

    /// A user-named function is entered. args: address of the probed instruction, distance of the return
    /// address from `stack.hi` in bytes, return address.
    pub const FUNCTION: u32 = 40;
}

/// Exclusive upper bound of the kinds: length of the tables of [`Head`].
pub const KINDS: u32 = 64;

/// Bit of `extra` in a [`kind::SWITCH_OUT`]: the scheduler preempted the thread.
pub const PREEMPTED: u32 = 1 << 31;
/// Mask of `extra` in a [`kind::SWITCH_OUT`]: the task state.
pub const TASK_STATE: u32 = 0xf_ffff;
/// Bit of `extra` in a [`kind::SWITCH_OUT`]: the thread runs no goroutine. `goid` is the goroutine that ran
/// last on it, and the byte at [`TIMES_RUN_SHIFT`] counts how often that goroutine has stopped running on any
/// thread (`g.trackingSeq`).
pub const RAN_LAST: u32 = 1 << 30;
/// Lowest bit in `extra` of the byte described at [`RAN_LAST`].
pub const TIMES_RUN_SHIFT: u32 = 20;
/// Value of `extra` in a [`kind::WAKING`]: the waker is in no system call, or the call is unknown.
pub const NO_SYSCALL: u32 = u32::MAX;

/// Packs a thread and its process into one word.
pub const fn pair(tid: u32, tgid: u32) -> u64 {
    (tgid as u64) << 32 | tid as u64
}

/// One record of the slot ring.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Number of this record on its CPU, plus one; 0 while the record is being written.
    pub seq: u64,
    /// Time of the event, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// What happened, see [`kind`].
    pub kind: u32,
    /// Process id of the thread that the record is about.
    pub tgid: u32,
    /// Id of the thread that the record is about.
    pub tid: u32,
    /// Additional value, see [`kind`].
    pub extra: u32,
    /// Goroutine id, see [`kind`].
    pub goid: u64,
    /// Arguments, see [`kind`].
    pub args: [u64; 3],
}

const _: () = assert!(size_of::<Slot>() == 64);

/// Maximum number of user-space frames in a sample.
pub const USER_FRAMES: usize = 48;
/// Maximum number of kernel frames in a sample.
pub const KERNEL_FRAMES: usize = 24;
/// Flag in [`Sample::kernel_frames`]: the kernel frames begin inside the tick that took the sample; the
/// frames of the interrupted code follow.
pub const IN_TICK: u32 = 1 << 31;
/// Minimum time between two samples of one CPU when samples are taken in the tick: every tick of kernels with
/// at most 250 ticks a second, every fourth tick of kernels with 1000.
pub const SAMPLE_GAP_NS: u64 = 3_500_000;

/// Minimum time between two [`kind::SEND`] records of one CPU. Crossed by `sends of a busy server`.
pub const SEND_GAP_NS: u64 = 200_000;
/// Maximum number of sends on one CPU between two readings of the clock. Beyond 64 sends in [`SEND_GAP_NS`],
/// which no test reaches, the clock is read more often than records are due.
pub const MAX_SENDS: u32 = 64;

/// Stack of a thread when the scheduler tick or the CPU's sampling clock fired.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Number of this sample on its CPU, plus one; 0 while the sample is being written.
    pub seq: u64,
    /// Time of the sample, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Process ID (thread group).
    pub tgid: u32,
    /// Thread ID in the host's PID namespace.
    pub tid: u32,
    /// Number of used entries of `user`.
    pub user_frames: u32,
    /// Number of used entries of `kernel`, plus the flag [`IN_TICK`].
    pub kernel_frames: u32,
    /// Goroutine id, or 0.
    pub goid: u64,
    /// User-space frames, innermost first: the instruction pointer, then the return addresses found by frame
    /// pointers.
    pub user: [u64; USER_FRAMES],
    /// Kernel frames, innermost first.
    pub kernel: [u64; KERNEL_FRAMES],
}

const _: () = assert!(size_of::<Sample>() == 40 + 8 * (USER_FRAMES + KERNEL_FRAMES));

/// Payers of the CPU time of tracepoint programs: a run is charged to the process in whose context it runs.
pub mod payer {
    /// A watched process.
    pub const TARGET: usize = 0;
    /// Any other process, or an idle CPU.
    pub const HOST: usize = 1;
    /// Number of payers.
    pub const PAYERS: usize = 2;
}

/// Nanoseconds or counts, by payer and kind.
pub type ByPayer = [[u64; KINDS as usize]; payer::PAYERS];

/// Counters of one CPU, on separate cache lines.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of records ever begun.
    pub slots: u64,
    /// Number of samples ever begun.
    pub samples: u64,
    /// Time of the last sample, CLOCK_MONOTONIC nanoseconds.
    pub sampled_ns: u64,
    /// Time since which a watched thread has had this CPU; 0 when none has it. Maintained by the sched_switch
    /// program.
    pub watched_since_ns: u64,
    /// CPU time that watched threads had on this CPU before `watched_since_ns`, nanoseconds.
    pub watched_ns: u64,
    /// Time of the last [`kind::SEND`] record, CLOCK_MONOTONIC nanoseconds.
    pub sent_ns: u64,
    /// Number of sends between two readings of the clock, at most [`MAX_SENDS`]; adapts to their rate.
    pub send_step: u32,
    /// Number of sends until the next reading.
    pub sends_left: u32,
    /// Padding that keeps `hits` off this cache line.
    pub reserved: u64,
    /// Number of program runs, by the first kind of record that they write. Programs at the kernel's
    /// tracepoints run for every process of the machine.
    pub hits: [u64; KINDS as usize],
    /// Number of those runs that were timed: one in [`TIMED_EVERY`], and every sample.
    pub timed: ByPayer,
    /// Total duration of the timed runs, nanoseconds.
    pub timed_ns: ByPayer,
}

const _: () = assert!(size_of::<Head>() == 64 + 5 * 8 * KINDS as usize);

/// One run in this many is timed; a power of two.
pub const TIMED_EVERY: u64 = 64;

/// Reports whether run number `n` is timed. Multiplying by 2^64 divided by the golden ratio spreads the timed
/// runs evenly over every arithmetic sequence of numbers: when the runs of a program alternate between two
/// payers, both get timed runs.
#[inline(always)]
pub const fn is_timed(n: u64) -> bool {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TIMED_EVERY.trailing_zeros()) == 0
}

/// Bits of the `MAY_BE_WATCHED` map: one for each process id that Linux can assign (`PID_MAX_LIMIT`,
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/threads.h>).
pub const PROCESS_BITS: u32 = 1 << 22;
/// Number of 64-bit words that hold those bits.
pub const PROCESS_WORDS: u32 = PROCESS_BITS / 64;

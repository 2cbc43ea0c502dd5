//! The flight recorder: what the eBPF programs write into overwriting rings that user space maps.
//!
//! One ring of [`Slot`]s and one of [`Sample`]s a CPU, in two arrays: slot `i` of CPU `c` is element
//! `c * slots + i % slots`. A ring's [`Head`] counts the records ever begun on that CPU. A writer takes the next number
//! `i` with an atomic addition, zeroes `seq`, writes the record and then `seq = i + 1`; so a reader that finds another
//! `seq` before or after copying has met a record that is being written, or was overwritten.

/// What a [`Slot`] tells. Zero is never used. `goid` is the goroutine the thread was running, 0 when it ran none or
/// that could not be read; "the other" is a pair of [`pair`].
pub mod kind {
    /// The thread leaves its CPU. `extra`: the [task state](super::TASK_STATE) it leaves in (0: it could run on), with
    /// [`PREEMPTED`](super::PREEMPTED). With [`RAN_LAST`](super::RAN_LAST) the thread is in the Go scheduler, and `goid` is the
    /// goroutine that ran last on it. args: the thread that follows it, its name in two words.
    pub const SWITCH_OUT: u32 = 1;
    /// The thread gets a CPU. args: the thread before it, its name in two words.
    pub const SWITCH_IN: u32 = 2;
    /// The thread is woken. `goid` is 0. `extra`: number of the system call that the waker is in, or
    /// [`NO_SYSCALL`](super::NO_SYSCALL). args: the waker, goroutine of the waker, 0.
    pub const WAKING: u32 = 3;
    /// The thread, which is not running, is moved to another CPU. args: that CPU, 0, 0.
    pub const MIGRATE: u32 = 4;
    /// A thread of the process begins. `goid` is the creator's. args: the creating thread, 0, 0.
    pub const THREAD_BEGIN: u32 = 5;
    /// The thread ends.
    pub const THREAD_END: u32 = 6;
    /// A signal is sent to the thread. `goid` is the sender's when it is watched. `extra`: the signal. args: the sender,
    /// `si_code` (sign-extended), result (0: queued).
    pub const SIGNAL_SENT: u32 = 7;
    /// A signal is delivered. `extra`: the signal. args: `si_code` (sign-extended), address of the handler, 0.
    pub const SIGNAL_DELIVERED: u32 = 8;
    /// A system call begins. `extra`: its number. args: its first three arguments.
    pub const SYSCALL_ENTER: u32 = 9;
    /// A system call ended. `extra`: its number. args: what it returned, 0, 0.
    pub const SYSCALL_EXIT: u32 = 10;
    /// A page fault in user mode. `extra`: the processor's error code. args: address, instruction, 0.
    pub const PAGE_FAULT: u32 = 11;

    /// A sample was taken (counted under this number; written as a [`Sample`](super::Sample)).
    pub const SAMPLE: u32 = 12;
    /// A timer expired while an unwatched process ran (counted only): what sampling in ticks costs that process.
    pub const TIMER: u32 = 13;

    /// A garbage collection begins (`runtime.gcBgMarkStartWorkers`, the first thing it does once it is decided).
    pub const GC_START: u32 = 20;
    /// Marking is over (`runtime.gcMarkTermination`).
    pub const GC_MARK_DONE: u32 = 21;
    /// `runtime.stopTheWorldWithSema` begins. `extra`: the reason's number.
    pub const STW_BEGIN: u32 = 22;
    /// `runtime.startTheWorldWithSema` begins.
    pub const STW_END: u32 = 23;
    /// A mark worker begins to mark (`runtime.gcDrain`). `goid`: the worker.
    pub const GC_WORKER: u32 = 24;
    /// The goroutine has to assist the collector (`runtime.gcAssistAlloc`).
    pub const GC_ASSIST: u32 = 25;

    /// A goroutine is created. `goid`: the new one. args: its first instruction, the creating instruction, the creator.
    pub const GO_CREATE: u32 = 30;
    /// The goroutine parks. `extra`: the wait reason's number. args: return address in the caller of gopark, 0, 0.
    pub const GO_PARK: u32 = 31;
    /// The goroutine is made ready. args: goroutine that did it (0: none), 0, 0. The thread is that goroutine's.
    pub const GO_READY: u32 = 32;
    /// The goroutine is about to run on this thread.
    pub const GO_RUN: u32 = 33;
    /// The goroutine gives way. `extra`: 1 preempted, 2 runtime.Gosched, 3 stopped for the collector.
    pub const GO_YIELD: u32 = 34;
    /// The goroutine has ended.
    pub const GO_END: u32 = 35;

    /// A function the user named is entered. args: instruction under the probe,
    /// distance of the stack pointer from `stack.hi`, return address.
    pub const FUNCTION: u32 = 40;
}

/// Kinds are below this: the size of the table of hits.
pub const KINDS: u32 = 64;

/// In `extra` of a [`kind::SWITCH_OUT`]: the scheduler took the CPU away.
pub const PREEMPTED: u32 = 1 << 31;
/// In `extra` of a [`kind::SWITCH_OUT`]: the task state.
pub const TASK_STATE: u32 = 0xf_ffff;
/// In `extra` of a [`kind::SWITCH_OUT`]: the thread runs no goroutine. `goid` is the one that ran last on it, and the byte at
/// [`TIMES_RUN_SHIFT`] counts how often that one has stopped running anywhere (`g.trackingSeq`).
pub const RAN_LAST: u32 = 1 << 30;
/// Lowest bit in `extra` of the byte that [`RAN_LAST`] describes.
pub const TIMES_RUN_SHIFT: u32 = 20;
/// "In no system call, or not known."
pub const NO_SYSCALL: u32 = u32::MAX;

/// A thread and its process in one word.
pub const fn pair(tid: u32, tgid: u32) -> u64 {
    (tgid as u64) << 32 | tid as u64
}

/// One record.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Number of this record on its CPU, plus one; 0 while it is being written.
    pub seq: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// See [`kind`].
    pub kind: u32,
    /// Process of the thread it tells of.
    pub tgid: u32,
    /// The thread it tells of.
    pub tid: u32,
    /// See [`kind`].
    pub extra: u32,
    /// See [`kind`].
    pub goid: u64,
    /// See [`kind`].
    pub args: [u64; 3],
}

const _: () = assert!(size_of::<Slot>() == 64);

/// Frames of the user's stack in a sample.
pub const USER_FRAMES: usize = 48;
/// Frames of the kernel's stack in a sample.
pub const KERNEL_FRAMES: usize = 24;
/// In [`Sample::kernel_frames`]: the kernel's frames begin in the tick that the sample was taken in, before those of what it
/// interrupted.
pub const IN_TICK: u32 = 1 << 31;
/// At most one sample a CPU in this time, where they are taken in ticks: every one of kernels with 250 or fewer ticks a second,
/// every fourth of those with 1000.
pub const SAMPLE_GAP_NS: u64 = 3_500_000;

/// Where a thread was when the scheduler's tick or the CPU's sampling clock struck.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// As [`Slot::seq`].
    pub seq: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Entries of `user` that hold something.
    pub user_frames: u32,
    /// Entries of `kernel` that hold something, and [`IN_TICK`].
    pub kernel_frames: u32,
    /// The goroutine, or 0.
    pub goid: u64,
    /// Innermost first: the instruction, then return addresses, by frame pointers.
    pub user: [u64; USER_FRAMES],
    /// Innermost first.
    pub kernel: [u64; KERNEL_FRAMES],
}

const _: () = assert!(size_of::<Sample>() == 40 + 8 * (USER_FRAMES + KERNEL_FRAMES));

/// Whose CPU time a run of a tracepoint's program takes: that of the process in whose context it runs.
pub mod payer {
    /// A watched process.
    pub const TARGET: usize = 0;
    /// Any other process, or an idle CPU.
    pub const HOST: usize = 1;
    /// Number of payers.
    pub const PAYERS: usize = 2;
}

/// Nanoseconds or counts by payer and kind.
pub type ByPayer = [[u64; KINDS as usize]; payer::PAYERS];

/// Counters of one CPU, on cache lines of their own.
#[repr(C, align(64))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Records ever begun.
    pub slots: u64,
    /// Samples ever begun.
    pub samples: u64,
    /// When the last sample was taken.
    pub sampled_ns: u64,
    /// Since when a watched thread has had this CPU; 0: none has it. Kept by the program at sched_switch.
    pub watched_since_ns: u64,
    /// CPU time that watched threads had on this CPU before that, nanoseconds.
    pub watched_ns: u64,
    /// Keeps the hits off this line.
    pub reserved: [u64; 3],
    /// Runs of the programs by the first kind of record that they make. Those at the kernel's tracepoints run for every
    /// process of the machine.
    pub hits: [u64; KINDS as usize],
    /// Of those, the runs that were timed: one in [`TIMED_EVERY`], and every sample.
    pub timed: ByPayer,
    /// Nanoseconds that those took.
    pub timed_ns: ByPayer,
}

const _: () = assert!(size_of::<Head>() == 64 + 5 * 8 * KINDS as usize);

/// One run of so many is timed, a power of two.
pub const TIMED_EVERY: u64 = 64;

/// Reports whether run number `n` is timed. Multiplying by 2^64 divided by the golden ratio spreads the timed runs evenly
/// over every arithmetic sequence of numbers: a program whose runs alternate between two payers is not timed at one of them only.
#[inline(always)]
pub const fn is_timed(n: u64) -> bool {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - TIMED_EVERY.trailing_zeros()) == 0
}

/// Bits of the table of processes that may be watched: one for each process number that Linux can assign
/// (`PID_MAX_LIMIT`, <https://github.com/torvalds/linux/blob/v6.12/include/linux/threads.h>).
pub const PROCESS_BITS: u32 = 1 << 22;
/// Its 64-bit words.
pub const PROCESS_WORDS: u32 = PROCESS_BITS / 64;

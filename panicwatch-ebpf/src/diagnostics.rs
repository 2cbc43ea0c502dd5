//! Diagnostics of rare failures, for panicwatch's own log at level debug.
//!
//! The counters in `FAILURES` state how often something failed; a diagnostic also states where. The loader
//! sets the level: below debug the verifier removes the calls, because the level is a constant to it.

use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
};
use aya_log_ebpf::{
    debug,
    macro_support::{Level, level_enabled},
};
use panicwatch_common::reason::Reason;

use crate::maps::DIAGNOSED;

/// Minimum interval between two diagnostics of one reason, nanoseconds.
const INTERVAL_NS: u64 = 1_000_000_000;

/// The context that the macros of aya-log take; they do not use it.
struct NoContext;

impl EbpfContext for NoContext {
    fn as_ptr(&self) -> *mut core::ffi::c_void {
        core::ptr::null_mut()
    }
}

/// Reports whether a diagnostic of this reason is due, and starts its interval.
#[inline(always)]
fn is_due(reason: u32) -> bool {
    let Some(last) = DIAGNOSED.get_ptr_mut(reason) else { return false };
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the pointer is to a map value of this type. Two CPUs may both find a diagnostic due: one line
    // more.
    unsafe {
        if now - core::ptr::read_volatile(last) < INTERVAL_NS {
            return false;
        }
        core::ptr::write_volatile(last, now);
    }
    true
}

/// Defines a function per diagnostic, which logs it with its arguments and the current process and thread.
/// Visible from outside the object, so that the verifier checks each once.
macro_rules! diagnostics { ($($(#[$doc:meta])* $name:ident ($($argument:ident),*), $log:ident, $reason:ident, $text:literal;)*) => { $(
    $(#[$doc])*
    #[inline(always)]
    pub(crate) fn $name($($argument: u64),*) {
        if level_enabled(Level::Debug) {
            $log($($argument),*);
        }
    }

    #[unsafe(no_mangle)]
    #[inline(never)]
    extern "C" fn $log($($argument: u64),*) -> u64 {
        if is_due(Reason::$reason as u32) {
            let id = bpf_get_current_pid_tgid();
            debug!(&NoContext, $text, id >> 32, id & 0xffff_ffff, $($argument),*);
        }
        0
    }
)* } }

diagnostics! {
    /// The event ring was full.
    ring_full(ip, binary), log_ring_full, RingFull,
        "eBPF: process {}, thread {}: the event ring is full, the record of the probe at 0x{:x} in binary {} is lost";
    /// The event ring was full in the middle of a capture.
    memory_ring_full(goid, copied, lost), log_memory_ring_full, MemoryRingFull,
        "eBPF: process {}, thread {}: the event ring is full, the capture of goroutine {} has {} pieces of memory and lost {}";
    /// A capture reached its time limit.
    capture_time(goid, copied), log_capture_time, CaptureTime,
        "eBPF: process {}, thread {}: the capture of goroutine {} reached its time limit after {} pieces of memory";
    /// The cookie of a probe names a row that does not exist.
    no_binary(ip, binary), log_no_binary, NoBinary,
        "eBPF: process {}, thread {}: the probe at 0x{:x} names binary {}, which is not in the table";
    /// A process is not watched because the table is full.
    watched_full(binary), log_watched_full, WatchedFull,
        "eBPF: process {}, thread {}: not watched, the table of processes is full; binary {}";
    /// The g register does not point to a readable g.
    no_goroutine(ip, g), log_no_goroutine, NoGoroutine,
        "eBPF: process {}, thread {}: the probe at 0x{:x} has no readable g at 0x{:x}";
}

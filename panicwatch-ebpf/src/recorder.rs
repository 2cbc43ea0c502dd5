//! Writes records into the flight recorder's rings: overwriting, one per CPU, without waking the reader. See
//! `panicwatch_common::recorder`.
//!
//! A program can be interrupted on its CPU by another one that also writes (a sample in the middle of a
//! wake-up), hence the atomic addition.

use core::ptr;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns,
    bpf_probe_read_kernel,
};
use panicwatch_common::{
    config::Config,
    reason::Reason,
    recorder::{Head, KINDS, Slot, is_timed, pair, payer},
};

use crate::{
    atomic::next,
    goroutine::goid,
    maps::{CONFIG, HEADS, SLOTS, failed, may_be_watched, watched},
};

/// Thread and goroutine that a record is about, and the time of the event.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
    pub(crate) goid: u64,
    pub(crate) time_ns: u64,
}

/// Returns the current CLOCK_MONOTONIC time in nanoseconds.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

impl Who {
    /// Returns the current thread with its goroutine, if its process is watched.
    #[inline(always)]
    pub(crate) fn watched() -> Option<Who> {
        let id = bpf_get_current_pid_tgid();
        let (tgid, tid) = ((id >> 32) as u32, id as u32);
        if !may_be_watched(tgid) {
            return None;
        }
        let row = watched(tgid)?;
        let time_ns = now();
        Some(Who { tgid, tid, goid: goid(row), time_ns })
    }

    /// Returns thread `tid` of process `tgid`, without its goroutine, if the process is watched.
    #[inline(always)]
    pub(crate) fn of_thread(tid: u32, tgid: u32) -> Option<Who> {
        watched(tgid)?;
        Some(Who { tgid, tid, goid: 0, time_ns: now() })
    }
}

/// Runs the program of a tracepoint, which fires for every process of the machine. The run is counted under
/// `kind`, and one run in [`TIMED_EVERY`](panicwatch_common::recorder::TIMED_EVERY) is timed, whether it
/// records anything or not: runs for unwatched processes are part of the cost of recording.
#[inline(always)]
pub(crate) fn at_tracepoint(kind: u32, program: impl FnOnce()) -> i32 {
    let head = head();
    let began = match head {
        Some(head) if is_timed(count(head, kind)) => now(),
        _ => 0,
    };
    program();
    if let Some(head) = head
        && began != 0
    {
        let ns = now() - began;
        took(head, kind, payer(0), ns, LONGEST_NS);
    }
    0
}

/// Like [`at_tracepoint`], for the scheduler's programs, whose runs for unwatched processes cost most; fully
/// inlined. `program` receives this CPU's counters (null: there are none) and returns the process that the
/// run was about, or 0.
#[inline(always)]
pub(crate) fn with_head(kind: u32, program: impl FnOnce(*mut Head) -> u32) -> i32 {
    let counters = head().map_or(0, |head| head as u64);
    let head = opaque(counters) as *mut Head;
    let timed = !head.is_null() && is_timed(count(head, kind));
    let began = opaque(if timed { now() } else { 0 });
    let about = program(opaque(counters) as *mut Head);
    let head = opaque(counters) as *mut Head;
    if began != 0 && !head.is_null() {
        let ns = now() - began;
        took(head, kind, payer(about), ns, LONGEST_NS);
    }
    0
}

/// Returns `number` and hides its origin from the compiler. Otherwise the compiler duplicates the code that
/// follows, for timed runs and for CPUs without counters, and calls the program from every copy instead of
/// inlining it.
#[inline(always)]
fn opaque(number: u64) -> u64 {
    let mut number = number;
    // SAFETY: the assembly contains no instruction.
    unsafe { core::arch::asm!("/* {0} */", inout(reg) number, options(nomem, nostack, preserves_flags)) };
    number
}

/// Returns the payer of this run: the process in whose context it runs. An idle CPU runs no process; there, a
/// run delays the process `about`, which is about to run.
#[inline(always)]
pub(crate) fn payer(about: u32) -> usize {
    let current = (bpf_get_current_pid_tgid() >> 32) as u32;
    let payer = if current == 0 { about } else { current };
    if may_be_watched(payer) { payer::TARGET } else { payer::HOST }
}

/// Returns the counters of this CPU.
#[inline(always)]
pub(crate) fn head() -> Option<*mut Head> {
    // SAFETY: no preconditions.
    HEADS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })
}

/// Counts a hit of a uprobe.
#[inline(always)]
pub(crate) fn hit(kind: u32) {
    if let Some(head) = head() {
        count(head, kind);
    }
}

/// Writes one record into the ring of this CPU.
#[inline(always)]
pub(crate) fn record(kind: u32, who: Who, extra: u32, args: [u64; 3]) {
    let Some(config) = CONFIG.get(0) else { return };
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(head) = HEADS.get_ptr_mut(cpu) else { return no_ring(config) };
    // SAFETY: the head is a map value.
    let n = next(unsafe { &raw mut (*head).slots });
    let at = cpu * (config.slot_mask + 1) + (n as u32 & config.slot_mask);
    let Some(slot) = SLOTS.get_ptr_mut(at) else { return };
    write(slot, n, kind, who, extra, args);
}

/// Cap on the measured duration of a run, nanoseconds: a longer run was interrupted. It stands for
/// [`TIMED_EVERY`](panicwatch_common::recorder::TIMED_EVERY) runs, so that a higher cap makes the cost
/// fluctuate.
const LONGEST_NS: u64 = 3_000;

/// Charges a timed run to a payer, for at most `longest` nanoseconds.
#[inline(always)]
pub(crate) fn took(head: *mut Head, kind: u32, payer: usize, ns: u64, longest: u64) {
    let ns = if ns < longest { ns } else { longest };
    // SAFETY: the head is a map value, and the mask keeps the payer below PAYERS.
    unsafe {
        add((&raw mut (*head).timed).cast::<[u64; KINDS as usize]>().add(payer & 1), kind, 1);
        add((&raw mut (*head).timed_ns).cast::<[u64; KINDS as usize]>().add(payer & 1), kind, ns);
    }
}

/// Counts a record whose CPU has no ring as lost, if there are rings at all.
#[inline(always)]
pub(crate) fn no_ring(config: &Config) {
    if config.slot_mask != 0 {
        failed(Reason::NoRing);
    }
}

#[inline(always)]
fn write(slot: *mut Slot, n: u64, kind: u32, who: Who, extra: u32, args: [u64; 3]) {
    // SAFETY: the slot is a map value of this type; the order of the volatile writes is what the reader
    // relies on.
    unsafe {
        ptr::write_volatile(&raw mut (*slot).seq, 0);
        ptr::write_volatile(&raw mut (*slot).time_ns, who.time_ns);
        ptr::write_volatile(&raw mut (*slot).kind, kind);
        ptr::write_volatile(&raw mut (*slot).tgid, who.tgid);
        ptr::write_volatile(&raw mut (*slot).tid, who.tid);
        ptr::write_volatile(&raw mut (*slot).extra, extra);
        ptr::write_volatile(&raw mut (*slot).goid, who.goid);
        ptr::write_volatile(&raw mut (*slot).args[0], args[0]);
        ptr::write_volatile(&raw mut (*slot).args[1], args[1]);
        ptr::write_volatile(&raw mut (*slot).args[2], args[2]);
        ptr::write_volatile(&raw mut (*slot).seq, n + 1);
    }
}

/// Counts a run of the programs for `kind`; returns the number of runs before it.
#[inline(always)]
pub(crate) fn count(head: *mut Head, kind: u32) -> u64 {
    // SAFETY: the head is a map value.
    add(unsafe { &raw mut (*head).hits }, kind, 1)
}

/// Adds `n` to one entry of a head's table; returns the previous value. Not atomic: an addition that
/// interrupts another one may be lost, which is acceptable for an estimate.
#[inline(always)]
fn add(table: *mut [u64; KINDS as usize], kind: u32, n: u64) -> u64 {
    // SAFETY: the table is in a map value, and the mask keeps the index in it.
    unsafe {
        let entry = table.cast::<u64>().add((kind & (KINDS - 1)) as usize);
        let before = entry.read_volatile();
        entry.write_volatile(before + n);
        before
    }
}

/// Returns the address of the current `task_struct`.
#[inline(always)]
pub(crate) fn task() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_task() }
}

/// Reads a 64-bit word of kernel memory.
#[inline(always)]
pub(crate) fn word(at: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const u64) }.ok()
}

/// Reads a 32-bit word of kernel memory.
#[inline(always)]
pub(crate) fn word32(at: u64) -> Option<u32> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const u32) }.ok()
}

//! Writing into the flight recorder's rings: overwriting, a ring a CPU, nobody woken. See `panicwatch_common::recorder`.
//!
//! A program can be interrupted on its CPU by another one that writes too (a sample in the middle of a wake-up), hence
//! the atomic addition.

use core::ptr;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_smp_processor_id, bpf_ktime_get_ns,
    bpf_probe_read_kernel,
};
use panicwatch_common::{
    config::{Config, UNKNOWN},
    reason::Reason,
    recorder::{Head, KINDS, Slot, TIMED_EVERY, pair},
};

use crate::{
    atomic::next,
    context::G_M,
    maps::{BINARIES, CONFIG, HEADS, SLOTS, failed, watched},
    read,
};

/// Whom a record tells of, and when it happened.
#[derive(Clone, Copy)]
pub(crate) struct Who {
    pub(crate) tgid: u32,
    pub(crate) tid: u32,
    pub(crate) goid: u64,
    pub(crate) time_ns: u64,
}

/// CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_ns() }
}

impl Who {
    /// The current thread with its goroutine, if its process is watched.
    #[inline(always)]
    pub(crate) fn watched() -> Option<Who> {
        let id = bpf_get_current_pid_tgid();
        let (tgid, tid) = ((id >> 32) as u32, id as u32);
        let row = watched(tgid)?;
        let time_ns = now();
        Some(Who { tgid, tid, goid: goid(row), time_ns })
    }

    /// The thread of the `task_struct` at `task`, without its goroutine, if its process is watched.
    #[inline(always)]
    pub(crate) fn of_task(task: u64) -> Option<Who> {
        let (tid, tgid) = ids(CONFIG.get(0)?, task);
        watched(tgid)?;
        Some(Who { tgid, tid, goid: 0, time_ns: now() })
    }
}

/// Runs a program that stands at a tracepoint of the kernel, which strikes for every process: counted under `kind`, and one
/// in [`TIMED_EVERY`] timed, whether it records anything or not. That too is what recording costs.
#[inline(always)]
pub(crate) fn at_tracepoint(kind: u32, program: impl FnOnce()) -> i32 {
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let head = HEADS.get_ptr_mut(cpu);
    let began = match head {
        Some(head) if count(head, kind) & (TIMED_EVERY - 1) == 0 => now(),
        _ => 0,
    };
    program();
    if let Some(head) = head
        && began != 0
    {
        took(head, kind, now() - began, LONGEST_NS);
    }
    0
}

/// Counts a hit of a probe in a program.
#[inline(always)]
pub(crate) fn hit(kind: u32) {
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if let Some(head) = HEADS.get_ptr_mut(cpu) {
        count(head, kind);
    }
}

/// Writes one record.
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

/// What takes longer was interrupted.
const LONGEST_NS: u64 = 10_000;

/// Counts what a hit took.
#[inline(always)]
pub(crate) fn took(head: *mut Head, kind: u32, ns: u64, longest: u64) {
    let ns = if ns < longest { ns } else { longest };
    // SAFETY: the head is a map value.
    unsafe {
        add(&raw mut (*head).timed, kind, 1);
        add(&raw mut (*head).timed_ns, kind, ns);
    }
}

/// A record found no ring: that is a loss where there are rings at all.
#[inline(always)]
pub(crate) fn no_ring(config: &Config) {
    if config.slot_mask != 0 {
        failed(Reason::NoRing);
    }
}

#[inline(always)]
fn write(slot: *mut Slot, n: u64, kind: u32, who: Who, extra: u32, args: [u64; 3]) {
    // SAFETY: the slot is a map value of this type; the order of the volatile writes is what the reader relies on.
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

/// Counts a run of the programs for `kind`; says how many there were before.
#[inline(always)]
pub(crate) fn count(head: *mut Head, kind: u32) -> u64 {
    // SAFETY: the head is a map value.
    add(unsafe { &raw mut (*head).hits }, kind, 1)
}

/// Adds to one of a head's tables; says what it was before. What interrupts another may go uncounted: this is for an estimate.
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

/// The goroutine that the current thread runs, 0 when it runs none (the scheduler, a signal's handler before one, C).
/// `row` is what `WATCHED` has for its process.
#[inline(always)]
pub(crate) fn goid(row: u32) -> u64 {
    current(row).unwrap_or(0)
}

/// The thread's own data has its current g. Only goroutines have a goid; of another, the thread's own, the goroutine is
/// what its m calls curg.
#[inline(always)]
fn current(row: u32) -> Option<u64> {
    if row == 0 {
        return None;
    }
    let config = CONFIG.get(0)?;
    let binary = BINARIES.get(row - 1)?;
    if config.task_fsbase == UNKNOWN || binary.tls_g == 0 {
        return None;
    }
    let base = word(task() + config.task_fsbase as u64)?;
    let g = read::word(base.wrapping_add(binary.tls_g as i64 as u64))?;
    let goid = read::word(g + binary.g_goid as u64)?;
    if goid != 0 {
        return Some(goid);
    }
    let m = read::word(g + G_M)?;
    let curg = read::word(m + binary.m_curg as u64)?;
    if curg == 0 {
        return None;
    }
    read::word(curg + binary.g_goid as u64)
}

/// The current `task_struct`.
#[inline(always)]
pub(crate) fn task() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_get_current_task() }
}

/// A 64-bit word of the kernel's memory.
#[inline(always)]
pub(crate) fn word(at: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const u64) }.ok()
}

/// A 32-bit word of the kernel's memory.
#[inline(always)]
pub(crate) fn word32(at: u64) -> Option<u32> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(at as *const u32) }.ok()
}

/// Thread and process of a task.
#[inline(always)]
pub(crate) fn ids(config: &Config, task: u64) -> (u32, u32) {
    let at = task + config.task_pid as u64;
    if config.task_tgid == config.task_pid + 4 {
        // As it is everywhere: one look for both.
        let both = word(at).unwrap_or(0);
        return (both as u32, (both >> 32) as u32);
    }
    (word32(at).unwrap_or(0), word32(task + config.task_tgid as u64).unwrap_or(0))
}

/// The other task of a record, and its name in two words; an idle CPU's own needs none.
#[inline(always)]
pub(crate) fn other(config: &Config, task: u64, tid: u32, tgid: u32) -> [u64; 3] {
    if tid == 0 {
        return [0; 3];
    }
    let at = (task + config.task_comm as u64) as *const [u64; 2];
    // SAFETY: the helper checks the address.
    let name = unsafe { bpf_probe_read_kernel(at) }.unwrap_or([0; 2]);
    [pair(tid, tgid), name[0], name[1]]
}

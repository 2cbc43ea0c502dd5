//! The kernel's scheduler: threads that get a CPU, lose it, are woken, or are moved to another CPU.
//!
//! These tracepoints fire for every thread of the machine, so the duration of a run for an unwatched process
//! is overhead for other programs. Such a run ends after it has loaded the task's process id and one word of
//! `MAY_BE_WATCHED`. Each program exists twice: for the BTF tracepoint, where reading a task is a load, and
//! for the raw tracepoint, where the kernel has no BTF tracepoints.
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/sched.h>

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_task_pt_regs},
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use panicwatch_common::recorder::{Head, NO_SYSCALL, PREEMPTED, TASK_STATE, kind, pair};

use crate::{
    goroutine::{goid, goid_or_last},
    maps::{may_be_watched, watched},
    pt_regs,
    recorder::{Who, now, record, with_head, word},
    task::{Helper, Loads, Reads, arg, other, state, tgid, tid},
};

#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    with_head(kind::SWITCH_OUT, |head| switch::<Loads>(ctx.as_ptr(), head))
}

#[raw_tracepoint]
pub(crate) fn sched_switch_raw(ctx: RawTracePointContext) -> i32 {
    with_head(kind::SWITCH_OUT, |head| switch::<Helper>(ctx.as_ptr(), head))
}

/// Arguments: preempt, prev, next, and from Linux 5.18 on prev's state. Runs as prev.
#[inline(always)]
fn switch<R: Reads>(ctx: *mut c_void, head: *mut Head) -> u32 {
    let (prev, next) = (arg(ctx, 1), arg(ctx, 2));
    let (prev_tgid, next_tgid) = (tgid::<R>(prev), tgid::<R>(next));
    if !may_be_watched(prev_tgid) && !may_be_watched(next_tgid) {
        no_longer_watched(head);
        return next_tgid;
    }
    let next_tid = tid::<R>(next);
    let time_ns = now();
    if let Some(row) = watched(prev_tgid) {
        let preempted = if arg(ctx, 0) & 1 != 0 { PREEMPTED } else { 0 };
        let (goid, last) = goid_or_last(row);
        let who = Who { tgid: prev_tgid, tid: tid::<R>(prev), goid, time_ns };
        let state = state::<R>(ctx, prev) & TASK_STATE;
        record(kind::SWITCH_OUT, who, state | preempted | last, other::<R>(next, next_tid, next_tgid));
    }
    let next_watched = watched(next_tgid).is_some();
    if !head.is_null() {
        account(head, time_ns, next_watched);
    }
    if next_watched {
        let who = Who { tgid: next_tgid, tid: next_tid, goid: 0, time_ns };
        record(kind::SWITCH_IN, who, 0, other::<R>(prev, tid::<R>(prev), prev_tgid));
    }
    next_tgid
}

/// Updates this CPU's counters of the CPU time of watched threads.
#[inline(always)]
fn account(head: *mut Head, time_ns: u64, next_watched: bool) {
    // SAFETY: the head is a map value; only this program, which nothing interrupts to run itself, writes
    // these words.
    unsafe {
        let since = (*head).watched_since_ns;
        if since != 0 {
            (*head).watched_ns += time_ns - since;
        }
        (*head).watched_since_ns = if next_watched { time_ns } else { 0 };
    }
}

/// Handles a switch between two unwatched threads: if the previous thread was watched when it got the CPU,
/// its CPU time ends here.
#[inline(always)]
fn no_longer_watched(head: *mut Head) {
    if !head.is_null()
        // SAFETY: the head is a map value.
        && unsafe { (*head).watched_since_ns } != 0
    {
        account(head, now(), false);
    }
}

#[btf_tracepoint(function = "sched_waking")]
pub(crate) fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    with_head(kind::WAKING, |_| waking::<Loads>(ctx.as_ptr()))
}

#[raw_tracepoint]
pub(crate) fn sched_waking_raw(ctx: RawTracePointContext) -> i32 {
    with_head(kind::WAKING, |_| waking::<Helper>(ctx.as_ptr()))
}

/// Argument: the task. Runs as the waker, or as the thread that was interrupted by what wakes the task.
#[inline(always)]
fn waking<R: Reads>(ctx: *mut c_void) -> u32 {
    let task = arg(ctx, 0);
    let tgid = tgid::<R>(task);
    if !may_be_watched(tgid) || watched(tgid).is_none() {
        return tgid;
    }
    let who = Who { tgid, tid: tid::<R>(task), goid: 0, time_ns: now() };
    let id = bpf_get_current_pid_tgid();
    let (waker, waker_tgid) = (id as u32, (id >> 32) as u32);
    let row = if may_be_watched(waker_tgid) { watched(waker_tgid).unwrap_or(0) } else { 0 };
    record(kind::WAKING, who, syscall(), [pair(waker, waker_tgid), goid(row), 0]);
    tgid
}

/// Exclusive upper bound of system call numbers.
const SYSCALLS: u64 = 1024;

/// Returns the number of the system call that the current thread is executing, or [`NO_SYSCALL`].
#[inline(always)]
fn syscall() -> u32 {
    // SAFETY: no preconditions.
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task_btf() };
    // SAFETY: the argument is the task that the helper above returned.
    let regs = unsafe { bpf_task_pt_regs(task) } as u64;
    match word(regs + 8 * pt_regs::ORIG_RAX as u64) {
        Some(number) if number < SYSCALLS => number as u32,
        _ => NO_SYSCALL,
    }
}

#[btf_tracepoint(function = "sched_migrate_task")]
pub(crate) fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
    with_head(kind::MIGRATE, |_| migrate::<Loads>(ctx.as_ptr()))
}

#[raw_tracepoint]
pub(crate) fn sched_migrate_task_raw(ctx: RawTracePointContext) -> i32 {
    with_head(kind::MIGRATE, |_| migrate::<Helper>(ctx.as_ptr()))
}

/// Arguments: the task, the CPU to which it is moved.
#[inline(always)]
fn migrate<R: Reads>(ctx: *mut c_void) -> u32 {
    let task = arg(ctx, 0);
    let tgid = tgid::<R>(task);
    if !may_be_watched(tgid) || watched(tgid).is_none() {
        return tgid;
    }
    let who = Who { tgid, tid: tid::<R>(task), goid: 0, time_ns: now() };
    record(kind::MIGRATE, who, 0, [arg(ctx, 1) as u32 as u64, 0, 0]);
    tgid
}

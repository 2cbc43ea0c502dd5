//! The kernel's scheduler: who gets a CPU, who loses it, who wakes whom, who is moved where.
//!
//! Raw tracepoints, so they strike for every thread of the machine; those of unwatched processes leave at once, and count as cost.
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/sched.h>

use aya_ebpf::{
    helpers::generated::bpf_task_pt_regs, macros::raw_tracepoint, programs::RawTracePointContext,
};
use panicwatch_common::{
    config::{Config, UNKNOWN},
    recorder::{NO_SYSCALL, PREEMPTED, kind, pair},
};

use crate::{
    maps::{CONFIG, watched},
    pt_regs,
    recorder::{Who, at_tracepoint, goid, ids, now, other, record, word, word32},
};

/// Arguments: preempt, prev, next, and from Linux 5.18 on prev's state. Runs as prev.
#[raw_tracepoint]
pub(crate) fn sched_switch(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::SWITCH_OUT, || {
        let Some(config) = CONFIG.get(0) else { return };
        let (prev, next) = (ctx.arg::<u64>(1), ctx.arg::<u64>(2));
        let (next_tid, next_tgid) = ids(config, next);
        let prev_watched = Who::watched();
        if let Some(who) = prev_watched {
            let state = state(&ctx, config, prev);
            let preempted = if ctx.arg::<u64>(0) & 1 != 0 { PREEMPTED } else { 0 };
            record(kind::SWITCH_OUT, who, state | preempted, other(config, next, next_tid, next_tgid));
        }
        if watched(next_tgid).is_some() {
            let (tid, tgid) = ids(config, prev);
            let time_ns = prev_watched.map_or_else(now, |who| who.time_ns);
            let who = Who { tgid: next_tgid, tid: next_tid, goid: 0, time_ns };
            record(kind::SWITCH_IN, who, 0, other(config, prev, tid, tgid));
        }
    })
}

#[inline(always)]
fn state(ctx: &RawTracePointContext, config: &Config, prev: u64) -> u32 {
    let state = if config.switch_has_state != 0 {
        ctx.arg::<u64>(3) as u32
    } else if config.task_state != UNKNOWN {
        word32(prev + config.task_state as u64).unwrap_or(0)
    } else {
        0
    };
    state & !PREEMPTED
}

/// Argument: the task. Runs as whoever wakes it, or as whoever was interrupted by what wakes it.
#[raw_tracepoint]
pub(crate) fn sched_waking(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::WAKING, || {
        let Some(who) = Who::of_task(ctx.arg::<u64>(0)) else { return };
        let id = aya_ebpf::helpers::bpf_get_current_pid_tgid();
        let (waker, waker_tgid) = (id as u32, (id >> 32) as u32);
        let row = if waker == 0 { 0 } else { watched(waker_tgid).unwrap_or(0) };
        let goid = goid(row);
        record(kind::WAKING, who, syscall(), [pair(waker, waker_tgid), goid, 0]);
    })
}

/// Numbers of system calls are below.
const SYSCALLS: u64 = 1024;

/// The system call that the current thread is in.
#[inline(always)]
fn syscall() -> u32 {
    // SAFETY: no preconditions.
    let task = unsafe { aya_ebpf::helpers::generated::bpf_get_current_task_btf() };
    // SAFETY: the helper takes what the one above gives.
    let regs = unsafe { bpf_task_pt_regs(task) } as u64;
    match word(regs + 8 * pt_regs::ORIG_RAX as u64) {
        Some(number) if number < SYSCALLS => number as u32,
        _ => NO_SYSCALL,
    }
}

/// Arguments: the task, the CPU it goes to.
#[raw_tracepoint]
pub(crate) fn sched_migrate_task(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::MIGRATE, || {
        let Some(who) = Who::of_task(ctx.arg::<u64>(0)) else { return };
        let to = ctx.arg::<u64>(1) as u32;
        record(kind::MIGRATE, who, 0, [to as u64, 0, 0]);
    })
}

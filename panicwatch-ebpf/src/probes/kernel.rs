//! Signals, system calls, page faults and socket sends of watched processes.
//!
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/signal.h>
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/syscalls.h>
//! <https://github.com/torvalds/linux/blob/v6.12/arch/x86/include/asm/trace/exceptions.h>
//! <https://github.com/torvalds/linux/blob/v6.12/include/trace/events/sock.h>

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, macros::raw_tracepoint, programs::RawTracePointContext};
use panicwatch_common::recorder::{Head, MAX_SENDS, SEND_GAP_NS, kind, pair};

use crate::{
    goroutine::goid,
    maps::{may_be_watched, watched},
    pt_regs,
    recorder::{Who, at_tracepoint, head, now, record, word, word32},
    task::{self, Helper},
};

/// Offset of `kernel_siginfo.si_code`.
const SI_CODE: u64 = 8;

/// Returns the si_code of a signal. Instead of a pointer, 0 stands for "from user space" (SI_USER) and 1 for
/// "from the kernel" (SI_KERNEL).
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched/signal.h>
#[inline(always)]
fn si_code(info: u64) -> u64 {
    match info {
        0 => 0,
        1 => 0x80,
        _ => word32(info + SI_CODE).unwrap_or(0) as i32 as i64 as u64,
    }
}

/// Arguments: signal, siginfo, task, group, result. Runs as the sender.
#[raw_tracepoint]
pub(crate) fn signal_generate(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::SIGNAL_SENT, || {
        let task = ctx.arg::<u64>(2);
        let tgid = task::tgid::<Helper>(task);
        if !may_be_watched(tgid) {
            return;
        }
        let Some(who) = Who::of_thread(task::tid::<Helper>(task), tgid) else { return };
        let id = bpf_get_current_pid_tgid();
        let who = Who { goid: goid(watched((id >> 32) as u32).unwrap_or(0)), ..who };
        let sender = pair(id as u32, (id >> 32) as u32);
        let code = si_code(ctx.arg::<u64>(1));
        record(kind::SIGNAL_SENT, who, ctx.arg::<u64>(0) as u32, [sender, code, ctx.arg::<u64>(4)]);
    })
}

/// Arguments: signal, siginfo, k_sigaction. Runs as the receiver.
#[raw_tracepoint]
pub(crate) fn signal_deliver(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::SIGNAL_DELIVERED, || {
        if let Some(who) = Who::watched() {
            let (code, handler) = (si_code(ctx.arg::<u64>(1)), word(ctx.arg::<u64>(2)).unwrap_or(0));
            record(kind::SIGNAL_DELIVERED, who, ctx.arg::<u64>(0) as u32, [code, handler, 0]);
        }
    })
}

/// Reads a word of the `pt_regs` at `regs`.
#[inline(always)]
fn register(regs: u64, index: usize) -> Option<u64> {
    word(regs + 8 * index as u64)
}

/// Number of the system call.
/// <https://github.com/torvalds/linux/blob/v6.12/arch/x86/entry/syscalls/syscall_64.tbl>
const RT_SIGRETURN: u64 = 15;

/// Arguments: pt_regs, number.
#[raw_tracepoint]
pub(crate) fn sys_enter(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::SYSCALL_ENTER, || {
        if let Some(who) = Who::watched() {
            let regs = ctx.arg::<u64>(0);
            let arg = |index| register(regs, index).unwrap_or(0);
            record(
                kind::SYSCALL_ENTER,
                who,
                ctx.arg::<u64>(1) as u32,
                [arg(pt_regs::RDI), arg(pt_regs::RSI), arg(pt_regs::RDX)],
            );
        }
    })
}

/// Arguments: pt_regs, result.
#[raw_tracepoint]
pub(crate) fn sys_exit(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::SYSCALL_EXIT, || {
        if let Some(who) = Who::watched() {
            let number = match register(ctx.arg::<u64>(0), pt_regs::ORIG_RAX) {
                // The return from a signal handler has overwritten the number with -1.
                Some(u64::MAX) => RT_SIGRETURN,
                number => number.unwrap_or(u64::MAX),
            };
            record(kind::SYSCALL_EXIT, who, number as u32, [ctx.arg::<u64>(1), 0, 0]);
        }
    })
}

/// Arguments: address, pt_regs, error code.
#[raw_tracepoint]
pub(crate) fn page_fault_user(ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::PAGE_FAULT, || {
        if let Some(who) = Who::watched() {
            let ip = register(ctx.arg::<u64>(1), pt_regs::RIP).unwrap_or(0);
            record(kind::PAGE_FAULT, who, ctx.arg::<u64>(2) as u32, [ctx.arg::<u64>(0), ip, 0]);
        }
    })
}

/// Runs after a socket send, in the thread that sent. Busy servers send all the time, and switch goroutines
/// without a record of the kernel; this record shows which goroutine the thread runs.
#[raw_tracepoint]
pub(crate) fn sock_send_length(_ctx: RawTracePointContext) -> i32 {
    at_tracepoint(kind::SEND, || {
        let Some(head) = head() else { return };
        if is_skipped(head) {
            return;
        }
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        if may_be_watched(tgid)
            && is_due(head)
            && let Some(who) = Who::watched()
        {
            record(kind::SEND, who, 0, [0; 3]);
        }
    })
}

/// Counts down the sends until the clock is read again: most of them cost no more than this.
#[inline(always)]
fn is_skipped(head: *mut Head) -> bool {
    // SAFETY: the head is a map value. Only this program writes the word, and no interrupt runs it.
    unsafe {
        let left = (*head).sends_left;
        if left > 0 {
            (*head).sends_left = left - 1;
        }
        left > 0
    }
}

/// Reports whether this CPU's last record of a send is old enough for another one, and notes it. Reads
/// the clock less often while sends are frequent.
#[inline(always)]
fn is_due(head: *mut Head) -> bool {
    let now = now();
    // SAFETY: as above.
    unsafe {
        let (since, step) = (now - (*head).sent_ns, (*head).send_step.max(1));
        let is_due = since >= SEND_GAP_NS;
        if is_due {
            (*head).sent_ns = now;
        }
        let step = match since {
            ..SEND_GAP_NS => (2 * step).min(MAX_SENDS),
            BECOMES_RARE_NS.. => step / 2,
            _ => step,
        };
        (*head).send_step = step;
        (*head).sends_left = step.saturating_sub(1);
        is_due
    }
}

/// If the last record is this old, the clock is read after fewer sends from now on.
const BECOMES_RARE_NS: u64 = 2 * SEND_GAP_NS;

//! `runtime.sighandler`: the registers of the interrupted code, for signals that become panics or end the
//! process.
//!
//! Runs on gsignal. EAX = signal, RBX = siginfo, RCX = ucontext, RDI = the interrupted g. SIGURG (preemption)
//! is frequent here, so the program returns early for it.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_unix.go#L650>

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{
    binary::site,
    event::{Head, kind},
    reg, ucontext,
};

use super::fatal::dying_stacks;
use crate::{capture::OpenCapture, context::Hit, memory, read};

/// Number of bytes of siginfo that are read: signo, errno, code, addr.
const SIGINFO_BYTES: u64 = 32;

const SIGILL: u32 = 4;
const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
const SIGFPE: u32 = 8;
const SIGSEGV: u32 = 11;

/// Further signals that end the process, for Go 1.19.
const SIGQUIT: u32 = 3;
const SIGABRT: u32 = 6;
const SIGSTKFLT: u32 = 16;
const SIGSYS: u32 = 31;

#[uprobe]
pub(crate) fn sighandler(ctx: ProbeContext) -> u32 {
    // SAFETY: the context is a pt_regs; RAX is its eleventh word.
    let signal = unsafe { (*ctx.regs).rax } as u32;
    let faults = matches!(signal, SIGILL | SIGTRAP | SIGBUS | SIGFPE | SIGSEGV);
    if !faults && !matches!(signal, SIGQUIT | SIGABRT | SIGSTKFLT | SIGSYS) {
        return 0;
    }
    if let Some(hit) = Hit::new(&ctx) {
        let deadly = hit.site & site::NO_FATALSIGNAL != 0;
        if !faults && !deadly {
            return 0;
        }
        let (info, context, gp) = (hit.reg(reg::RBX), hit.reg(reg::RCX), hit.reg(reg::RDI));
        // A fault becomes a panic of the interrupted goroutine; death is attributed to the goroutine that the
        // thread runs.
        let g = if deadly { hit.current_g() } else { gp };
        if let Some(mut capture) = OpenCapture::new(&hit, kind::SIGNAL, g) {
            let head = capture.head();
            frame(head, info, context);
            if deadly {
                let sp = read::word(context + ucontext::RSP).unwrap_or(0);
                dying_stacks(&mut capture, &hit, gp, sp);
            }
            capture.finish();
        }
    }
    0
}

/// Copies siginfo and the saved registers.
#[inline(always)]
pub(crate) fn frame(head: *mut Head, info: u64, context: u64) {
    memory::tiny(head, info, SIGINFO_BYTES);
    memory::tiny(head, context + ucontext::REGS, ucontext::REGS_BYTES);
}

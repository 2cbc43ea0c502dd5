//! The ways a Go program dies: throw, fatal, and dopanic_m, which these and fatal panics call before
//! printing.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L1087> (throw, fatal)
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L1370> (dopanic_m)

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{
    event::{G_BYTES, Head, kind},
    go::{G_PANIC, G_STACK_HI, SIGCTXT_CTXT},
    reg, ucontext,
};

use super::{recover::chain, signal};
use crate::{
    capture::{self, OpenCapture, OpenPoint},
    context::{Hit, get},
    memory, read,
};

/// `runtime.throw` or `runtime.fatal`, on the caller's stack, whichever that is. RAX/RBX = the text.
#[uprobe]
pub(crate) fn throw(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(mut capture) = OpenCapture::new(&hit, kind::THROW, hit.current_g())
    {
        let head = capture.head();
        memory::labels(head, &hit);
        memory::text(head, hit.reg(reg::RAX), hit.reg(reg::RBX));
        capture.finish();
    }
    0
}

/// `runtime.dopanic_m`, on g0. RAX = the g that crashes (g0 itself for a throw there), RBX = pc, RCX = sp
/// from which Go's traceback starts.
///
/// For a fatal panic, the capture includes the whole chain of panics, in which preprintpanics has turned
/// errors and Stringers into strings. The chain could be read in fatalpanic already, but a probe there would
/// delay the point from which main's return waits for the panic instead of exiting. The program must win that
/// race as often as it does without panicwatch.
#[uprobe]
pub(crate) fn dopanic(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(mut capture) = OpenCapture::new(&hit, kind::DIE, hit.current_g())
    {
        let head = capture.head();
        chain(head, &hit);
        // The text of the last panic; `chain` has copied those of the earlier panics, at most 4 KiB each.
        let p = read::word(get!(head, g) + G_PANIC).unwrap_or(0);
        memory::long_string(head, p + hit.binary.panic_arg as u64);
        dying_stacks(&mut capture, &hit, hit.reg(reg::RAX), hit.reg(reg::RCX));
        capture.finish_last();
    }
    0
}

/// `runtime.fatalsignal`, on gsignal. EAX = signal, RBX = sigctxt {info, ctxt}, RCX = the interrupted g, RDI
/// = m.
#[uprobe]
pub(crate) fn fatalsignal(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(mut capture) = OpenCapture::new(&hit, kind::FATAL_SIGNAL, hit.current_g())
    {
        let c = hit.reg(reg::RBX);
        let (info, context) = (read::word(c).unwrap_or(0), read::word(c + SIGCTXT_CTXT).unwrap_or(0));
        let head = capture.head();
        memory::tiny(head, c, 16);
        signal::frame(head, info, context);
        // RSP of the interrupted code, in the signal frame.
        let sp = read::word(context + ucontext::RSP).unwrap_or(0);
        dying_stacks(&mut capture, &hit, hit.reg(reg::RCX), sp);
        capture.finish_last();
    }
    0
}

/// `runtime.startpanic_m`, on g0 or gsignal, called first on every path to death. Go 1.19 has no fatalsignal:
/// user space pairs this point with the signal that the same thread has just received.
#[uprobe]
pub(crate) fn startpanic(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && let Some(point) = OpenPoint::new(&hit, kind::START_PANIC, hit.current_g())
    {
        point.finish([0; 6]);
    }
    0
}

/// Copies the stack at which Go's traceback starts, and the user goroutine's stack if that is a different
/// one.
#[inline(always)]
pub(crate) fn dying_stacks(capture: &mut OpenCapture, hit: &Hit, gp: u64, sp: u64) {
    let head: *mut Head = capture.head();
    memory::labels(head, hit);
    let hi = read::word(gp + G_STACK_HI).unwrap_or(0);
    capture.set_stack(sp, hi);
    memory::small(head, gp, G_BYTES as u64);
    hit.ancestors(head, get!(head, g));
    let user = get!(head, g);
    let (mut from, mut to) = (sp, hi);
    if user != 0 && user != gp {
        let syscall_sp = read::word(user + hit.binary.g_syscallsp as u64).unwrap_or(0);
        let saved = read::word(user + hit.binary.g_sched_sp as u64).unwrap_or(0);
        // A g0's C stack can be megabytes long; only its Go part is useful.
        memory::piece(head, sp, hi);
        from = if syscall_sp != 0 { syscall_sp } else { saved };
        to = get!(head, stack_hi);
    }
    capture::stack(head, from, to);
}

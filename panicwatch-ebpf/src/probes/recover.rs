//! `runtime.gorecover` when it finds a panic to recover, and `runtime.recovery`, which performs the recovery.
//!
//! A gorecover that returns nil is routine (every deferred recover() without a panic), so the probe is on the
//! last conditional jump before `p.recovered = true` and reads the flags that decide it.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L1070>

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{
    binary::site,
    event::{CHAIN, Head, PANIC_BYTES, kind},
    go::{G_PANIC, INTERFACE_DATA, RETURN_ADDRESS, STRING_SIZE},
    reg,
};

use crate::{
    capture::OpenPoint,
    context::{Hit, RFLAGS_ZF, get},
    memory,
    read::{self, word_or_zero},
};

/// A successful recover(). args: the words at RSP (a return address where gorecover has no frame) and at RBP
/// + 8, RBP, RSP.
#[uprobe]
pub(crate) fn recover(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let zero = hit.reg(reg::RFLAGS) & RFLAGS_ZF != 0;
        if zero != (hit.site & site::SUCCESS_IF_ZF != 0) {
            return 0;
        }
        if hit.is_quiet(hit.user_g()) {
            return 0;
        }
        if let Some(point) = OpenPoint::new(&hit, kind::RECOVER, hit.user_g()) {
            let (sp, bp) = (hit.reg(reg::RSP), hit.reg(reg::RBP));
            let at_sp = read::word(sp).unwrap_or(0);
            let above_bp = read::word(bp + RETURN_ADDRESS).unwrap_or(0);
            point.finish([at_sp, above_bp, bp, sp, 0, 0]);
        }
    }
    0
}

/// `runtime.recovery`, on g0; RAX = the goroutine. The point includes its newest panic, which from Go 1.22 on
/// shows how far the stack is unwound.
#[uprobe]
pub(crate) fn recovery(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && !hit.was_quiet(hit.reg(reg::RAX))
        && let Some(point) = OpenPoint::new(&hit, kind::RECOVERY, hit.reg(reg::RAX))
    {
        point.finish([0; 6]);
    }
    0
}

/// Copies the newest [`CHAIN`] `_panic`s of the goroutine and the strings that they hold.
#[inline(always)]
pub(crate) fn chain(head: *mut Head, hit: &Hit) {
    let g = get!(head, g);
    if g == 0 {
        return;
    }
    let (arg, link) = (hit.binary.panic_arg as u64, hit.binary.panic_link as u64);
    let mut p = word_or_zero(g + G_PANIC);
    for _ in 0..CHAIN {
        if !read::plausible(p) {
            break;
        }
        panic_record(head, p, p + arg);
        p = word_or_zero(p + link);
    }
}

/// Copies the `_panic` at `p`, and the string that the `any` at `arg` may hold. A global function: inlined in
/// the loop, its outcomes would multiply the verifier's paths at each step.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn panic_record(head: *mut Head, p: u64, arg: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    memory::tiny(head, p, PANIC_BYTES as u64);
    let data = read::word(arg + INTERFACE_DATA).unwrap_or(0);
    if read::plausible(data) {
        memory::tiny(head, data, STRING_SIZE);
        memory::short_string(head, data);
    }
    0
}

//! The deferred calls of a panic: the sites where gopanic (or Goexit) calls one, and where the call returns.
//!
//! Go 1.22 and later: `for { fn, ok := p.nextDefer(); if !ok { break }; fn() }`. The probes are on the
//! conditional jump after nextDefer (begin; the closure is in RAX if BL is set) and on `call nextDefer` (end
//! of the previous call; at the first hit there is none). Before 1.22: `deferCallSave` for open-coded defers,
//! gopanic's own call for linked ones.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L780>
//! <https://github.com/golang/go/blob/go1.21.13/src/runtime/panic.go#L1030>

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{
    binary::site,
    event::kind,
    go::{G_DEFER, G_PANIC},
    reg,
};

use crate::{capture::OpenPoint, context::Hit, read};

/// A deferred call begins. args: the closure, the address of its function.
#[uprobe]
pub(crate) fn defer_begin(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let g = hit.user_g();
        if hit.is_quiet(g) {
            return 0;
        }
        let closure = if hit.site & site::CLOSURE_RAX_IF_BL != 0 {
            if hit.reg(reg::RBX) & 0xff == 0 {
                return 0; // No deferred call is left.
            }
            hit.reg(reg::RAX)
        } else if hit.site & site::CLOSURE_RBX != 0 {
            hit.reg(reg::RBX)
        } else {
            let record = read::word(g + G_DEFER).unwrap_or(0);
            read::word(record + hit.binary.defer_fn as u64).unwrap_or(0)
        };
        // A closure of zero is a nil function value; calling it will fault.
        let function = if closure != 0 { read::word(closure).unwrap_or(0) } else { 0 };
        if let Some(point) = OpenPoint::new(&hit, kind::DEFER_BEGIN, g) {
            point.finish([closure, function, 0, 0, 0, 0]);
        }
    }
    0
}

/// A deferred call has returned. args: `_panic.recovered` in the lowest byte.
///
/// Time between the last deferred call and the death of the process is critical (see `fatal.rs`), so the
/// point has no structs. At the start of the loop no call can have ended; up to Go 1.25, `argp`, which
/// nextDefer sets, shows that.
#[uprobe]
pub(crate) fn defer_end(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx) {
        let g = hit.user_g();
        if hit.is_quiet(g) {
            return 0;
        }
        let p = read::word(g + G_PANIC).unwrap_or(0);
        if hit.site & site::ARGP_TELLS != 0 && read::word(p) == Some(0) {
            return 0;
        }
        let recovered = read::byte(p + hit.binary.panic_recovered as u64).unwrap_or(0);
        if let Some(point) = OpenPoint::new(&hit, kind::DEFER_END, g) {
            point.finish_lean(p, [recovered as u64, 0, 0, 0, 0, 0]);
        }
    }
    0
}

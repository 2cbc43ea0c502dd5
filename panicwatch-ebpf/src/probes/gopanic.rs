//! `runtime.gopanic(e any)`, where every panic starts, including run-time errors.
//!
//! Called on the user's goroutine; R14 = g, RAX/RBX = the eface (type, data), `[RSP]` = return address. The
//! probe is after the stack check, so a panic is not counted twice when the stack grows.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L737>

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{
    event::{DEFER_BYTES, Head, kind},
    go::G_DEFER,
    reg,
};

use crate::{
    capture::{self, OpenCapture},
    context::{Hit, get},
    memory,
    read::{self, word_or_zero},
};

/// Maximum number of `_defer` records that are followed. A `defer` in a loop makes one record per iteration.
/// Crossed by `bound of defers`.
const DEFERS: usize = 128;

#[uprobe]
pub(crate) fn gopanic(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && !hit.counted_only()
        && let Some(mut capture) = OpenCapture::new(&hit, kind::PANIC, hit.user_g())
    {
        let head = capture.head();
        memory::labels(head, &hit);
        memory::value(head, &hit, hit.reg(reg::RAX), hit.reg(reg::RBX));
        hit.ancestors(head, get!(head, g));
        heap_defers(head, hit.binary.defer_link as u64);
        let (sp, hi) = (get!(head, sp), get!(head, stack_hi));
        capture.set_stack(sp, hi);
        capture::stack(head, sp, hi);
        capture.finish();
    }
    0
}

/// Copies the deferred records that are not on the stack; `link` is the offset of the pointer to the next
/// record.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn heap_defers(head: *mut Head, link: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let mut record = word_or_zero(get!(head, g) + G_DEFER);
    for _ in 0..DEFERS {
        if !read::plausible(record) {
            break;
        }
        heap_defer(head, record);
        record = word_or_zero(record + link);
    }
    0
}

/// Copies one deferred record unless it is on the stack, which is copied anyway. A global function: inlined
/// in the loop, its two outcomes would double the verifier's paths at each step.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn heap_defer(head: *mut Head, record: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let on_stack = record >= get!(head, sp) && record < get!(head, stack_hi);
    if !on_stack {
        memory::tiny(head, record, DEFER_BYTES as u64);
    }
    0
}

//! `runtime.gopanic(e any)`: every panic starts here, run-time errors included.
//!
//! Called on the user's goroutine; R14 = g, RAX/RBX = the eface (type, data), `[RSP]` = return address. The probe
//! stands behind the stack check, so growth of the stack does not count a panic twice.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L737>

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::{
    event::{Head, kind},
    reg,
};

use crate::{
    capture::{self, OpenCapture},
    context::{G_DEFER, Hit, get},
    memory, read,
};

/// `_defer` records followed before Go 1.22's open-coded defers take over: enough for `defer_depth` in practice.
const DEFERS: usize = 16;

#[uprobe]
pub(crate) fn gopanic(ctx: ProbeContext) -> u32 {
    if let Some(hit) = Hit::new(&ctx)
        && !hit.counted_only()
        && let Some(mut capture) = OpenCapture::new(&hit, kind::PANIC, hit.user_g())
    {
        let head = capture.head();
        let labels = read::word(get!(head, g) + hit.binary.g_labels as u64).unwrap_or(0);
        if read::plausible(labels) {
            if hit.binary.label_list != 0 {
                memory::label_list(head, labels);
            } else {
                memory::label_map(head, labels);
            }
        }
        value(head, hit.reg(reg::RAX), hit.reg(reg::RBX));
        hit.ancestors(head, get!(head, g));
        heap_defers(head, hit.binary.defer_link as u64);
        let (sp, hi) = (get!(head, sp), get!(head, stack_hi));
        capture.set_stack(sp, hi);
        capture::stack(head, sp, hi);
        capture.finish();
    }
    0
}

/// `abi.Type.Kind_` of a pointer and of a string.
const KIND_POINTER: u8 = 22;
const KIND_STRING: u8 = 24;

/// Copies what the eface's data word leads to. The size of the value comes from its type where that page is resident.
/// Visible from outside the object, like [`heap_defers`], so that the verifier takes each by itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn value(head: *mut Head, type_word: u64, data: u64) -> u64 {
    if head.is_null() || type_word == 0 || !read::plausible(data) {
        return 0;
    }
    let mut size = 64;
    // abi.Type: Size_ at 0, Kind_ at 23, a pointer's Elem at 48.
    // https://github.com/golang/go/blob/go1.24.11/src/internal/abi/type.go#L20
    if let Some(kind) = read::byte(type_word + 23) {
        if kind & 31 == KIND_STRING {
            memory::tiny(head, data, 16);
            memory::string(head, data);
            return 0;
        }
        let described =
            if kind & 31 == KIND_POINTER { read::word(type_word + 48).unwrap_or(0) } else { type_word };
        if let Some(bytes) = read::word(described)
            && bytes > 0
        {
            size = bytes;
        }
    }
    if size > memory::OBJECT_BYTES {
        size = memory::OBJECT_BYTES;
    }
    memory::object(head, data, size);
    memory::long_string(head, data);
    0
}

/// Deferred records that are not on the stack; `link` is where one has the next.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn heap_defers(head: *mut Head, link: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let (g, sp, hi) = (get!(head, g), get!(head, sp), get!(head, stack_hi));
    if g == 0 {
        return 0;
    }
    let mut record = read::word(g + G_DEFER).unwrap_or(0);
    for _ in 0..DEFERS {
        if !read::plausible(record) {
            break;
        }
        let on_stack = record >= sp && record < hi;
        if !on_stack {
            memory::tiny(head, record, 80);
        }
        record = read::word(record + link).unwrap_or(0);
    }
    0
}

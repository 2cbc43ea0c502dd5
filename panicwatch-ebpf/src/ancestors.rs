//! Ancestors of a goroutine (its creator, that goroutine's creator, and so on): `g.ancestors`, which Go
//! maintains with `GODEBUG=tracebackancestors=N`.
//!
//! `*[]ancestorInfo{pcs []uintptr; goid uint64; gopc uintptr}`, nearest first. The pcs are not followed: gopc
//! already identifies the go statement that created each goroutine.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go> (saveAncestors)

use panicwatch_common::event::{ANCESTOR_BYTES, ANCESTORS, Head};

use crate::{context::Hit, memory, read};

impl Hit {
    /// Copies at most [`ANCESTORS`] ancestors of the goroutine whose g is at `g`.
    #[inline(always)]
    pub(crate) fn ancestors(&self, head: *mut Head, g: u64) {
        if g != 0 {
            copy_ancestors(head, read::word(g + self.binary.g_ancestors as u64).unwrap_or(0));
        }
    }
}

/// Copies the ancestors in the slice at `slice`. A global function, so that the verifier checks it once,
/// separately from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_ancestors(head: *mut Head, slice: u64) -> u64 {
    if head.is_null() || !read::plausible(slice) {
        return 0;
    }
    let Some([list, len]) = read::words(slice) else { return 0 };
    if !read::plausible(list) || len == 0 {
        return 0;
    }
    let len = if len > ANCESTORS as u64 { ANCESTORS as u64 } else { len };
    memory::tiny(head, slice, 24);
    memory::small(head, list, len * ANCESTOR_BYTES as u64);
    0
}

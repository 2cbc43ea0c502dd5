//! Copies the target's memory into the event ring: stacks, strings, labels, and the objects that make up a
//! value.
//!
//! A range is copied in as few records as possible. If a record's range cannot be read, its pages are copied
//! one by one, so that only pages that are not resident are missing; user space sees the gaps.
//!
//! Records have size classes because the kernel requires constant reservation sizes. Functions with several
//! callers are global functions (`no_mangle`; the names are unique in the object): the verifier checks a
//! global function once, for arbitrary arguments, instead of at every call.

mod labels;
mod object;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use panicwatch_common::{
    event::{Head, MemHead, flag, kind},
    reason::Reason,
};

pub(crate) use self::{
    labels::labels,
    object::{long_string, value},
};
use crate::{
    context::get,
    maps::{CONFIG, EVENTS, NO_WAKEUP, failed},
    read,
};

#[repr(C)]
struct Mem<const N: usize> {
    head: MemHead,
    data: [u8; N],
}

/// Maximum number of bytes in one record. Crossed by `bound of texts`.
const MAX_PIECE: u64 = 65_496;
/// Size of a block in bytes. Longer ranges are first copied in blocks, which keeps the number of steps low.
/// Crossed by `cold memory`.
const BLOCK: u64 = 8 * MAX_PIECE;
/// Maximum number of blocks in one copy: eight megabytes. Crossed by `stack beyond what is copied`.
const MAX_BLOCKS: u64 = 16;
const PAGE: u64 = 4096;
/// Maximum number of pages that a block overlaps: one more than it fills. Crossed by `cold memory`.
const BLOCK_PAGES: u64 = BLOCK.div_ceil(PAGE) + 1;
/// Maximum number of bytes that are copied of a text: the value's own string, or the message of a throw.
/// Copying takes the target's time. Crossed by `bound of texts`.
const MAX_TEXT: u64 = 1 << 20;
/// Maximum number of bytes that are copied of a string that a value refers to. Crossed by `bound of texts`.
const NESTED_STRING: u64 = 4096;

#[inline(always)]
fn fill(mem: &mut MemHead, head: *const Head, addr: u64, data_len: u64) {
    mem.kind = kind::MEMORY;
    mem.len = (size_of::<MemHead>() as u64 + data_len) as u32;
    mem.time_ns = get!(head, time_ns);
    mem.tgid = get!(head, tgid);
    mem.tid = get!(head, tid);
    mem.addr = addr;
    mem.data_len = data_len;
}

#[inline(always)]
fn emitted(head: *mut Head) {
    // SAFETY: the head is in a reservation.
    unsafe { core::ptr::write_volatile(&raw mut (*head).mem_records, get!(head, mem_records) + 1) };
}

#[inline(always)]
fn lost(head: *mut Head) {
    failed(Reason::MemoryRingFull);
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut (*head).mem_lost, get!(head, mem_lost) + 1) };
}

/// Reports whether the capture has reached its time limit, and marks and counts it when it does for the first
/// time.
///
/// Copies of more than a page ask first. The smaller ones are few enough not to: 128 objects of a value, 128
/// deferred calls, 64 labels, ancestors and panics of a chain.
#[inline(always)]
fn is_out_of_time(head: *mut Head) -> bool {
    let max = CONFIG.get(0).map_or(0, |config| config.max_capture_ns);
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    if max == 0 || now.wrapping_sub(get!(head, time_ns)) < max as u64 {
        return false;
    }
    let flags = get!(head, flags);
    if flags & flag::OUT_OF_TIME == 0 {
        failed(Reason::CaptureTime);
        // SAFETY: the head is in a reservation.
        unsafe { core::ptr::write_volatile(&raw mut (*head).flags, flags | flag::OUT_OF_TIME) };
    }
    true
}

/// Copies `len` bytes from `addr` into one record of class `N`; returns `false` if the memory could not be
/// read. A full ring is counted as a loss and returns `true`.
#[inline(always)]
fn put<const N: usize>(head: *mut Head, addr: u64, len: u64) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Mem<N>>(0) else {
        lost(head);
        return true;
    };
    let len = if len > N as u64 { N as u64 } else { len };
    let mem = entry.as_mut_ptr();
    // SAFETY: the reservation has the size of Mem<N>.
    let ok = unsafe { read::copy((&raw mut (*mem).data).cast(), len as u32, addr) };
    if !ok {
        entry.discard(NO_WAKEUP);
        return false;
    }
    // SAFETY: as above.
    fill(unsafe { &mut (*mem).head }, head, addr, len);
    emitted(head);
    entry.submit(NO_WAKEUP);
    true
}

/// Defines functions that copy a range into one record of the smallest listed class that is large enough, or
/// page by page if that record's range could not be read. With `or REASON`, such a range is counted under
/// that reason. With `in time`, nothing is copied after the time limit.
macro_rules! records { ($(
    $(#[$doc:meta])* $name:ident $(or $reason:ident)? $(in $time:ident)? => $($below:literal)* .. $largest:expr;
)*) => { $(
    $(#[$doc])*
    #[unsafe(no_mangle)]
    #[inline(never)]
    pub(crate) extern "C" fn $name(head: *mut Head, addr: u64, len: u64) -> u64 {
        if head.is_null() {
            return 0;
        }
        $(records!(@$time head);)?
        let was_read = 'classes: {
            $(if len <= $below {
                break 'classes put::<$below>(head, addr, len);
            })*
            put::<{ $largest as usize }>(head, addr, len)
        };
        if !was_read {
            $(failed(Reason::$reason);)?
            pages(head, addr, if len > $largest { $largest } else { len });
        }
        0
    }
)* };
    (@time $head:ident) => {
        if is_out_of_time($head) {
            return 0;
        }
    };
}

records! {
    /// Copies at most 216 bytes.
    tiny => .. 216;
    /// Copies at most a page.
    small => 216 984 .. PAGE;
    /// Copies at most [`MAX_PIECE`] bytes of a stack or a string.
    put_piece or StackRead in time => .. MAX_PIECE;
    /// Like [`put_piece`], without the time limit.
    put_outer or StackRead => .. MAX_PIECE;
    /// Like [`put_piece`], in the smallest class that is large enough.
    put_sized or StackRead in time => 216 984 2008 4056 16_344 .. MAX_PIECE;
    /// Copies at most [`BLOCK`] bytes.
    put_block or StackRead in time => .. BLOCK;
}

/// Copies the readable pages of a range of at most [`BLOCK`] bytes, one record per page, lowest address
/// first. A stack grows down, so that is innermost first.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn pages(head: *mut Head, addr: u64, len: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let end = addr + len;
    let mut start = addr & !(PAGE - 1);
    for _ in 0..BLOCK_PAGES {
        if start >= end {
            break;
        }
        page(head, start, addr, end);
        start += PAGE;
    }
    0
}

/// Copies the part of the range `from..to` that lies in the page at `start`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn page(head: *mut Head, start: u64, from: u64, to: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let from = if start > from { start } else { from };
    let end = start + PAGE;
    let to = if end < to { end } else { to };
    if to > from && !is_out_of_time(head) {
        put::<{ PAGE as usize }>(head, from, to - from);
    }
    0
}

/// Copies `len` bytes from `addr` in as many records as necessary, at most [`MAX_BLOCKS`] blocks and the
/// pieces of one more.
///
/// The form of this function is for the verifier: every path that continues subtracts a constant, and the
/// verifier's knowledge of the remaining length is discarded after each loop, so there are few paths.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn copy(head: *mut Head, addr: u64, len: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let (mut addr, mut left) = (addr, len);
    for _ in 0..MAX_BLOCKS {
        if left <= BLOCK {
            break;
        }
        put_block(head, addr, BLOCK);
        addr += BLOCK;
        left -= BLOCK;
    }
    let mut left = forget(head, left);
    for _ in 0..BLOCK / MAX_PIECE {
        if left <= MAX_PIECE {
            break;
        }
        put_piece(head, addr, MAX_PIECE);
        addr += MAX_PIECE;
        left -= MAX_PIECE;
    }
    let mut left = forget(head, left);
    if left > MAX_PIECE {
        left = MAX_PIECE;
    }
    if left > 0 {
        put_sized(head, addr, left);
    }
    0
}

/// Returns `value` and discards what the verifier knows about it: the value passes through a word of the
/// record that is written only at the end.
#[inline(always)]
fn forget(head: *mut Head, value: u64) -> u64 {
    // SAFETY: the head is in a reservation.
    unsafe { core::ptr::write_volatile(&raw mut (*head).cost_ns, value) };
    get!(head, cost_ns)
}

/// Number of bytes that are copied from the outermost end of a deep stack.
pub(crate) const OUTER: u64 = 3 * MAX_PIECE;

/// Copies the outermost [`OUTER`] bytes of a stack that ends at `hi`.
#[inline(always)]
pub(crate) fn outer(head: *mut Head, hi: u64) {
    for i in 1..4 {
        put_outer(head, hi - i * MAX_PIECE, MAX_PIECE);
    }
}

/// Copies the range `from..to` into one record, at most [`MAX_PIECE`] bytes.
#[inline(always)]
pub(crate) fn piece(head: *mut Head, from: u64, to: u64) {
    if to > from {
        put_piece(head, from, to - from);
    }
}

/// Copies a struct of Go's runtime to `dst`, as far as it can be read: `N` bytes, or up to the end of its
/// first page (the `N` bytes may reach beyond the struct, into a page that is not resident). Returns the
/// number of copied bytes, 0 if nothing could be read.
#[inline(always)]
pub(crate) fn copy_struct<const N: usize>(dst: *mut [u8; N], addr: u64) -> u32 {
    if !read::plausible(addr) {
        return 0;
    }
    if read::copy(dst.cast(), N as u32, addr) {
        return N as u32;
    }
    let to_page_end = PAGE - (addr & (PAGE - 1));
    // Opaque: the compiler would remove the following comparison, which verifiers before Linux 6.8 need.
    let len = core::hint::black_box(to_page_end);
    if len < N as u64 && read::copy(dst.cast(), len as u32, addr) { len as u32 } else { 0 }
}

/// Copies the string whose header is at `header`, at most 4 KiB of it.
#[inline(always)]
pub(crate) fn short_string(head: *mut Head, header: u64) {
    if let Some([ptr, len]) = read::words(header)
        && read::plausible(ptr)
        && len > 0
        && len < 1 << 32
    {
        small(head, ptr, len);
    }
}

/// Copies the string whose header is at `header`, at most [`MAX_TEXT`] bytes of it.
#[inline(always)]
fn string(head: *mut Head, header: u64) {
    if let Some([ptr, len]) = read::words(header) {
        text(head, ptr, len);
    }
}

/// Copies the `len` bytes of text at `ptr`, at most [`MAX_TEXT`] of them.
#[inline(always)]
pub(crate) fn text(head: *mut Head, ptr: u64, len: u64) {
    if read::plausible(ptr) && len > 0 && len < 1 << 47 {
        copy(head, ptr, if len > MAX_TEXT { MAX_TEXT } else { len });
    }
}

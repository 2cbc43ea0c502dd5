//! Pieces of the target's memory into the ring: stacks, strings, and the objects a value is made of.
//!
//! Records come in size classes because the kernel wants constant reservations. What is called from several places is visible
//! from outside the object (`no_mangle`; nothing else has these names in it): the verifier takes such a function by itself, once.

use panicwatch_common::{
    event::{Head, MemHead, kind},
    reason::Reason,
};

use crate::{
    context::get,
    maps::{EVENTS, NO_WAKEUP, failed},
    read,
};

#[repr(C)]
struct Mem<const N: usize> {
    head: MemHead,
    data: [u8; N],
}

/// Largest piece of one record.
const MAX_PIECE: u64 = 65_496;
/// What is larger than that goes in blocks first, which keeps the number of steps low.
const BLOCK: u64 = 8 * MAX_PIECE;
/// Blocks of one copy: eight megabytes.
const MAX_BLOCKS: u64 = 16;
const PAGE: u64 = 4096;
/// Words of an object that are looked at for pointers.
const OBJECT_WORDS: usize = 18;
pub(crate) const OBJECT_BYTES: u64 = OBJECT_WORDS as u64 * 8;
/// Objects of one value.
const OBJECTS: usize = 16;
/// Longest slice of interfaces or strings that is followed: what fits into the words looked at.
const MAX_SLICE: u64 = 8;
/// A nested string longer than this is cut; the value's own string is copied whole.
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

/// One record of class `N`; false when the memory could not be read.
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

/// Defines functions that copy into one record, of the first class that is large enough. Visible from outside the object, so that
/// the verifier takes each by itself, once, and not anew on every path to every call. With a reason, a piece that cannot be read is
/// counted as that.
macro_rules! records { ($($(#[$doc:meta])* $name:ident $(or $reason:ident)? => $($below:literal)* .. $largest:expr;)*) => { $(
    $(#[$doc])*
    #[unsafe(no_mangle)]
    #[inline(never)]
    pub(crate) extern "C" fn $name(head: *mut Head, addr: u64, len: u64) -> u64 {
        if head.is_null() {
            return 0;
        }
        let was_read = 'classes: {
            $(if len <= $below {
                break 'classes put::<$below>(head, addr, len);
            })*
            put::<{ $largest as usize }>(head, addr, len)
        };
        if !was_read {
            $(failed(Reason::$reason);)?
        }
        0
    }
)* } }

records! {
    /// At most 216 bytes.
    tiny => .. 216;
    /// At most a page.
    small => 216 984 .. PAGE;
    /// At most [`MAX_PIECE`] of a stack or a string.
    put_piece or StackRead => .. MAX_PIECE;
    /// Likewise, in the smallest class that does.
    put_sized or StackRead => 216 984 2008 4056 16_344 .. MAX_PIECE;
    /// At most [`BLOCK`].
    put_block or StackRead => .. BLOCK;
}

/// Copies `len` bytes from `addr`, in as many records as it takes, but no more than [`MAX_BLOCKS`]. A piece with a
/// page that is not resident is left out: user space sees the gap.
///
/// Its shape is for the verifier: every path that goes on subtracts a constant, and what is left is forgotten behind each
/// loop, so the paths stay few. Taken by itself, as [`visit`] is.
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

/// The same value, of which the verifier knows nothing any more: by way of a word of the record that is only written in
/// the end.
#[inline(always)]
fn forget(head: *mut Head, value: u64) -> u64 {
    // SAFETY: the head is in a reservation.
    unsafe { core::ptr::write_volatile(&raw mut (*head).cost_ns, value) };
    get!(head, cost_ns)
}

/// Bytes copied from the outermost end of a deep stack.
pub(crate) const OUTER: u64 = 3 * MAX_PIECE;

/// Copies the outermost end of a stack that ends at `hi`.
#[inline(always)]
pub(crate) fn outer(head: *mut Head, hi: u64) {
    for i in 1..4 {
        put_piece(head, hi - i * MAX_PIECE, MAX_PIECE);
    }
}

/// Copies from `from` to `to`, at most one record.
#[inline(always)]
pub(crate) fn piece(head: *mut Head, from: u64, to: u64) {
    if to > from {
        put_piece(head, from, to - from);
    }
}

/// Copies the string whose header is at `header`, as far as 216 bytes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn label(head: *mut Head, header: u64) -> u64 {
    if let Some([ptr, len]) = read::words(header)
        && read::plausible(ptr)
        && len > 0
        && len < NESTED_STRING
    {
        tiny(head, ptr, len);
    }
    0
}

/// Copies the strings of a Go map of strings with one bucket, which is how Go 1.23 and before keep pprof labels:
/// `*labels` is the map, its word at 16 the bucket; in it a byte per slot, eight keys, eight values.
/// <https://github.com/golang/go/blob/go1.23.9/src/runtime/map.go#L102>
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn label_map(head: *mut Head, labels: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let map = read::word(labels).unwrap_or(0);
    let bucket = read::word(map + 16).unwrap_or(0);
    if !read::plausible(map) || !read::plausible(bucket) {
        return 0;
    }
    small(head, labels, 64);
    small(head, map, 64);
    small(head, bucket, 8 + 16 * 16 + 8);
    for i in 0..16 {
        label(head, bucket + 8 + i * 16);
    }
    0
}

/// Copies pprof labels as Go 1.24 and later keep them: `*labels` is a slice of pairs of strings.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/pprof/label.go#L30>
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn label_list(head: *mut Head, labels: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let (list, len) = (read::word(labels).unwrap_or(0), read::word(labels + 8).unwrap_or(0));
    if !read::plausible(list) || len == 0 || len > PAGE / 32 {
        return 0;
    }
    tiny(head, labels, 24);
    small(head, list, len * 32);
    for i in 0..32 {
        if i < 2 * len {
            label(head, list + i * 16);
        }
    }
    0
}

/// Copies the string whose header is at `header`, as far as 4 KiB.
#[inline(always)]
pub(crate) fn short_string(head: *mut Head, header: u64) {
    if let (Some(ptr), Some(len)) = (read::word(header), read::word(header + 8))
        && read::plausible(ptr)
        && len > 0
        && len < 1 << 32
    {
        small(head, ptr, len);
    }
}

/// Copies the string whose header is at `header`, if [`object`] would have cut it.
#[inline(always)]
pub(crate) fn long_string(head: *mut Head, header: u64) {
    if read::word(header + 8).is_some_and(|len| len > NESTED_STRING) {
        string(head, header);
    }
}

/// Copies the string whose header is at `header`.
#[inline(always)]
pub(crate) fn string(head: *mut Head, header: u64) {
    if let (Some(ptr), Some(len)) = (read::word(header), read::word(header + 8))
        && read::plausible(ptr)
        && len > 0
        && len < 1 << 32
    {
        copy(head, ptr, len);
    }
}

/// Addresses still to be copied; the size is in the upper 16 bits.
///
/// It lives in a ring reservation that is discarded at the end: on the eBPF stack the verifier would follow each
/// item's bounds through every iteration and give up.
#[repr(C)]
struct Queue {
    len: u64,
    items: [u64; OBJECTS],
}

/// Appends when `wanted` is 1, does nothing when it is 0; straight-line, for the verifier's sake. A full queue keeps
/// overwriting its last place.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn push(queue: *mut Queue, addr: u64, size: u64, wanted: u64) -> u64 {
    if queue.is_null() {
        return 0;
    }
    // SAFETY: the reservation has the size of Queue, and the mask keeps the index below OBJECTS.
    unsafe {
        let len = core::ptr::read_volatile(&raw const (*queue).len) & (OBJECTS as u64 - 1);
        let items: *mut u64 = (&raw mut (*queue).items).cast();
        core::ptr::write_volatile(items.add(len as usize), addr | size << 48);
        // 0 … OBJECTS - 1: the last place stays the last.
        let next = len + wanted;
        core::ptr::write_volatile(&raw mut (*queue).len, next - (next >> OBJECTS.trailing_zeros()));
    }
    0
}

/// Copies the `size` bytes at `addr` and what they point to, breadth first, without knowing types: strings as far as [`NESTED_STRING`], anything else that looks like a pointer as 136 bytes.
#[inline(always)]
pub(crate) fn object(head: *mut Head, addr: u64, size: u64) {
    let Some(mut reservation) = EVENTS.reserve::<Queue>(0) else {
        lost(head);
        return;
    };
    let queue = reservation.as_mut_ptr();
    // SAFETY: the reservation has the size of Queue.
    unsafe { core::ptr::write_volatile(&raw mut (*queue).len, 0) };
    push(queue, addr, size, 1);
    for i in 0..OBJECTS - 1 {
        // SAFETY: as above; i is below OBJECTS.
        let (len, item) = unsafe {
            let items: *const u64 = (&raw const (*queue).items).cast();
            (core::ptr::read_volatile(&raw const (*queue).len), core::ptr::read_volatile(items.add(i)))
        };
        if i as u64 >= len {
            break;
        }
        visit(head, item & ((1 << 48) - 1), item >> 48, queue);
    }
    reservation.discard(NO_WAKEUP);
}

/// Bit 15 of a queued size: a string, not to be looked into.
const LEAF: u64 = 1 << 15;

/// Visible from outside the object, so that the verifier takes it by itself, once, and not anew at every call.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn visit(head: *mut Head, addr: u64, size: u64, queue: *mut Queue) -> u64 {
    if head.is_null() || queue.is_null() {
        return 0;
    }
    if size & LEAF != 0 {
        small(head, addr, size & (LEAF - 1));
        return 0;
    }
    let Some(mut entry) = EVENTS.reserve::<Mem<{ OBJECT_BYTES as usize }>>(0) else {
        lost(head);
        return 0;
    };
    let mem = entry.as_mut_ptr();
    let mut len = if size > OBJECT_BYTES { OBJECT_BYTES } else { size };
    // SAFETY: the reservation has the size of Mem<OBJECT_BYTES>.
    let data: *mut u64 = unsafe { (&raw mut (*mem).data).cast() };
    if !read::copy(data.cast(), len as u32, addr) {
        let to_page_end = PAGE - (addr & (PAGE - 1));
        // Opaque: the compiler knows the outcome of the next comparison, verifiers before Linux 6.8 need it.
        len = core::hint::black_box(if len > to_page_end { to_page_end } else { len });
        if len > OBJECT_BYTES || !read::copy(data.cast(), len as u32, addr) {
            entry.discard(NO_WAKEUP);
            return 0;
        }
    }
    // SAFETY: as above.
    fill(unsafe { &mut (*mem).head }, head, addr, len);
    emitted(head);
    let words = len / 8;
    for i in 0..OBJECT_WORDS - 1 {
        if i as u64 >= words {
            break;
        }
        // SAFETY: i + 1 is below OBJECT_WORDS, the record's size in words; past `len` it holds old bytes, which at
        // worst look like a length.
        let (word, next) =
            unsafe { (core::ptr::read_volatile(data.add(i)), core::ptr::read_volatile(data.add(i + 1))) };
        // A length of a few may be a slice's as well as a string's: then as much as either needs, and looked into.
        let string = (next.wrapping_sub(MAX_SLICE + 1) < NESTED_STRING - MAX_SLICE) as u64;
        let size = 136 + string * (next.wrapping_sub(136) | LEAF);
        push(queue, word, size & 0xffff, read::plausible(word) as u64);
    }
    entry.submit(NO_WAKEUP);
    0
}

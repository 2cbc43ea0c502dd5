//! Copies the objects that a panic value refers to, breadth first.
//!
//! The programs do not know the types of fields. They rely on three facts: the constant bytes of the binary
//! need no copy; an interface's first word leads to the type of the data that its second word points to; a
//! small number after a pointer is a length.

use panicwatch_common::{
    event::Head,
    go::{ITAB_TYPE, POINTER_ELEM, STRING_LEN, STRING_SIZE, TYPE_KIND, TYPE_SIZE},
    reason::Reason,
};

use super::{Mem, NESTED_STRING, PAGE, emitted, fill, lost, small, string, tiny};
use crate::{
    context::{Hit, get},
    maps::{EVENTS, NO_WAKEUP, failed},
    read,
};

/// Number of words of one object that are copied and searched for pointers. Crossed by `bound of objects`.
const OBJECT_WORDS: usize = 32;
/// Maximum size of one object in bytes. Crossed by `bound of objects`.
const OBJECT_BYTES: u64 = OBJECT_WORDS as u64 * 8;
/// Maximum number of objects of [`OBJECT_BYTES`] into which a larger one is split; the rest is omitted.
/// Crossed by `bound of objects`.
const PARTS: u64 = 4;
/// Entries of the queue: maximum number of objects of one value, plus a last entry that is never visited.
/// Each object takes about 100 ns of the target's time. Crossed by `bound of objects`.
const OBJECTS: usize = 128;
/// Number of bytes that are copied of an object of unknown size. Crossed by `bound of objects`.
const UNKNOWN: u64 = 128;
/// Number of words of an object that a small record holds; most errors fit.
const SMALL_WORDS: usize = 8;
const SMALL_BYTES: u64 = SMALL_WORDS as u64 * 8;
/// Maximum total number of bytes of the strings that a value refers to. In a chain of errors, each error's
/// text repeats the text of the errors that it wraps. Crossed by `chains around every bound`.
const STRINGS: u64 = 32 << 10;
/// Exclusive upper bound of numbers that are treated as a length.
const MAX_LEN: u64 = 1 << 20;

/// Values of `abi.Type.Kind_`. <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/type.go#L53>
const KIND_ARRAY: u64 = 17;
const KIND_POINTER: u64 = 22;
const KIND_STRING: u64 = 24;
const KIND_STRUCT: u64 = 25;

/// Objects still to be copied, and the data that is the same for all of them.
///
/// The queue is in a ring reservation that is discarded at the end: on the eBPF stack, the verifier would
/// track each item's bounds through every iteration and give up.
#[repr(C)]
struct Queue {
    len: u64,
    /// Number of string bytes that may still be copied.
    strings: u64,
    /// Bounds of the binary's constant bytes, which user space reads from the file.
    image: u64,
    image_end: u64,
    /// Addresses, with the size in the upper 16 bits.
    items: [u64; OBJECTS],
}

/// Bit 15 of a queued size: the object is a string, which is not searched for pointers.
const LEAF: u64 = 1 << 15;

/// Copies the objects that the data word of an `any` leads to. `hit` is a hit at gopanic, to which the image
/// range of the binary's row is relative.
#[inline(always)]
pub(crate) fn value(head: *mut Head, hit: &Hit, type_word: u64, data: u64) {
    let ip = get!(head, ip);
    object(head, type_word, data, ip - hit.binary.image_below as u64, ip + hit.binary.image_above as u64);
}

/// Copies the text of the `any` at `eface` if it holds a string that [`short_string`](super::short_string)
/// would truncate.
#[inline(always)]
pub(crate) fn long_string(head: *mut Head, eface: u64) {
    if let Some([type_word, data]) = read::words(eface)
        && kind(type_word) == KIND_STRING
        && read::word(data + STRING_LEN).is_some_and(|len| len > NESTED_STRING)
    {
        string(head, data);
    }
}

/// Returns the kind of the type at `typ`; 0, which is not a kind, if its page is not resident.
#[inline(always)]
fn kind(typ: u64) -> u64 {
    read::byte(typ + TYPE_KIND).unwrap_or(0) as u64 & 31
}

/// Implements [`value`], given the range of the binary's constant bytes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn object(head: *mut Head, type_word: u64, data: u64, image: u64, image_end: u64) -> u64 {
    if head.is_null() || type_word == 0 || !read::plausible(data) {
        return 0;
    }
    if kind(type_word) == KIND_STRING {
        tiny(head, data, STRING_SIZE);
        string(head, data);
        return 0;
    }
    let Some(mut reservation) = EVENTS.reserve::<Queue>(0) else {
        lost(head);
        return 0;
    };
    let queue = reservation.as_mut_ptr();
    // SAFETY: the reservation has the size of Queue.
    unsafe {
        core::ptr::write_volatile(&raw mut (*queue).len, 0);
        core::ptr::write_volatile(&raw mut (*queue).strings, STRINGS);
        core::ptr::write_volatile(&raw mut (*queue).image, image);
        core::ptr::write_volatile(&raw mut (*queue).image_end, image_end);
    }
    let size = size_of_type(queue, type_word);
    push_parts(queue, data, if size == 0 { UNKNOWN } else { size });
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
    0
}

/// Appends an object if `wanted` is 1, does nothing if it is 0; without branches, for the verifier. A full
/// queue keeps overwriting its last entry, which is never visited.
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
        // The length stays in 0 ..= OBJECTS - 1: once the last entry is reached, it is overwritten.
        let next = len + wanted;
        let full = next >> OBJECTS.trailing_zeros();
        core::ptr::write_volatile(&raw mut (*queue).len, next - full);
        if full != 0 {
            failed(Reason::ValueTooLarge);
        }
    }
    0
}

/// Appends the `size` bytes at `addr`, as at most [`PARTS`] objects.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn push_parts(queue: *mut Queue, addr: u64, size: u64) -> u64 {
    if queue.is_null() {
        return 0;
    }
    for i in 0..PARTS {
        let before = i * OBJECT_BYTES;
        if size <= before {
            break;
        }
        let rest = size - before;
        push(queue, addr + before, if rest > OBJECT_BYTES { OBJECT_BYTES } else { rest }, 1);
    }
    0
}

/// Reports whether `addr` is in the binary's constant bytes.
#[inline(always)]
fn is_constant(queue: *const Queue, addr: u64) -> bool {
    // SAFETY: the reservation has the size of Queue.
    let (from, to) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*queue).image),
            core::ptr::read_volatile(&raw const (*queue).image_end),
        )
    };
    addr >= from && addr < to
}

/// Returns the size of the object that the data word of an interface points to, given the interface's first
/// word: an itab or a type. Returns 0 if the word is neither, or the page is not resident.
///
/// An itab begins with the address of its interface's type and that of the value's type.
/// <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/iface.go#L14>
/// <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/type.go#L20>
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn size_of_type(queue: *mut Queue, word: u64) -> u64 {
    if queue.is_null() || !read::plausible(word) {
        return 0;
    }
    const { assert!(ITAB_TYPE == 8, "the second word") };
    let Some([first, second]) = read::words(word) else { return 0 };
    let is_itab = is_constant(queue, second) && is_constant(queue, first);
    let typ = if is_itab { second } else { word };
    if !is_constant(queue, typ) {
        return 0;
    }
    let own = read::word(typ + TYPE_SIZE).unwrap_or(0);
    let size = match kind(typ) {
        KIND_POINTER => match read::word(typ + POINTER_ELEM) {
            Some(elem) if is_constant(queue, elem) => read::word(elem + TYPE_SIZE).unwrap_or(0),
            _ => 0,
        },
        // A type that consists of one pointer: the data word is that pointer.
        KIND_STRUCT | KIND_ARRAY if own == 8 => 0,
        _ => own,
    };
    // Data that is not a type can have any number there.
    if size < MAX_LEN { size } else { 0 }
}

/// Decides what to copy for `word`, one word of an object. `before`, `next` and `third` are its neighbors.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn consider(queue: *mut Queue, before: u64, word: u64, next: u64, third: u64) -> u64 {
    if queue.is_null() || !read::plausible(word) || is_constant(queue, word) {
        return 0;
    }
    let size = size_of_type(queue, before);
    if size != 0 {
        push_parts(queue, word, size);
    } else if next == 0 || next >= MAX_LEN {
        push(queue, word, UNKNOWN, 1);
    } else if third >= next && third <= 4 * next + 64 {
        // A slice. The elements of a value's slices are usually interfaces or strings.
        push_parts(queue, word, 16 * next);
    } else {
        push(queue, word, LEAF | if next > NESTED_STRING { NESTED_STRING } else { next }, 1);
    }
    0
}

/// Copies one queued object and queues what it points to.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn visit(head: *mut Head, addr: u64, size: u64, queue: *mut Queue) -> u64 {
    if head.is_null() || queue.is_null() {
        return 0;
    }
    if size & LEAF != 0 {
        nested_string(head, addr, size & (LEAF - 1), queue);
    } else if size <= SMALL_BYTES {
        search::<{ SMALL_BYTES as usize }, SMALL_WORDS>(head, addr, size, queue);
    } else {
        search::<{ OBJECT_BYTES as usize }, OBJECT_WORDS>(head, addr, size, queue);
    }
    0
}

/// Copies a string that the value refers to, within the value's remaining budget for strings.
#[inline(always)]
fn nested_string(head: *mut Head, addr: u64, len: u64, queue: *mut Queue) {
    // SAFETY: the reservation has the size of Queue.
    let left = unsafe { core::ptr::read_volatile(&raw const (*queue).strings) };
    let len = if len > left { left } else { len };
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut (*queue).strings, left - len) };
    if len > 0 {
        small(head, addr, len);
    } else {
        failed(Reason::ValueTooLarge);
    }
}

/// Copies an object of up to `BYTES` bytes (`WORDS` words) and queues what its words point to.
#[inline(always)]
fn search<const BYTES: usize, const WORDS: usize>(head: *mut Head, addr: u64, size: u64, queue: *mut Queue) {
    let Some(mut entry) = EVENTS.reserve::<Mem<BYTES>>(0) else {
        lost(head);
        return;
    };
    let mem = entry.as_mut_ptr();
    let mut len = if size > BYTES as u64 { BYTES as u64 } else { size };
    // SAFETY: the reservation has the size of Mem<BYTES>.
    let data: *mut u64 = unsafe { (&raw mut (*mem).data).cast() };
    if !read::copy(data.cast(), len as u32, addr) {
        let to_page_end = PAGE - (addr & (PAGE - 1));
        // Opaque: the compiler would remove the next comparison, which verifiers before Linux 6.8 need.
        len = core::hint::black_box(if len > to_page_end { to_page_end } else { len });
        if len > BYTES as u64 || !read::copy(data.cast(), len as u32, addr) {
            entry.discard(NO_WAKEUP);
            return;
        }
    }
    // SAFETY: as above.
    fill(unsafe { &mut (*mem).head }, head, addr, len);
    emitted(head);
    let words = len / 8;
    let mut before = 0;
    for i in 0..WORDS {
        if i as u64 >= words {
            break;
        }
        // Beyond `len`, the record holds stale bytes, which must not be used as neighbors.
        let at = |n: usize| {
            let index = i + n;
            if index < WORDS && (index as u64) < words {
                // SAFETY: the index is below WORDS, the record's size in words.
                unsafe { core::ptr::read_volatile(data.add(index)) }
            } else {
                0
            }
        };
        let word = at(0);
        consider(queue, before, word, at(1), at(2));
        before = word;
    }
    entry.submit(NO_WAKEUP);
}

//! Atomic operations: `core` has none for this target, but the instruction set does (Linux 5.12).
//!
//! A program can be preempted, or interrupted by another program, in the middle of anything that takes more
//! than one instruction.

use core::arch::asm;

/// Adds one to a counter in a map value and returns its previous value.
#[inline(always)]
pub(crate) fn next(counter: *mut u64) -> u64 {
    let mut n: u64 = 1;
    // SAFETY: the caller's counter is in a map value and aligned to 8 bytes.
    unsafe {
        asm!("{n} = atomic_fetch_add((u64 *)({counter} + 0), {n})", n = inout(reg) n, counter = in(reg) counter);
    }
    n
}

/// Adds one to a counter in a map value; cheaper than [`next`].
#[inline(always)]
pub(crate) fn increment(counter: *mut u64) {
    // SAFETY: the caller's counter is in a map value and aligned to 8 bytes.
    unsafe { asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1u64) };
}

/// Sets bits in a word of a map value.
#[inline(always)]
pub(crate) fn set(word: *mut u64, bits: u64) {
    // SAFETY: the caller's word is in a map value and aligned to 8 bytes.
    unsafe { asm!("lock *(u64 *)({word} + 0) |= {bits}", word = in(reg) word, bits = in(reg) bits) };
}

/// Clears bits in a word of a map value.
#[inline(always)]
pub(crate) fn clear(word: *mut u64, bits: u64) {
    // SAFETY: the caller's word is in a map value and aligned to 8 bytes.
    unsafe { asm!("lock *(u64 *)({word} + 0) &= {bits}", word = in(reg) word, bits = in(reg) !bits) };
}

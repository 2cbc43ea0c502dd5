//! Atomic additions: `core` has none for this target, the instruction set has (Linux 5.12).
//!
//! Programs can be taken off their CPU, or interrupted by another program, in the middle of anything that takes more than
//! one instruction.

use core::arch::asm;

/// Adds one to a counter in a map value and gives what was there before.
#[inline(always)]
pub(crate) fn next(counter: *mut u64) -> u64 {
    let mut n: u64 = 1;
    // SAFETY: the caller's counter is in a map value, aligned to 8 bytes.
    unsafe {
        asm!("{n} = atomic_fetch_add((u64 *)({counter} + 0), {n})", n = inout(reg) n, counter = in(reg) counter);
    }
    n
}

/// Adds one to a counter in a map value: less work than [`next`].
#[inline(always)]
pub(crate) fn increment(counter: *mut u64) {
    // SAFETY: the caller's counter is in a map value, aligned to 8 bytes.
    unsafe { asm!("lock *(u64 *)({counter} + 0) += {one}", counter = in(reg) counter, one = in(reg) 1u64) };
}

/// Sets bits of a word in a map value.
#[inline(always)]
pub(crate) fn set(word: *mut u64, bits: u64) {
    // SAFETY: the caller's word is in a map value, aligned to 8 bytes.
    unsafe { asm!("lock *(u64 *)({word} + 0) |= {bits}", word = in(reg) word, bits = in(reg) bits) };
}

/// Clears bits of a word in a map value.
#[inline(always)]
pub(crate) fn clear(word: *mut u64, bits: u64) {
    // SAFETY: the caller's word is in a map value, aligned to 8 bytes.
    unsafe { asm!("lock *(u64 *)({word} + 0) &= {bits}", word = in(reg) word, bits = in(reg) !bits) };
}

//! Bounded reads of the target's memory. A read never faults a page in: reading a page that is not resident
//! is an error.

use aya_ebpf::helpers::{bpf_probe_read_user, generated};

/// Reads the 64-bit word at `addr`.
#[inline(always)]
pub(crate) fn word(addr: u64) -> Option<u64> {
    // SAFETY: the helper checks the user address and fails if it cannot read it.
    unsafe { bpf_probe_read_user(addr as *const u64) }.ok()
}

/// Reads the 64-bit word at `addr`; returns 0 if it cannot be read. A global function, so that a loop that
/// follows pointers has one path through each step instead of two.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn word_or_zero(addr: u64) -> u64 {
    word(addr).unwrap_or(0)
}

/// Reads the two 64-bit words at `addr`.
#[inline(always)]
pub(crate) fn words(addr: u64) -> Option<[u64; 2]> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const [u64; 2]) }.ok()
}

/// Reads the first `WORDS` words of the g at `addr`.
#[inline(always)]
pub(crate) fn head_of_g<const WORDS: usize>(addr: u64) -> Option<[u64; WORDS]> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const [u64; WORDS]) }.ok()
}

/// Reads the 32-bit word at `addr`.
#[inline(always)]
pub(crate) fn word32(addr: u64) -> Option<u32> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const u32) }.ok()
}

/// Reads the byte at `addr`.
#[inline(always)]
pub(crate) fn byte(addr: u64) -> Option<u8> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const u8) }.ok()
}

/// Copies `len` bytes from `addr` to `dst`; if any cannot be read, zeroes `dst` and returns `false`.
#[inline(always)]
pub(crate) fn copy(dst: *mut u8, len: u32, addr: u64) -> bool {
    // SAFETY: the verifier proves that `dst` has `len` bytes; the helper checks the user address.
    unsafe { generated::bpf_probe_read_user(dst.cast(), len, addr as *const _) == 0 }
}

/// Reports whether `word` could be a pointer in a 64-bit user process: above the first pages, which are never
/// mapped, and below the canonical hole.
#[inline(always)]
pub(crate) fn plausible(word: u64) -> bool {
    word >= 0x1_0000 && word < 1 << 47
}

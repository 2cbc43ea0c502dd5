//! Bounded reads of the target's memory. Reads never fault pages in: what is not resident is an error.

use aya_ebpf::helpers::{bpf_probe_read_user, generated};

/// The 64-bit word at `addr`.
#[inline(always)]
pub(crate) fn word(addr: u64) -> Option<u64> {
    // SAFETY: the helper checks the user address and fails on what it cannot read.
    unsafe { bpf_probe_read_user(addr as *const u64) }.ok()
}

/// The 64-bit word at `addr`, 0 when it cannot be read. Visible from outside the object, so that a loop that follows
/// pointers has one path through a step and not two.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn word_or_zero(addr: u64) -> u64 {
    word(addr).unwrap_or(0)
}

/// The two 64-bit words at `addr`.
#[inline(always)]
pub(crate) fn words(addr: u64) -> Option<[u64; 2]> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const [u64; 2]) }.ok()
}

/// The first words of the g at `addr`.
#[inline(always)]
pub(crate) fn head_of_g<const WORDS: usize>(addr: u64) -> Option<[u64; WORDS]> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const [u64; WORDS]) }.ok()
}

/// The 32-bit word at `addr`.
#[inline(always)]
pub(crate) fn word32(addr: u64) -> Option<u32> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const u32) }.ok()
}

/// The byte at `addr`.
#[inline(always)]
pub(crate) fn byte(addr: u64) -> Option<u8> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(addr as *const u8) }.ok()
}

/// `len` bytes from `addr` to `dst`; zeroes them and says false when any cannot be read.
#[inline(always)]
pub(crate) fn copy(dst: *mut u8, len: u32, addr: u64) -> bool {
    // SAFETY: the verifier proves that `dst` has `len` bytes; the helper checks the user address.
    unsafe { generated::bpf_probe_read_user(dst.cast(), len, addr as *const _) == 0 }
}

/// Could be a pointer of a 64-bit user process: above the never mapped first pages, below the canonical hole.
#[inline(always)]
pub(crate) fn plausible(word: u64) -> bool {
    word >= 0x1_0000 && word < 1 << 47
}

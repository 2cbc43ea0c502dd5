//! Counts the records that the event ring had no room for, by goroutine. Every record carries the number of
//! records of its goroutine that were lost before it, which tells user space which incidents are incomplete.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};
use panicwatch_common::{counted::Goroutine, event::flag};

use crate::{
    atomic::next,
    context::Hit,
    maps::{LOSSES, LOST, RATES},
    read,
};

/// Row of [`LOSSES`] that counts all lost records.
const ALL: u32 = 0;
/// Row of [`LOSSES`] that counts the lost records that are not in [`LOST`].
const UNATTRIBUTED: u32 = 1;

#[inline(always)]
fn key(goid: u64) -> Goroutine {
    Goroutine { tgid: bpf_get_current_pid_tgid() >> 32, goid }
}

impl Hit {
    /// Counts a lost record about the goroutine whose g is at `g` (0: no goroutine).
    #[inline(always)]
    pub(crate) fn lost(&self, g: u64) {
        let goid = if g == 0 { 0 } else { read::word(g + self.binary.g_goid as u64).unwrap_or(0) };
        count_lost(goid);
    }

    /// Returns `Head::flags` for a record about the goroutine whose g is at `g`.
    #[inline(always)]
    pub(crate) fn flags(&self, g: u64) -> u32 {
        let counted = RATES.get(self.binary_index).is_some_and(|rate| rate.counted != 0);
        if !counted {
            0
        } else if self.is_quiet(g) {
            flag::SOME_COUNTED | flag::COUNTED_ONLY
        } else {
            flag::SOME_COUNTED
        }
    }
}

#[inline(always)]
fn increment(row: u32) {
    if let Some(count) = LOSSES.get_ptr_mut(row) {
        next(count);
    }
}

/// Counts a lost record about goroutine `goid` of the current process. Like [`lost_so_far`], this is a global
/// function, so that the verifier checks it once, separately from its callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_lost(goid: u64) -> u64 {
    let key = key(goid);
    increment(ALL);
    if let Some(count) = LOST.get_ptr_mut(&key) {
        next(count);
    } else if LOST.insert(&key, &1, BPF_NOEXIST as u64).is_err() {
        // Another CPU inserted the key first, or the map is full.
        match LOST.get_ptr_mut(&key) {
            Some(count) => {
                next(count);
            }
            None => increment(UNATTRIBUTED),
        }
    }
    0
}

/// Returns the number of lost records about goroutine `goid` of the current process so far, plus those that
/// could not be attributed to any goroutine.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn lost_so_far(goid: u64) -> u64 {
    if LOSSES.get(ALL).is_none_or(|all| *all == 0) {
        return 0;
    }
    let unattributed = LOSSES.get(UNATTRIBUTED).copied().unwrap_or(0);
    // SAFETY: the value is copied at once.
    unattributed + unsafe { LOST.get(&key(goid)) }.copied().unwrap_or(0)
}

//! Records that the event ring had no room for, counted by goroutine, so that user space can tell which incidents are
//! incomplete: every record carries how many of its goroutine were lost before it.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_current_pid_tgid};
use panicwatch_common::{counted::Goroutine, event::flag};

use crate::{
    atomic::next,
    context::Hit,
    maps::{LOSSES, LOST, RATES},
    read,
};

/// Rows of [`LOSSES`].
const ALL: u32 = 0;
const UNATTRIBUTED: u32 = 1;

#[inline(always)]
fn key(goid: u64) -> Goroutine {
    Goroutine { tgid: bpf_get_current_pid_tgid() >> 32, goid }
}

impl Hit {
    /// Counts a lost record about the goroutine whose g is at `g` (0: about none).
    #[inline(always)]
    pub(crate) fn lost(&self, g: u64) {
        let goid = if g == 0 { 0 } else { read::word(g + self.binary.g_goid as u64).unwrap_or(0) };
        count_lost(goid);
    }

    /// `Head::flags` of a record about the goroutine whose g is at `g`.
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

/// Visible from outside the object, like the next, so that the verifier checks each once, alone.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_lost(goid: u64) -> u64 {
    let key = key(goid);
    increment(ALL);
    if let Some(count) = LOST.get_ptr_mut(&key) {
        next(count);
    } else if LOST.insert(&key, &1, BPF_NOEXIST as u64).is_err() {
        // Another CPU was first, or there is no room.
        match LOST.get_ptr_mut(&key) {
            Some(count) => {
                next(count);
            }
            None => increment(UNATTRIBUTED),
        }
    }
    0
}

/// Records about goroutine `goid` of the current process that were lost so far.
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

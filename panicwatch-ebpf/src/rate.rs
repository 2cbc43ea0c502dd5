//! Rate limit of captures: beyond it, a panic is only counted, and nothing about it is reported until it
//! ends.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
};
use panicwatch_common::{
    counted::{Goroutine, Place, WINDOW_NS},
    go::{G_PANIC, RETURN_ADDRESS},
    reason::Reason,
    reg,
};

use crate::{
    atomic::next,
    context::Hit,
    maps::{CONFIG, COUNTED, QUIET, RATES, failed},
    read,
};

impl Hit {
    #[inline(always)]
    fn key(&self, g: u64) -> Goroutine {
        let goid = read::word(g + self.binary.g_goid as u64).unwrap_or(0);
        Goroutine { tgid: bpf_get_current_pid_tgid() >> 32, goid }
    }

    /// Called at gopanic; counts the panic if it is beyond the rate limit, and reports whether it did. A
    /// panic that is raised while another panic of its goroutine is in progress is treated like that one.
    #[inline(always)]
    pub(crate) fn counted_only(&self) -> bool {
        let Some(config) = CONFIG.get(0) else { return false };
        let Some(rate) = RATES.get_ptr_mut(self.binary_index) else { return false };
        let g = self.user_g();
        if config.max_captures == 0 {
            return false;
        }
        if read::word(g + G_PANIC).unwrap_or(0) != 0 {
            let quiet = self.is_quiet(g);
            if quiet {
                self.count(rate.cast());
            }
            return quiet;
        }
        // SAFETY: the row is a map value. Two CPUs may both start a window, which only allows a few more
        // captures.
        unsafe {
            let now = bpf_ktime_get_ns();
            if now - (*rate).since_ns > WINDOW_NS {
                (*rate).since_ns = now;
                (*rate).taken = 0;
            }
            if next(&raw mut (*rate).taken) < config.max_captures as u64 {
                return false;
            }
        }
        let _ = QUIET.insert(&self.key(g), &0, 0);
        self.count(rate.cast());
        true
    }

    #[inline(always)]
    fn count(&self, rate: *mut u64) {
        // SAFETY: `rate` is a row of RATES, and `counted` is its third word.
        next(unsafe { rate.add(2) });
        let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
        let pc = read::word(self.reg(reg::RSP)).unwrap_or(0);
        let caller = read::word(self.reg(reg::RBP) + RETURN_ADDRESS).unwrap_or(0);
        let place = Place { tgid, binary: self.binary_index, pc, caller, ip: self.reg(reg::RIP) };
        if !add(&place) && !add(&Place { pc: 0, caller: 0, ..place }) {
            failed(Reason::PlacesFull);
        }
    }

    /// Reports whether the current panic of goroutine `g` was only counted.
    #[inline(always)]
    pub(crate) fn is_quiet(&self, g: u64) -> bool {
        let Some(rate) = RATES.get(self.binary_index) else { return false };
        if rate.counted == 0 {
            return false;
        }
        // SAFETY: the value is only tested for presence.
        unsafe { QUIET.get(&self.key(g)) }.is_some()
    }

    /// Ends the panics of goroutine `g`; reports whether they were only counted.
    #[inline(always)]
    pub(crate) fn was_quiet(&self, g: u64) -> bool {
        self.is_quiet(g) && QUIET.remove(&self.key(g)).is_ok()
    }
}

#[inline(always)]
fn add(place: &Place) -> bool {
    if let Some(count) = COUNTED.get_ptr_mut(place) {
        next(count);
        return true;
    }
    if COUNTED.insert(place, &1, BPF_NOEXIST as u64).is_ok() {
        return true;
    }
    // Another CPU inserted the site first, or the map is full.
    match COUNTED.get_ptr_mut(place) {
        Some(count) => {
            next(count);
            true
        }
        None => false,
    }
}

//! The two forms of an event: a small point, and a capture with registers, Go's structs and the stack.
//!
//! Both reserve their record first and fill it in afterwards; memory records follow it in the ring.

use aya_ebpf::{helpers::bpf_ktime_get_ns, maps::ring_buf::RingBufEntry};
use panicwatch_common::{
    event::{CaptureHead, DEFER_BYTES, Head, PANIC_BYTES, Point, flag, unread},
    go::{G_DEFER, G_M, G_PANIC},
    reason::Reason,
    reg,
};

use crate::{
    context::{Hit, get},
    diagnostics,
    maps::{EVENTS, NO_WAKEUP, WAKEUP, failed, unhurried},
    memory, read,
};

/// Largest stack that is copied whole, in bytes. Of a larger stack, only the two ends are copied, together
/// this many bytes: [`memory::OUTER`] at the outermost end, the rest at the innermost. Crossed by
/// `stack beyond what is copied`.
const WHOLE: u64 = 8 << 20;
const INNER: u64 = WHOLE - memory::OUTER;

#[inline(always)]
fn set_cost(head: *mut Head) {
    // SAFETY: no preconditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the head is in a reservation.
    unsafe { core::ptr::write_volatile(&raw mut (*head).cost_ns, now - get!(head, time_ns)) };
}

/// A reserved point that is being filled in; one of its `finish` methods must be called.
pub(crate) struct OpenPoint(RingBufEntry<Point>);

impl OpenPoint {
    /// Reserves a point about the goroutine whose g is at `g` (0: no goroutine) and fills in its head. Counts
    /// a point that does not fit into the ring.
    #[inline(always)]
    pub(crate) fn new(hit: &Hit, kind: u32, g: u64) -> Option<OpenPoint> {
        let Some(mut entry) = EVENTS.reserve::<Point>(0) else {
            failed(Reason::RingFull);
            diagnostics::ring_full(hit.reg(reg::RIP), hit.binary_index as u64);
            hit.lost(g);
            return None;
        };
        hit.begin(entry.as_mut_ptr().cast(), kind, size_of::<Point>());
        let mut point = OpenPoint(entry);
        hit.goroutine(point.head(), g);
        Some(point)
    }

    #[inline(always)]
    pub(crate) fn head(&mut self) -> *mut Head {
        self.0.as_mut_ptr().cast()
    }

    /// Submits the point without Go's structs; for probes where every nanosecond counts.
    #[inline(always)]
    pub(crate) fn finish_lean(mut self, panic_addr: u64, args: [u64; 6]) {
        let head = self.head();
        let point = self.0.as_mut_ptr();
        // SAFETY: the reservation has the size of Point; the structs are left as they are and marked as
        // unread.
        unsafe {
            (*point).args = args;
            (*point).panic_addr = panic_addr;
            (*point).defer_addr = 0;
            (*point).unread = unread::PANIC | unread::DEFER;
        }
        set_cost(head);
        self.0.submit(NO_WAKEUP);
    }

    /// Adds the goroutine's top `_panic` and top `_defer`, and submits the point.
    #[inline(always)]
    pub(crate) fn finish(mut self, args: [u64; 6]) {
        let head = self.head();
        let g = get!(head, g);
        let (mut panic_addr, mut defer_addr) = (0, 0);
        if g != 0 {
            panic_addr = read::word(g + G_PANIC).unwrap_or(0);
            defer_addr = read::word(g + G_DEFER).unwrap_or(0);
        }
        let point = self.0.as_mut_ptr();
        // SAFETY: the reservation has the size of Point and every field is written.
        unsafe {
            (*point).args = args;
            (*point).panic_addr = panic_addr;
            (*point).defer_addr = defer_addr;
            let mut absent = 0;
            if !read::copy((&raw mut (*point).panic).cast(), PANIC_BYTES as u32, panic_addr) {
                absent |= unread::PANIC;
            }
            if !read::copy((&raw mut (*point).defer).cast(), DEFER_BYTES as u32, defer_addr) {
                absent |= unread::DEFER;
            }
            (*point).unread = absent;
        }
        set_cost(head);
        self.0.submit(NO_WAKEUP);
    }
}

/// A reserved capture that is being filled in; one of its `finish` methods must be called.
pub(crate) struct OpenCapture(RingBufEntry<CaptureHead>);

impl OpenCapture {
    /// Reserves a capture and fills in the registers and the structs of goroutine `g`. With `g` 0, the
    /// capture is about no goroutine, and m and p are those of the running thread.
    #[inline(always)]
    pub(crate) fn new(hit: &Hit, kind: u32, g: u64) -> Option<OpenCapture> {
        let Some(mut entry) = EVENTS.reserve::<CaptureHead>(0) else {
            failed(Reason::RingFull);
            diagnostics::ring_full(hit.reg(reg::RIP), hit.binary_index as u64);
            hit.lost(g);
            return None;
        };
        let capture = entry.as_mut_ptr();
        let head: *mut Head = capture.cast();
        hit.begin(head, kind, size_of::<CaptureHead>());
        hit.goroutine(head, g);
        let base = if g != 0 { g } else { hit.reg(reg::R14) };
        let m_addr = read::word(base + G_M).unwrap_or(0);
        let p_addr = read::word(m_addr + hit.binary.m_p as u64).unwrap_or(0);
        // SAFETY: the reservation has the size of CaptureHead and every field is written.
        unsafe {
            hit.copy_regs(&raw mut (*capture).regs);
            (*capture).m_addr = m_addr;
            (*capture).p_addr = p_addr;
            (*capture).g_len = memory::copy_struct(&raw mut (*capture).g, g);
            (*capture).m_len = memory::copy_struct(&raw mut (*capture).m, m_addr);
            (*capture).p_len = memory::copy_struct(&raw mut (*capture).p, p_addr);
            (*capture).reserved = 0;
            (*capture).stack_addr = 0;
            (*capture).stack_end = 0;
        }
        Some(OpenCapture(entry))
    }

    #[inline(always)]
    pub(crate) fn head(&mut self) -> *mut Head {
        self.0.as_mut_ptr().cast()
    }

    /// Sets the bounds of the stack that Go walks.
    #[inline(always)]
    pub(crate) fn set_stack(&mut self, sp: u64, hi: u64) {
        let capture = self.0.as_mut_ptr();
        // SAFETY: the reservation has the size of CaptureHead.
        unsafe {
            core::ptr::write_volatile(&raw mut (*capture).stack_addr, sp);
            core::ptr::write_volatile(&raw mut (*capture).stack_end, hi);
        }
    }

    /// Logs what the capture lacks, if anything.
    #[inline(always)]
    fn diagnose(&mut self) {
        let head = self.head();
        if get!(head, flags) & flag::OUT_OF_TIME != 0 {
            diagnostics::capture_time(get!(head, goid), get!(head, mem_records) as u64);
        } else if get!(head, mem_lost) != 0 {
            let (copied, lost) = (get!(head, mem_records) as u64, get!(head, mem_lost) as u64);
            diagnostics::memory_ring_full(get!(head, goid), copied, lost);
        }
    }

    /// Submits the capture; the reader finds it at its next poll unless the ring is filling up.
    #[inline(always)]
    pub(crate) fn finish(mut self) {
        self.diagnose();
        set_cost(self.head());
        self.0.submit(unhurried());
    }

    /// Submits the capture and wakes the reader: the process is dying.
    #[inline(always)]
    pub(crate) fn finish_last(mut self) {
        self.diagnose();
        set_cost(self.head());
        self.0.submit(WAKEUP);
    }
}

/// Copies the stack from `sp` to `hi`: all of it, or both ends of a stack larger than [`WHOLE`].
#[inline(always)]
pub(crate) fn stack(head: *mut Head, sp: u64, hi: u64) {
    if sp == 0 || hi <= sp {
        return;
    }
    let size = hi - sp;
    memory::copy(head, sp, if size > WHOLE { INNER } else { size });
    if size > WHOLE {
        memory::outer(head, hi);
    }
}

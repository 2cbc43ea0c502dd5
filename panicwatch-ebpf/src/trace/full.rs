//! Programs for entries and exits whose records have arguments, results or callers.

use aya_ebpf::{macros::uprobe, programs::ProbeContext};
use panicwatch_common::trace::{
    Counts, FetchList, Full, Hit, LARGE_BYTES, LARGE_LIMIT, SMALL_BYTES, SMALL_LIMIT, STACK_FRAMES, flag,
    kind,
};

use super::{
    Traced, counter, fetch,
    maps::{TRACE_FETCH, TRACE_RING},
};
use crate::{maps::NO_WAKEUP, pt_regs, read};

/// Program at the entry of a function, for records with data.
#[uprobe]
pub(crate) fn trace_entry_full(ctx: ProbeContext) -> u32 {
    if let Some(traced) = Traced::new(&ctx)
        && let Some(hit) = traced.hit(kind::ENTRY)
    {
        traced.count(counter::entries);
        emit(&traced, hit, 0, counter::lost_entries);
    }
    0
}

/// Program at an exit of a function, for records with data.
#[uprobe]
pub(crate) fn trace_exit_full(ctx: ProbeContext) -> u32 {
    if let Some(traced) = Traced::new(&ctx)
        && let Some(hit) = traced.hit(kind::EXIT)
    {
        traced.count(counter::exits);
        emit(&traced, hit, 1, counter::lost_exits);
    }
    0
}

#[inline(always)]
fn emit(traced: &Traced, hit: Hit, row: u32, lost: fn(*mut Counts) -> *mut u64) {
    let Some(list) = TRACE_FETCH.get(traced.function * 2 + row) else { return };
    let stored = if list.large != 0 {
        record::<LARGE_BYTES, { LARGE_LIMIT as u64 }>(traced, hit, list)
    } else {
        record::<SMALL_BYTES, { SMALL_LIMIT as u64 }>(traced, hit, list)
    };
    if !stored {
        traced.count(lost);
    }
}

/// Writes one record into the kernel's ring buffer; returns `false` if the ring has no room.
#[inline(always)]
fn record<const BYTES: usize, const LIMIT: u64>(traced: &Traced, mut hit: Hit, list: &FetchList) -> bool {
    let Some(mut entry) = TRACE_RING.reserve::<Full<BYTES>>(0) else { return false };
    let record = entry.as_mut_ptr();
    hit.flags |= flag::DATA;
    if traced.config.stack != 0 && hit.kind == kind::ENTRY {
        hit.flags |= flag::STACK;
        callers(traced, record);
    }
    fetch::run::<BYTES, LIMIT>(traced, list, record);
    // SAFETY: the reservation has this size.
    unsafe {
        (*record).hit = hit;
        (*record).ip = traced.reg(pt_regs::RIP);
    }
    entry.submit(NO_WAKEUP);
    true
}

/// Follows the frame pointers, which Go maintains on amd64. At an entry, RBP is still the caller's, so the
/// first return address is at the stack pointer and the next one in the caller's frame.
#[inline(always)]
fn callers<const BYTES: usize>(traced: &Traced, record: *mut Full<BYTES>) {
    // SAFETY: the record is in a reservation of its size, and so are its fields.
    let (frames, count): (*mut u64, *mut u64) =
        unsafe { ((&raw mut (*record).stack.frames).cast(), &raw mut (*record).stack.count) };
    let first = read::word(traced.frame).unwrap_or(0);
    // SAFETY: as above.
    unsafe {
        core::ptr::write_volatile(frames, first);
        core::ptr::write_volatile(count, (first != 0) as u64);
    }
    let mut frame = traced.reg(pt_regs::RBP);
    for i in 1..STACK_FRAMES {
        if !read::plausible(frame) {
            break;
        }
        let Some([next, address]) = read::words(frame) else { break };
        if address == 0 {
            break;
        }
        // SAFETY: i is below STACK_FRAMES.
        unsafe {
            core::ptr::write_volatile(frames.add(i), address);
            core::ptr::write_volatile(count, i as u64 + 1);
        }
        // Frames of callers are at higher addresses.
        if next <= frame {
            break;
        }
        frame = next;
    }
}

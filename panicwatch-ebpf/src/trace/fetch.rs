//! Runs a fetch list: reads of the target's memory that user space prepared for one function.
//!
//! Only user space knows what the bytes mean. The program limits every offset to the size of the record,
//! whatever the list contains, and that is what the kernel's verifier checks.

use panicwatch_common::trace::{FRAME_WORD, FetchList, Full, NO_COUNT, STEP_BYTES, STEPS, WORDS};

use super::Traced;
use crate::{
    pt_regs::{R8, R9, R10, R11, RAX, RBX, RCX, RDI, RSI},
    read,
};

/// Integer registers in the order of Go's ABI.
/// <https://github.com/golang/go/blob/go1.24.11/src/cmd/compile/abi-internal.md#amd64-architecture>
const ABI: [usize; FRAME_WORD] = [RAX, RBX, RCX, RDI, RSI, R8, R9, R10, R11];

const _: () = assert!(WORDS == FRAME_WORD + 1);

/// Fills in `record`'s data. `LIMIT` is the exclusive upper bound of the record's offsets, a power of two.
#[inline(always)]
pub(crate) fn run<const BYTES: usize, const LIMIT: u64>(
    traced: &Traced,
    list: &FetchList,
    record: *mut Full<BYTES>,
) {
    // SAFETY: the record is in a reservation of its size. This holds for every pointer below, with offsets
    // masked by LIMIT - 1 and at most STEP_BYTES after that.
    let data: *mut u8 = unsafe { (&raw mut (*record).data).cast() };
    let words: *mut u64 = data.cast();
    macro_rules! each { ($($i:literal)*) => { $(
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(words.add($i), traced.reg(ABI[$i])) };
    )* } }
    each!(0 1 2 3 4 5 6 7 8);
    // SAFETY: as above.
    unsafe {
        core::ptr::write_volatile(words.add(FRAME_WORD), traced.frame);
        core::ptr::write_volatile(&raw mut (*record).done, 0);
    }
    let word = |offset: u16| -> u64 {
        let offset = offset as u64 & (LIMIT - 1);
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(data.add(offset as usize).cast::<u64>()) }
    };
    for i in 0..STEPS {
        if i as u32 >= list.count {
            break;
        }
        let step = list.steps[i];
        let address = word(step.base).wrapping_add(step.add as i64 as u64);
        let mut len = step.max as u64;
        if step.count != NO_COUNT {
            let count = word(step.count);
            // The number of elements is limited to the number of bytes that a step can read.
            let count = if count > STEP_BYTES as u64 { STEP_BYTES as u64 } else { count };
            let bytes = count * step.size as u64;
            if bytes < len {
                len = bytes;
            }
        }
        // Opaque: the compiler would remove the following comparison, which verifiers before Linux 6.8 need.
        len = core::hint::black_box(len);
        if len > STEP_BYTES as u64 || !read::plausible(address) {
            continue;
        }
        let to = step.to as u64 & (LIMIT - 1);
        // SAFETY: as above.
        let done = len == 0 || read::copy(unsafe { data.add(to as usize) }, len as u32, address);
        // SAFETY: as above.
        unsafe {
            let bits = core::ptr::read_volatile(&raw const (*record).done);
            core::ptr::write_volatile(&raw mut (*record).done, bits | (done as u64) << i);
        }
    }
}

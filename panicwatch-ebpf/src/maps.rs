//! The maps, each with who writes it, who reads it, how large it is and what happens when it is full.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf},
};
use panicwatch_common::{
    binary::{Binary, MAX_BINARIES, row},
    config::Config,
    counted::{Goroutine, Place, Rate},
    reason::{REASONS, Reason},
    recorder::{Head, Sample, Slot},
};

use crate::atomic;

/// Programs → user space, in order. The loader may change the size. Full: the event is lost and counted.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// User space → programs: the row that a probe's cookie names.
#[map]
pub(crate) static BINARIES: Array<Binary> = Array::with_max_entries(MAX_BINARIES, 0);

/// Programs → user space: hits of probes in reported processes, by the binary's row.
#[map]
pub(crate) static HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_BINARIES, 0);

/// Processes to report, by tgid; the value is the row of `BINARIES` that the process runs, plus one, and 0 until a probe in
/// that binary was hit: programs that do not stand in a binary need it; or `row::IGNORED`. User space and the process
/// programs write it.
/// Full: the process goes unwatched, counted. Crossed by `bound of processes`.
#[map]
pub(crate) static WATCHED: HashMap<u32, u32> = HashMap::with_max_entries(65_536, 0);

/// What [`WATCHED`] has for process `tgid`, if it is reported.
#[inline(always)]
pub(crate) fn watched(tgid: u32) -> Option<u32> {
    // SAFETY: the value is copied at once.
    let row = *unsafe { WATCHED.get(&tgid) }?;
    (row != row::IGNORED).then_some(row)
}

/// A bit per process number: clear for every process that is not reported. User space and the process programs keep it: a bit
/// is set before its process enters [`WATCHED`] and cleared after it has left. The loader sets the size: one word
/// when nothing is recorded.
#[map]
pub(crate) static MAY_BE_WATCHED: Array<u64> = Array::with_max_entries(1, MMAPABLE);

/// Reports whether process `tgid` may be in [`WATCHED`]: one load, so that runs for other processes end at once.
#[inline(always)]
pub(crate) fn may_be_watched(tgid: u32) -> bool {
    // The verifier turns a lookup in an array into a load, without a call.
    MAY_BE_WATCHED.get(tgid / 64).is_none_or(|word| *word >> (tgid % 64) & 1 != 0)
}

/// Enters a process; `false` when the table is full. Not inlined: the compiler would merge its paths with the caller's, and
/// spill a register that not all of them have set, which the verifier refuses.
#[inline(never)]
pub(crate) fn watch(tgid: u32, row: u32) -> bool {
    if row != row::IGNORED
        && let Some(word) = MAY_BE_WATCHED.get_ptr_mut(tgid / 64)
    {
        atomic::set(word, 1 << (tgid % 64));
    }
    WATCHED.insert(&tgid, &row, 0).is_ok()
}

/// Removes a process; `false` when it was not there. Not inlined, as above.
#[inline(never)]
pub(crate) fn unwatch(tgid: u32) -> bool {
    let was_there = WATCHED.remove(&tgid).is_ok();
    if let Some(word) = MAY_BE_WATCHED.get_ptr_mut(tgid / 64) {
        atomic::clear(word, 1 << (tgid % 64));
    }
    was_there
}

/// Programs: captures by binary, see [`Rate`].
#[map]
pub(crate) static RATES: Array<Rate> = Array::with_max_entries(MAX_BINARIES, 0);

/// Programs → user space: panics that were counted only, by place. Full: counted under the place 0 of the process. Crossed by `bound of places`.
#[map]
pub(crate) static COUNTED: HashMap<Place, u64> = HashMap::with_max_entries(8192, 0);

/// Programs: goroutines whose panic under way was counted only. Full: the one that was not asked for longest is forgotten,
/// and what remains of its panic is reported.
#[map]
pub(crate) static QUIET: LruHashMap<Goroutine, u64> = LruHashMap::with_max_entries(16_384, 0);

/// `BPF_F_MMAPABLE`: user space maps the values. <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h>
pub(crate) const MMAPABLE: u32 = 1 << 10;

/// Programs → user space: the recorder's rings, see `panicwatch_common::recorder`. The loader sets their sizes. Full: the
/// oldest record is overwritten.
#[map]
pub(crate) static SLOTS: Array<Slot> = Array::with_max_entries(1, MMAPABLE);
/// Likewise.
#[map]
pub(crate) static SAMPLES: Array<Sample> = Array::with_max_entries(1, MMAPABLE);
/// Likewise: counters.
#[map]
pub(crate) static HEADS: Array<Head> = Array::with_max_entries(1, MMAPABLE);

/// User space → programs: kernel offsets.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// Programs → user space: failures by [`Reason`].
#[map]
pub(crate) static FAILURES: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);

/// Programs → user space: records that [`EVENTS`] had no room for, by the goroutine they were about (goid 0: about none).
/// User space removes the rows of a process that has ended. Full: counted in [`LOSSES`].
#[map]
pub(crate) static LOST: HashMap<Goroutine, u64> = HashMap::with_max_entries(8192, 0);

/// Programs → user space: how many records were lost at all, and of those how many are not in [`LOST`].
#[map]
pub(crate) static LOSSES: Array<u64> = Array::with_max_entries(2, 0);

/// Ring flags. Waking the reader costs the target's CPU at the worst moment: with few CPUs it takes the very thread
/// that panics off, which can change who wins a race for exit. So the reader looks by itself now and then, and is
/// woken only when the program dies anyhow, or the ring fills up.
pub(crate) const NO_WAKEUP: u64 = 1;
pub(crate) const WAKEUP: u64 = 2;
/// For `bpf_ringbuf_query`: bytes that wait for the reader.
const AVAILABLE: u64 = 0;
/// The reader is woken when more bytes than this wait for it. No bound: nothing is left out beyond it.
const FILLING_UP: u64 = 2 << 20;

/// The flag for an ordinary event.
#[inline(always)]
pub(crate) fn unhurried() -> u64 {
    if EVENTS.query(AVAILABLE) > FILLING_UP { WAKEUP } else { NO_WAKEUP }
}

/// Counts a failure.
pub(crate) fn failed(reason: Reason) {
    if let Some(count) = FAILURES.get_ptr_mut(reason as u32) {
        // SAFETY: the pointer is to this CPU's slot of a map value of this type.
        unsafe { *count += 1 };
    }
}

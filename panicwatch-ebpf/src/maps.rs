//! The maps: each comment names the writer, the reader, the size where it matters, and what happens when the
//! map is full.

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

/// Programs → user space: events, in order. The loader may change the size. Full: the event is lost and
/// counted.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// User space → programs: per-binary data, indexed by the row that a probe's cookie names.
#[map]
pub(crate) static BINARIES: Array<Binary> = Array::with_max_entries(MAX_BINARIES, 0);

/// Programs → user space: number of probe hits in reported processes, by the binary's row.
#[map]
pub(crate) static HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MAX_BINARIES, 0);

/// Processes to report, by tgid. The value is the process's row of `BINARIES` plus one, `row::UNKNOWN` until
/// a probe in its binary is hit, or `row::IGNORED`; programs that are not attached to a binary need it.
/// Written by user space and by the process programs. Full: the process goes unwatched, which is counted.
/// Crossed by `bound of processes`.
#[map]
pub(crate) static WATCHED: HashMap<u32, u32> = HashMap::with_max_entries(65_536, 0);

/// Returns the value that [`WATCHED`] has for process `tgid`, if the process is reported.
#[inline(always)]
pub(crate) fn watched(tgid: u32) -> Option<u32> {
    // SAFETY: the value is copied at once.
    let row = *unsafe { WATCHED.get(&tgid) }?;
    (row != row::IGNORED).then_some(row)
}

/// One bit per process id, clear for every process that is not reported. User space and the process programs
/// maintain it: a bit is set before its process enters [`WATCHED`] and cleared after the process has left.
/// The loader sets the size: a single word when nothing is recorded.
#[map]
pub(crate) static MAY_BE_WATCHED: Array<u64> = Array::with_max_entries(1, MMAPABLE);

/// Reports whether process `tgid` may be in [`WATCHED`]. This is a single load, so runs for other processes
/// end early.
#[inline(always)]
pub(crate) fn may_be_watched(tgid: u32) -> bool {
    // The verifier turns a lookup in an array into a load, without a call.
    MAY_BE_WATCHED.get(tgid / 64).is_none_or(|word| *word >> (tgid % 64) & 1 != 0)
}

/// Adds a process to [`WATCHED`]; returns `false` when the map is full. Not inlined: the compiler would merge
/// its paths with the caller's and spill a register that is not set on all of them, which the verifier
/// rejects.
#[inline(never)]
pub(crate) fn watch(tgid: u32, row: u32) -> bool {
    if row != row::IGNORED
        && let Some(word) = MAY_BE_WATCHED.get_ptr_mut(tgid / 64)
    {
        atomic::set(word, 1 << (tgid % 64));
    }
    WATCHED.insert(&tgid, &row, 0).is_ok()
}

/// Removes a process from [`WATCHED`]; returns `false` when it was not there. Not inlined, for the same
/// reason as [`watch`].
#[inline(never)]
pub(crate) fn unwatch(tgid: u32) -> bool {
    let was_there = WATCHED.remove(&tgid).is_ok();
    if let Some(word) = MAY_BE_WATCHED.get_ptr_mut(tgid / 64) {
        atomic::clear(word, 1 << (tgid % 64));
    }
    was_there
}

/// Programs only: panic rates, by the binary's row; see [`Rate`].
#[map]
pub(crate) static RATES: Array<Rate> = Array::with_max_entries(MAX_BINARIES, 0);

/// Programs → user space: panics that were only counted, by call site. Full: the panic is counted under site
/// 0 of its process. Crossed by `bound of places`.
#[map]
pub(crate) static COUNTED: HashMap<Place, u64> = HashMap::with_max_entries(8192, 0);

/// Programs only: goroutines whose current panic was only counted. Full: the least recently used goroutine is
/// evicted, and the rest of its panic is reported, which user space ignores. Crossed by
/// `bound of goroutines that panic uncaptured`.
#[map]
pub(crate) static QUIET: LruHashMap<Goroutine, u64> = LruHashMap::with_max_entries(16_384, 0);

/// `BPF_F_MMAPABLE`: user space can map the values.
/// <https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/bpf.h>
pub(crate) const MMAPABLE: u32 = 1 << 10;

/// Programs → user space: slot rings of the recorder, see `panicwatch_common::recorder`. The loader sets the
/// size. Full: the oldest record is overwritten.
#[map]
pub(crate) static SLOTS: Array<Slot> = Array::with_max_entries(1, MMAPABLE);
/// Programs → user space: sample rings of the recorder. The loader sets the size. Full: the oldest sample is
/// overwritten.
#[map]
pub(crate) static SAMPLES: Array<Sample> = Array::with_max_entries(1, MMAPABLE);
/// Programs → user space: counters of the recorder, one entry per CPU. The loader sets the size.
#[map]
pub(crate) static HEADS: Array<Head> = Array::with_max_entries(1, MMAPABLE);

/// User space → programs: kernel offsets and settings.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// Programs → user space: number of failures, by [`Reason`].
#[map]
pub(crate) static FAILURES: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);

/// Programs only: time of the last diagnostic, by [`Reason`].
#[map]
pub(crate) static DIAGNOSED: Array<u64> = Array::with_max_entries(REASONS, 0);

/// Programs → user space: number of records that [`EVENTS`] had no room for, by the goroutine they were about
/// (goid 0: none). User space removes the rows of processes that have ended. Full: the loss is counted in
/// [`LOSSES`] only. Crossed by `bound of goroutines that lost records`.
#[map]
pub(crate) static LOST: HashMap<Goroutine, u64> = HashMap::with_max_entries(8192, 0);

/// No bound: two counters. Programs → user space: number of all lost records, then number of those that are
/// not in [`LOST`].
#[map]
pub(crate) static LOSSES: Array<u64> = Array::with_max_entries(2, 0);

/// Flags for submitting a record. A wake-up of the ring reader costs the target CPU time at the worst moment:
/// with few CPUs it preempts the panicking thread itself, which can change the outcome of a race for exit. So
/// the reader polls the ring, and the programs wake it only when the process dies anyway or the ring fills
/// up.
pub(crate) const NO_WAKEUP: u64 = 1;
pub(crate) const WAKEUP: u64 = 2;
/// `bpf_ringbuf_query` flag: number of bytes that the reader has not consumed.
const AVAILABLE: u64 = 0;
/// Number of unconsumed bytes above which the reader is woken. No bound: nothing is dropped beyond it.
const FILLING_UP: u64 = 2 << 20;

/// Returns the submit flag for an ordinary event.
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

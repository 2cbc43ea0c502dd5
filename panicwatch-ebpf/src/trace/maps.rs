//! The maps of `panicwatch trace`. The sizes here apply when nothing is traced; the loader sets the real
//! ones.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use panicwatch_common::trace::{Counts, FetchList, Head, Slot, TraceConfig};

use crate::maps::MMAPABLE;

/// Programs → user space: one ring per CPU, for sessions without data; see `panicwatch_common::trace`. Full:
/// the record is lost and counted.
#[map]
pub(crate) static TRACE_SLOTS: Array<Slot> = Array::with_max_entries(1, MMAPABLE);

/// Both directions: positions in these rings.
#[map]
pub(crate) static TRACE_HEADS: Array<Head> = Array::with_max_entries(1, MMAPABLE);

/// Programs → user space: records of sessions with data, in order, without waking the reader. Full: the
/// record is lost and counted.
#[map]
pub(crate) static TRACE_RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// User space → programs: settings, a single row.
#[map]
pub(crate) static TRACE_CONFIG: Array<TraceConfig> = Array::with_max_entries(1, 0);

/// Programs → user space: counters, by function number.
#[map]
pub(crate) static TRACE_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

/// User space → programs: fetch lists, two rows per function: entry and exit.
#[map]
pub(crate) static TRACE_FETCH: Array<FetchList> = Array::with_max_entries(1, 0);

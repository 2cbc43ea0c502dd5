//! The maps of tracing. Their sizes here are those of a session that does not trace; the loader sets the real ones.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};
use panicwatch_common::trace::{Counts, FetchList, Head, Slot, TraceConfig};

use crate::maps::MMAPABLE;

/// Programs → user space: a ring a CPU, for sessions without data; see `panicwatch_common::trace`. Full: the record is
/// lost and counted.
#[map]
pub(crate) static TRACE_SLOTS: Array<Slot> = Array::with_max_entries(1, MMAPABLE);

/// Both ways: how far these rings have come.
#[map]
pub(crate) static TRACE_HEADS: Array<Head> = Array::with_max_entries(1, MMAPABLE);

/// Programs → user space: sessions with data, in order; nobody is woken for it. Full: the record is lost and counted.
#[map]
pub(crate) static TRACE_RING: RingBuf = RingBuf::with_byte_size(4096, 0);

/// User space → programs: one row.
#[map]
pub(crate) static TRACE_CONFIG: Array<TraceConfig> = Array::with_max_entries(1, 0);

/// Programs → user space: by the function's number.
#[map]
pub(crate) static TRACE_COUNTS: PerCpuArray<Counts> = PerCpuArray::with_max_entries(1, 0);

/// User space → programs: two rows for each function, entry and exit.
#[map]
pub(crate) static TRACE_FETCH: Array<FetchList> = Array::with_max_entries(1, 0);

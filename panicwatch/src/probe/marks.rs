//! Memory-mapped bitmap of the processes that may be watched: the programs at tracepoints check it before
//! anything else.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    sync::atomic::{AtomicU64, Ordering},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

use super::error::ProbeError;

/// The mapped bitmap. eBPF programs change bits concurrently, hence the atomic operations.
pub(super) struct Marks(MmapRaw);

impl Marks {
    /// Maps the values of `array`.
    pub(super) fn map(array: &MapData) -> Result<Marks, ProbeError> {
        let words = array.info()?.max_entries() as usize;
        let map = MmapOptions::new().len(words * size_of::<u64>()).map_raw(array.fd().as_fd().as_raw_fd());
        map.map(Marks).map_err(|error: io::Error| ProbeError::Recorder(error))
    }

    /// Marks process `tgid`; called before the process enters the table of watched processes.
    pub(super) fn set(&self, tgid: u32) {
        if let Some((word, bit)) = self.word(tgid) {
            word.fetch_or(bit, Ordering::SeqCst);
        }
    }

    /// Unmarks process `tgid`; called after the process has left the table of watched processes.
    pub(super) fn clear(&self, tgid: u32) {
        if let Some((word, bit)) = self.word(tgid) {
            word.fetch_and(!bit, Ordering::SeqCst);
        }
    }

    /// Returns the word and bit of `tgid`; `None` beyond the bitmap, which has one word if nothing is
    /// recorded.
    fn word(&self, tgid: u32) -> Option<(&AtomicU64, u64)> {
        let at = tgid as usize / 64;
        // SAFETY: the index is below the number of words mapped, which stay mapped for as long as self lives;
        // the kernel changes them atomically, too.
        let word = (at < self.0.len() / size_of::<u64>())
            .then(|| unsafe { AtomicU64::from_ptr(self.0.as_mut_ptr().cast::<u64>().add(at)) });
        Some((word?, 1 << (tgid % 64)))
    }
}

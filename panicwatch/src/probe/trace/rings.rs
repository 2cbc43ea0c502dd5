//! Memory-mapped rings of `trace`: the eBPF programs write, user space drains. See
//! `panicwatch_common::trace`.

use std::{
    io,
    os::fd::RawFd,
    sync::atomic::{Ordering, fence},
};

use memmap2::{MmapOptions, MmapRaw};
use panicwatch_common::trace::{Head, Hit, Slot};

use crate::probe::rings;

/// The rings of all CPUs. Only one reader at a time.
pub struct TraceRings {
    cpus: u32,
    /// Slots per CPU, a power of two.
    slots: u32,
    heads: MmapRaw,
    records: MmapRaw,
}

/// Result of draining a CPU's ring once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Looked {
    /// Number of records drained.
    pub taken: u64,
    /// Time of the earliest complete record after one that is still being written.
    pub behind_ns: Option<u64>,
}

impl TraceRings {
    /// Maps both arrays.
    pub(super) fn map(cpus: u32, slots: u32, heads: RawFd, records: RawFd) -> io::Result<TraceRings> {
        let map = |fd: RawFd, len: usize| MmapOptions::new().len(len).map_raw(fd);
        Ok(TraceRings {
            cpus,
            slots,
            heads: map(heads, cpus as usize * size_of::<Head>())?,
            records: map(records, cpus as usize * slots as usize * size_of::<Slot>())?,
        })
    }

    /// Returns the number of CPUs that have a ring.
    pub fn cpus(&self) -> u32 {
        self.cpus
    }

    /// Returns the number of records that a ring holds.
    pub fn slots(&self) -> u64 {
        self.slots.into()
    }

    /// Drains the ring of `cpu`, in order, up to a record that is still being written.
    pub fn take(&mut self, cpu: u32, mut each: impl FnMut(Hit)) -> Looked {
        let head = self.head(cpu);
        // SAFETY: both words are in the mapping; the first is written by the eBPF programs, the second only
        // by us.
        let (begun, taken) = unsafe {
            ((&raw const (*head).begun).read_volatile(), (&raw const (*head).taken).read_volatile())
        };
        fence(Ordering::Acquire);
        let mut n = taken;
        while n < begun
            && let Some(slot) = self.slot(cpu, n)
        {
            each(slot.hit);
            n += 1;
        }
        let behind_ns = (n..begun).filter_map(|n| self.slot(cpu, n)).map(|slot| slot.hit.time_ns).min();
        // The slots that were copied may be overwritten from here on.
        fence(Ordering::Release);
        // SAFETY: the word is in the mapping and only we write it.
        unsafe { (&raw mut (*head).taken).write_volatile(n) };
        Looked { taken: n - taken, behind_ns }
    }

    fn head(&self, cpu: u32) -> *mut Head {
        assert!(cpu < self.cpus);
        // SAFETY: the index is below the number of heads mapped.
        unsafe { self.heads.as_mut_ptr().cast::<Head>().add(cpu as usize) }
    }

    fn slot(&self, cpu: u32, n: u64) -> Option<Slot> {
        let at = u64::from(cpu) * self.slots() + n % self.slots();
        // SAFETY: `head` has checked the CPU, so the index is below the number of records mapped.
        rings::copy(unsafe { self.records.as_ptr().cast::<Slot>().add(at as usize) }, n)
    }
}

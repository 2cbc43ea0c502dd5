//! Memory-mapped rings of the flight recorder: the kernel writes, we read without system calls. See
//! `panicwatch_common::recorder`.

use std::{
    io,
    mem::MaybeUninit,
    os::fd::RawFd,
    sync::atomic::{Ordering, fence},
};

use memmap2::{MmapOptions, MmapRaw};
use panicwatch_common::recorder::{Head, Sample, Slot};

use super::error::ProbeError;
use crate::recorder::{Options, cost::Counters, history::Rings};

/// Sizes of the recorder's rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingSizes {
    /// Number of CPUs that have a ring.
    pub cpus: u32,
    /// Slots per CPU, a power of two.
    pub slots: u32,
    /// Samples per CPU, a power of two.
    pub samples: u32,
}

/// Environment variable: slots per CPU, a power of two, instead of the number that the window needs.
const FORCED_SLOTS: &str = "PANICWATCH_RECORDER_SLOTS";

/// Returns how many CPUs get a ring: up to the highest one online. Virtual machines announce hundreds more as
/// possible, and a ring takes a megabyte; records of a CPU that comes online later are counted as lost.
pub(super) fn cpus() -> Result<u32, ProbeError> {
    let online = aya::util::online_cpus().map_err(|(_, error)| ProbeError::Recorder(error))?;
    Ok(online.into_iter().max().map_or(1, |last| last + 1))
}

impl RingSizes {
    /// Returns the sizes that `options` require on this machine.
    pub fn of(options: &Options) -> Result<RingSizes, ProbeError> {
        let cpus = cpus()?;
        let forced = std::env::var(FORCED_SLOTS).ok().and_then(|slots| slots.parse::<u32>().ok());
        let slots = forced.filter(|slots| slots.is_power_of_two()).unwrap_or_else(|| options.slots());
        Ok(RingSizes { cpus, slots, samples: options.samples() })
    }
}

/// The memory-mapped rings of all CPUs.
pub struct MappedRings {
    sizes: RingSizes,
    heads: MmapRaw,
    slots: MmapRaw,
    samples: MmapRaw,
}

impl MappedRings {
    /// Maps the three arrays, given by their descriptors.
    pub(super) fn map(
        sizes: RingSizes,
        heads: RawFd,
        slots: RawFd,
        samples: RawFd,
    ) -> io::Result<MappedRings> {
        let cpus = sizes.cpus as usize;
        let map = |fd: RawFd, len: usize| MmapOptions::new().len(len).map_raw_read_only(fd);
        Ok(MappedRings {
            sizes,
            heads: map(heads, cpus * size_of::<Head>())?,
            slots: map(slots, cpus * sizes.slots as usize * size_of::<Slot>())?,
            samples: map(samples, cpus * sizes.samples as usize * size_of::<Sample>())?,
        })
    }

    /// Returns the counters by kind of record, summed over all CPUs.
    pub fn counters(&self) -> Counters {
        let mut all = Counters::default();
        for cpu in 0..self.sizes.cpus {
            let head = self.head(cpu);
            // SAFETY: the tables are inside a mapped head, and any bytes are valid values.
            let (hits, timed, timed_ns) = unsafe {
                (
                    (&raw const (*head).hits).read_volatile(),
                    (&raw const (*head).timed).read_volatile(),
                    (&raw const (*head).timed_ns).read_volatile(),
                )
            };
            add(&mut all.hits, &hits);
            all.timed.iter_mut().zip(&timed).for_each(|(all, one)| add(all, one));
            all.timed_ns.iter_mut().zip(&timed_ns).for_each(|(all, one)| add(all, one));
        }
        all
    }

    /// Returns the CPU time that watched threads have used up to `now_ns`, as counted by the program at
    /// sched_switch.
    pub fn watched_cpu_ns(&self, now_ns: u64) -> u64 {
        // Both fields are read again if a watched thread was switched in or out in between.
        const TRIES: u32 = 8;
        let of = |cpu| {
            let head = self.head(cpu);
            // SAFETY: the head is mapped.
            let since = || unsafe { (&raw const (*head).watched_since_ns).read_volatile() };
            // SAFETY: the head is mapped.
            let ended = || unsafe { (&raw const (*head).watched_ns).read_volatile() };
            let mut read = (since(), ended());
            for _ in 0..TRIES {
                if since() == read.0 {
                    break;
                }
                read = (since(), ended());
            }
            let (since, ended) = read;
            ended + if since == 0 { 0 } else { now_ns.saturating_sub(since) }
        };
        (0..self.sizes.cpus).map(of).sum()
    }

    /// Returns the head of a ring. Callers read as little of it as possible: the programs on that CPU must
    /// fetch each cache line again that is read here.
    fn head(&self, cpu: u32) -> *const Head {
        assert!(cpu < self.sizes.cpus);
        // SAFETY: the index is below the number of elements mapped.
        unsafe { self.heads.as_ptr().cast::<Head>().add(cpu as usize) }
    }
}

fn add(all: &mut [u64], one: &[u64]) {
    all.iter_mut().zip(one).for_each(|(all, one)| *all += one);
}

/// Copies a record that another CPU may be writing; `None` unless it is record number `n`, complete.
pub(super) fn copy<T: Copy>(at: *const T, n: u64) -> Option<T> {
    // SAFETY: the caller passes the address of a mapped record, whose first word is `seq`.
    let seq = || unsafe { at.cast::<u64>().read_volatile() };
    if seq() != n + 1 {
        return None;
    }
    fence(Ordering::Acquire);
    let mut copy = MaybeUninit::<T>::uninit();
    for i in 0..size_of::<T>() / 8 {
        // SAFETY: records consist of 64-bit words; source and target have the same number of them.
        unsafe { copy.as_mut_ptr().cast::<u64>().add(i).write(at.cast::<u64>().add(i).read_volatile()) };
    }
    fence(Ordering::Acquire);
    // SAFETY: every byte was written, and any bytes are a valid record.
    (seq() == n + 1).then(|| unsafe { copy.assume_init() })
}

impl Rings for MappedRings {
    fn cpus(&self) -> u32 {
        self.sizes.cpus
    }

    fn slots_begun(&self, cpu: u32) -> u64 {
        // SAFETY: the head is mapped.
        unsafe { (&raw const (*self.head(cpu)).slots).read_volatile() }
    }

    fn samples_begun(&self, cpu: u32) -> u64 {
        // SAFETY: the head is mapped.
        unsafe { (&raw const (*self.head(cpu)).samples).read_volatile() }
    }

    fn slots(&self) -> u64 {
        self.sizes.slots.into()
    }

    fn samples(&self) -> u64 {
        self.sizes.samples.into()
    }

    fn slot(&self, cpu: u32, n: u64) -> Option<Slot> {
        assert!(cpu < self.sizes.cpus);
        let at = u64::from(cpu) * self.slots() + n % self.slots();
        // SAFETY: the index is below the number of elements mapped.
        copy(unsafe { self.slots.as_ptr().cast::<Slot>().add(at as usize) }, n)
    }

    fn sample(&self, cpu: u32, n: u64) -> Option<Sample> {
        assert!(cpu < self.sizes.cpus);
        let at = u64::from(cpu) * self.samples() + n % self.samples();
        // SAFETY: the index is below the number of elements mapped.
        copy(unsafe { self.samples.as_ptr().cast::<Sample>().add(at as usize) }, n)
    }
}

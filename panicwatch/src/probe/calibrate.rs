//! What one hit of each of the recorder's probes costs on this machine, measured on code of our own.
//!
//! The same short loops (a system call, two threads that wake each other, fresh pages, a signal, a function under a
//! probe) are timed before the recorder's probes are there, and with them; what the difference is per record is the
//! price, in CPU time, for others may be at work. The best of a few tries counts: whatever disturbs makes them longer. What samples cost is counted where they are
//! taken; only the interrupts of clocks of our own have a price.

use std::{
    fs::File,
    hint::black_box,
    io::{PipeReader, PipeWriter, Read as _, Write as _},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use panicwatch_common::{
    binary::{Binary, MAX_BINARIES},
    recorder::{KINDS, kind},
};

use super::{
    attach,
    error::ProbeError,
    object::Programs,
    own::{Own, OwnSite, TRIES},
    plan::{Price, ProbePlan, Site},
    rings::MappedRings,
};
use crate::{
    clock::Clock,
    recorder::{Source, budget::Prices},
};

/// The row of our own code; never a watched binary's.
pub(super) const OWN_ROW: u32 = MAX_BINARIES - 1;
/// A price that the clock could not tell from nothing.
const LEAST_NS: f64 = 20.0;

/// A loop that causes records of some kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Load {
    Syscalls,
    Switches,
    Faults,
    Signals,
    Calls,
    Spin,
}

const LOADS: [Load; 6] =
    [Load::Syscalls, Load::Switches, Load::Faults, Load::Signals, Load::Calls, Load::Spin];
/// Before each try with probes: our records go into the rings, where those of the watched programs are, and a try makes up to
/// some two thousand; without a pause they would fill one.
const PAUSE: Duration = Duration::from_millis(10);
/// Samples a second of each CPU while they are measured.
const FAST: u32 = 20_000;

/// How long the loops take without probes.
#[derive(Debug, Clone, Copy)]
pub struct Baseline([Duration; LOADS.len()]);

impl Baseline {
    /// Runs them: some milliseconds. No probe of the recorder may be attached.
    pub fn measure() -> Baseline {
        Baseline(LOADS.map(|load| best(load, Duration::ZERO)))
    }
}

fn best(load: Load, pause: Duration) -> Duration {
    let once = |_| {
        thread::sleep(pause);
        load.time()
    };
    (0..TRIES).map(once).min().unwrap_or_default()
}

impl Load {
    fn time(self) -> Duration {
        let start = Clock::thread_cpu_ns();
        match self {
            Load::Syscalls => (0..1000).for_each(|_| {
                // SAFETY: takes and changes nothing.
                unsafe { libc::syscall(libc::SYS_getppid) };
            }),
            Load::Switches => return on_one_cpu(|| wake_each_other(100)),
            Load::Faults => touch_pages(128),
            Load::Signals => (0..200).for_each(|_| {
                // SAFETY: SIGURG is ignored by default, and nothing here handles it.
                unsafe { libc::raise(libc::SIGURG) };
            }),
            Load::Calls => Own::Emulated.call(500),
            Load::Spin => return spin(),
        }
        Duration::from_nanos(Clock::thread_cpu_ns() - start)
    }

    /// The kinds whose price it tells, and those that cost the same.
    fn kinds(self) -> &'static [u32] {
        match self {
            Load::Syscalls => &[kind::SYSCALL_ENTER, kind::SYSCALL_EXIT],
            Load::Switches => &[kind::SWITCH_OUT, kind::SWITCH_IN, kind::WAKING, kind::MIGRATE],
            Load::Faults => &[kind::PAGE_FAULT],
            Load::Signals => &[kind::SIGNAL_SENT, kind::SIGNAL_DELIVERED],
            Load::Spin => &[kind::SAMPLE],
            Load::Calls => &[
                kind::GO_PARK,
                kind::GO_READY,
                kind::GO_RUN,
                kind::GO_YIELD,
                kind::GO_CREATE,
                kind::GO_END,
                kind::GC_START,
                kind::GC_MARK_DONE,
                kind::GC_WORKER,
                kind::GC_ASSIST,
                kind::STW_BEGIN,
                kind::STW_END,
                kind::FUNCTION,
            ],
        }
    }
}

/// Runs `f` with this thread, and those it starts, on the CPU that it is on: how long an idle CPU takes to wake up varies by
/// more than a record costs.
fn on_one_cpu<T>(f: impl FnOnce() -> T) -> T {
    const BYTES: usize = size_of::<libc::cpu_set_t>();
    // SAFETY: all zeroes is a set without CPUs.
    let mut before = unsafe { std::mem::zeroed::<libc::cpu_set_t>() };
    let mut one = before;
    // SAFETY: the set is as long as is said.
    let known = unsafe { libc::sched_getaffinity(0, BYTES, &raw mut before) } == 0;
    // SAFETY: takes nothing.
    let cpu = usize::try_from(unsafe { libc::sched_getcpu() }).ok();
    let Some(cpu) = cpu.filter(|cpu| known && *cpu < BYTES * 8) else { return f() };
    // SAFETY: the CPU is within the set, which is as long as is said.
    unsafe {
        libc::CPU_SET(cpu, &mut one);
        libc::sched_setaffinity(0, BYTES, &raw const one);
    }
    let result = f();
    // SAFETY: as above.
    unsafe { libc::sched_setaffinity(0, BYTES, &raw const before) };
    result
}

/// CPU time of two threads that wake each other in turn. Starting them is not in it: that varies by as much as all the
/// records cost. Not many rounds: their records take the place of others in the ring. Nothing, when there are no pipes.
fn wake_each_other(rounds: usize) -> Duration {
    let (Ok((pinged, ping)), Ok((ponged, pong))) = (std::io::pipe(), std::io::pipe()) else {
        return Duration::ZERO;
    };
    let turns = move |mut from: PipeReader, mut to: PipeWriter, begins: bool| {
        let mut byte = [0];
        let mut start = 0;
        for turn in 0..=rounds {
            if (begins || from.read_exact(&mut byte).is_ok())
                && to.write_all(&byte).is_ok()
                && (!begins || from.read_exact(&mut byte).is_ok())
                && turn == 0
            {
                start = Clock::thread_cpu_ns();
            }
        }
        Clock::thread_cpu_ns() - start
    };
    let other = thread::spawn(move || turns(pinged, pong, false));
    let own = turns(ponged, ping, true);
    Duration::from_nanos(own + other.join().unwrap_or(0))
}

/// An interrupt's time is nobody's CPU time on some kernels, hence the clock on the wall.
fn spin() -> Duration {
    let start = Instant::now();
    (0..2_000_000_u64).for_each(|i| {
        black_box(i);
    });
    start.elapsed()
}

fn touch_pages(pages: usize) {
    if let Ok(mut fresh) = memmap2::MmapMut::map_anon(pages * 4096) {
        fresh.chunks_mut(4096).for_each(|page| page[0] = 1);
    }
}

/// The programs, which others use too: nobody is kept waiting while a loop runs.
pub trait Shared {
    /// Runs `f` on them.
    fn with<R>(&self, f: impl FnOnce(&mut Programs) -> R) -> R;
}

/// The prices of the sources that are attached, compared with `baseline`. Watches our own process meanwhile: nobody else
/// may do so.
///
/// # Errors
/// When the kernel refuses.
pub fn prices(
    programs: &impl Shared,
    baseline: &Baseline,
    sources: &[Source],
    rings: &MappedRings,
) -> Result<Prices, ProbeError> {
    let us = std::process::id();
    programs.with(|programs| {
        programs.set_binary(OWN_ROW, Binary { tls_g: 16, ..Binary::default() })?;
        programs.watch(us, Some(OWN_ROW))
    })?;
    let measured = measure(programs, baseline, sources, rings);
    programs.with(|programs| programs.unwatch(us))?;
    measured
}

fn measure(
    programs: &impl Shared,
    baseline: &Baseline,
    sources: &[Source],
    rings: &MappedRings,
) -> Result<Prices, ProbeError> {
    let mut prices = Prices::zero();
    // Nanoseconds, as they are counted.
    prices.0[kind::SAMPLE_NS as usize] = 1.0;
    for (load, before) in LOADS.into_iter().zip(baseline.0) {
        let wanted = |one: &Source| match load {
            Load::Calls => one.is_in_program(),
            // Those in ticks are timed where they are taken.
            Load::Spin => *one == Source::Sample && programs.with(|programs| !programs.samples_in_ticks()),
            _ => false,
        };
        let wanted = sources.iter().any(wanted);
        let probe =
            (wanted && load == Load::Calls).then(|| programs.with(Programs::probe_ourselves)).transpose()?;
        let clocks = (wanted && load == Load::Spin)
            .then(|| programs.with(|programs| programs.start_clocks(FAST)))
            .transpose()?;
        let hits_before = rings.hits();
        let with = best(load, PAUSE);
        let hits = rings.hits();
        drop((probe, clocks));
        let each = |kind: u32| (hits[kind as usize] - hits_before[kind as usize]) as f64 / f64::from(TRIES);
        let (mut records, mut cost) = (0.0, with.saturating_sub(before).as_nanos() as f64);
        for kind in 0..KINDS {
            if load.kinds().contains(&kind) {
                records += each(kind);
            } else {
                cost -= each(kind) * prices.0[kind as usize];
            }
        }
        if records > 0.0 {
            let price = (cost / records).max(LEAST_NS);
            load.kinds().iter().for_each(|kind| prices.0[*kind as usize] = price);
        }
    }
    Ok(prices)
}

impl Programs {
    /// The recorder's probe for parking goroutines, in a function of ours.
    fn probe_ourselves(&mut self) -> Result<attach::Attached, ProbeError> {
        let OwnSite { address, file_offset, bytes } = Own::Emulated.site()?;
        let site = Site {
            name: "calibration",
            program: "park",
            symbol: "emulated".to_owned(),
            address,
            offset: 0,
            file_offset,
            bytes,
            instruction: "nop".to_owned(),
            price: Price::Emulated,
            flags: 0,
            why: "what a hit costs",
        };
        let plan = ProbePlan { sites: vec![site], ..ProbePlan::default() };
        let us = Path::new("/proc/self/exe");
        let file = File::open(us).map_err(ProbeError::Recorder)?;
        attach::attach_row(self, &plan, &file, us, OWN_ROW)
    }
}

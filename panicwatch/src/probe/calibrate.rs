//! Measures the two costs that eBPF programs cannot time themselves: the uprobe trap and the sampling
//! interrupt.
//!
//! A short loop in this process is timed with and without the probe; the difference divided by the number of
//! records is the cost of one. The fastest of several tries counts, because any disturbance makes a try
//! slower.

use std::{
    fs::File,
    hint::black_box,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use panicwatch_common::{
    binary::{Binary, MAX_BINARIES},
    recorder::{kind, payer},
};

use super::{
    attach,
    error::ProbeError,
    object::Programs,
    own::{Own, OwnSite, TRIES},
    rings::MappedRings,
};
use crate::{
    plan::{Price, ProbePlan, Site},
    recorder::{Source, cost::Prices},
};

/// Row of our own code in the `BINARIES` map; never used for a watched binary.
pub(super) const OWN_ROW: u32 = MAX_BINARIES - 1;
/// Lowest cost reported, for differences that are too small to measure.
const LEAST_NS: f64 = 20.0;
/// Pause before each try with probes: the tries write records into the rings that watched programs use, and
/// without a pause they would fill one.
const PAUSE: Duration = Duration::from_millis(10);
/// Calls per try.
const CALLS: u32 = 500;
/// Sampling frequency during the measurement, samples per second on each CPU.
const FAST: u32 = 20_000;

/// Kinds of records that cost as much as a probed call.
const IN_PROGRAM: [u32; 13] = [
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
];

/// Shared access to the eBPF programs, which are not locked while a measuring loop runs.
pub trait Shared {
    /// Runs `f` on the programs.
    fn with<R>(&self, f: impl FnOnce(&mut Programs) -> R) -> R;
}

/// Measures the costs of the records of `sources`. Watches this process during the measurement: no other code
/// may watch it then.
///
/// # Errors
/// Fails if a map cannot be updated or a probe cannot be attached.
pub fn prices(programs: &impl Shared, sources: &[Source], rings: &MappedRings) -> Result<Prices, ProbeError> {
    let us = std::process::id();
    programs.with(|programs| {
        programs.set_binary(OWN_ROW, Binary { tls_g: 16, ..Binary::default() })?;
        programs.watch(us, Some(OWN_ROW))
    })?;
    let measured = measure(programs, sources, rings);
    programs.with(|programs| programs.unwatch(us))?;
    measured
}

fn measure(programs: &impl Shared, sources: &[Source], rings: &MappedRings) -> Result<Prices, ProbeError> {
    let mut prices = Prices::zero();
    if sources.iter().any(|source| source.is_in_program()) {
        let each = a_call(programs)?;
        IN_PROGRAM.iter().for_each(|kind| prices.0[*kind as usize] = each);
    }
    // Samples taken in the scheduler tick cause no interrupt of their own.
    if sources.contains(&Source::Sample) && programs.with(|programs| !programs.samples_in_ticks()) {
        prices.0[kind::SAMPLE as usize] = an_interrupt(programs, rings)?;
    }
    Ok(prices)
}

/// Returns the cost of a call with one of the recorder's probes, in nanoseconds.
fn a_call(programs: &impl Shared) -> Result<f64, ProbeError> {
    let without = Own::Emulated.time(CALLS, Duration::ZERO);
    let probe = programs.with(Programs::probe_ourselves)?;
    let with = Own::Emulated.time(CALLS, PAUSE);
    drop(probe);
    Ok((with.saturating_sub(without).as_nanos() as f64 / f64::from(CALLS)).max(LEAST_NS))
}

/// Returns the cost of the sampling interrupt without the eBPF program that runs in it, in nanoseconds.
fn an_interrupt(programs: &impl Shared, rings: &MappedRings) -> Result<f64, ProbeError> {
    let samples = || {
        let counters = rings.counters();
        (counters.hits[kind::SAMPLE as usize], counters.timed_ns[payer::TARGET][kind::SAMPLE as usize])
    };
    let without = spin(Duration::ZERO);
    let clocks = programs.with(|programs| programs.start_clocks(FAST))?;
    let (hits_before, ns_before) = samples();
    let with = spin(PAUSE);
    let (hits, ns) = samples();
    drop(clocks);
    // Samples of all tries; the fastest try has its share of them.
    let taken = hits.saturating_sub(hits_before) as f64 / f64::from(TRIES);
    let inside = ns.saturating_sub(ns_before) as f64 / f64::from(TRIES);
    if taken == 0.0 {
        return Ok(0.0);
    }
    Ok(((with.saturating_sub(without).as_nanos() as f64 - inside) / taken).max(LEAST_NS))
}

/// Returns the wall time of the fastest run of a loop; some kernels charge interrupt time to no thread's CPU
/// time.
fn spin(pause: Duration) -> Duration {
    let once = |_| {
        thread::sleep(pause);
        let start = Instant::now();
        (0..2_000_000_u64).for_each(|i| {
            black_box(i);
        });
        start.elapsed()
    };
    (0..TRIES).map(once).min().unwrap_or_default()
}

impl Programs {
    /// Attaches the recorder's probe for parking goroutines to a function of this program.
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
        let attached = attach::attach_row(self, &[plan], &file, us, OWN_ROW)?;
        attached.into_iter().next().ok_or(ProbeError::Object("the probe of our own code"))
    }
}

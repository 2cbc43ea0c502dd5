//! What a hit costs on this machine, of that which the programs in the kernel cannot time themselves: the trap of a probe in a
//! program, and the interrupt of a sampling clock.
//!
//! A short loop of our own is timed without and with the probe; what the difference is per record is the price. The best of a
//! few tries counts: whatever disturbs makes them longer.

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

/// The row of our own code; never a watched binary's.
pub(super) const OWN_ROW: u32 = MAX_BINARIES - 1;
/// A price that the clock could not tell from nothing.
const LEAST_NS: f64 = 20.0;
/// Before each try with probes: our records go into the rings, where those of the watched programs are, and without a pause
/// they would fill one.
const PAUSE: Duration = Duration::from_millis(10);
/// Calls of a try.
const CALLS: u32 = 500;
/// Samples a second of each CPU while they are measured.
const FAST: u32 = 20_000;

/// Records that cost what a call costs.
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

/// The programs, which others use too: nobody is kept waiting while a loop runs.
pub trait Shared {
    /// Runs `f` on them.
    fn with<R>(&self, f: impl FnOnce(&mut Programs) -> R) -> R;
}

/// The prices of what `sources` have. Watches our own process meanwhile: nobody else may do so.
///
/// # Errors
/// When the kernel refuses.
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
    // Samples in ticks have no interrupt of their own.
    if sources.contains(&Source::Sample) && programs.with(|programs| !programs.samples_in_ticks()) {
        prices.0[kind::SAMPLE as usize] = an_interrupt(programs, rings)?;
    }
    Ok(prices)
}

/// A call under a probe of the recorder's, nanoseconds.
fn a_call(programs: &impl Shared) -> Result<f64, ProbeError> {
    let without = Own::Emulated.time(CALLS, Duration::ZERO);
    let probe = programs.with(Programs::probe_ourselves)?;
    let with = Own::Emulated.time(CALLS, PAUSE);
    drop(probe);
    Ok((with.saturating_sub(without).as_nanos() as f64 / f64::from(CALLS)).max(LEAST_NS))
}

/// The interrupt of a sampling clock, without what is done in it, nanoseconds.
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
    // Those of all tries, of which the best one has its part.
    let taken = hits.saturating_sub(hits_before) as f64 / f64::from(TRIES);
    let inside = ns.saturating_sub(ns_before) as f64 / f64::from(TRIES);
    if taken == 0.0 {
        return Ok(0.0);
    }
    Ok(((with.saturating_sub(without).as_nanos() as f64 - inside) / taken).max(LEAST_NS))
}

/// How long a loop takes at best, by the clock on the wall: an interrupt's time is nobody's CPU time on some kernels.
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

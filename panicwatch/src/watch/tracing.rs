//! A session of function tracing: attaches probes to one binary, drains the rings until a stop is requested,
//! and reads the counters.
//!
//! Leaner than [`session`](super::session): it arms no other binaries and detects no incidents. Does not
//! interpret the records.

use std::{
    fs::File,
    path::Path,
    time::{Duration, Instant},
};

use panicwatch_common::trace::{Counts, FetchList, Hit, MAX_FUNCTIONS, NO_OFFSET, TraceConfig};

use super::reader::{self, Stop};
use crate::{
    clock,
    gobin::GoBinary,
    plan::trace::{TracePlan, TraceSite, Wanted, trace_plan},
    probe::{
        attach::binary_row,
        error::ProbeError,
        links,
        trace::{GONE, HitPrices, RECOVERY, Source, TraceNeeds, TraceProbes, TracePrograms, TraceRings},
    },
    trace::merge::Merge,
};

/// Which processes and goroutines are traced.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whom {
    /// Traces this process; others can be added with [`Tracing::watch`].
    pub pid: Option<u32>,
    /// Traces every process of the binary.
    pub all: bool,
    /// Traces only this goroutine.
    pub goroutine: Option<u64>,
}

/// What to read of each call.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// Reads nothing: calls are only counted.
    pub count_only: bool,
    /// Reads the callers.
    pub stack: bool,
    /// What to read at the entry of each function.
    pub entries: Option<Vec<FetchList>>,
    /// What to read at the exits of each function.
    pub exits: Option<Vec<FetchList>>,
}

/// A tracing session; dropping it detaches the probes.
pub struct Tracing {
    programs: TracePrograms,
    probes: Option<TraceProbes>,
    source: Option<Source>,
    config: TraceConfig,
    functions: usize,
    /// Sites of the runtime functions that unwind or end goroutines.
    unwinding: Vec<(&'static str, TraceSite)>,
    prices: HitPrices,
}

impl Tracing {
    /// Loads the eBPF programs. With `exits`, returns and unwinding are traced, too.
    ///
    /// # Errors
    /// Fails if there are too many functions or the kernel rejects a program or map.
    pub fn load(
        bin: &GoBinary,
        plan: &TracePlan,
        exits: bool,
        whom: Whom,
        reads: &Reads,
        buffer: u32,
    ) -> Result<Tracing, ProbeError> {
        let functions = u32::try_from(plan.functions.len()).unwrap_or(u32::MAX);
        if functions >= MAX_FUNCTIONS - 2 {
            return Err(ProbeError::TooManyFunctions(MAX_FUNCTIONS - 2));
        }
        let needs = TraceNeeds {
            buffer,
            // Plus the two functions of `unwinding`.
            functions: functions + 2,
            // Full entries carry the load bias, which is needed to decode results, too.
            full_entries: reads.stack || reads.entries.is_some() || reads.exits.is_some(),
            exits,
            full_exits: reads.exits.is_some(),
        };
        links::holder().map_err(ProbeError::Helper)?;
        let mut programs = TracePrograms::load(&needs)?;
        let mut source = programs.take_source()?;
        let config = config(bin, whom, reads)?;
        programs.configure(config)?;
        let prices = programs.measure(config, &mut source)?;
        for (at_exit, lists) in [(false, &reads.entries), (true, &reads.exits)] {
            for (function, list) in (0..).zip(lists.iter().flatten()) {
                programs.set_fetch(function, at_exit, *list)?;
            }
        }
        let unwinding = if exits { unwinding(bin, functions) } else { Vec::new() };
        let functions = plan.functions.len();
        Ok(Tracing { programs, unwinding, probes: None, source: Some(source), config, functions, prices })
    }

    /// Returns the cost of a hit on this machine.
    pub fn prices(&self) -> HitPrices {
        self.prices
    }

    /// Attaches the probes of `plan` to `file`, the binary that it was made for.
    ///
    /// # Errors
    /// Fails if the file has changed or the kernel rejects a probe.
    pub fn attach(&mut self, plan: &TracePlan, (file, name): (&File, &Path)) -> Result<(), ProbeError> {
        self.probes = Some(self.programs.attach(plan, &self.unwinding, file, name)?);
        Ok(())
    }

    /// Traces process `pid`, too, and its future descendants that execute the same binary.
    ///
    /// # Errors
    /// Fails if the table of watched processes is full.
    pub fn watch(&mut self, pid: u32) -> Result<(), ProbeError> {
        self.programs.watch(pid)
    }

    /// Removes process `pid` from the table of watched processes; its descendants stay.
    ///
    /// # Errors
    /// Fails if the process was not in the table.
    pub fn unwatch(&mut self, pid: u32) -> Result<(), ProbeError> {
        self.programs.unwatch(pid)
    }

    /// Makes the hits of process `pid` cheaper; to be called for the process with most hits.
    ///
    /// # Errors
    /// Fails if the map cannot be updated.
    pub fn prefer(&mut self, pid: u32) -> Result<(), ProbeError> {
        self.config.tgid = pid;
        self.programs.configure(self.config)
    }

    /// Returns the functions, by index, that have a site without a probe, each with the reason.
    pub fn refused(&self) -> &[(u32, String)] {
        self.probes.as_ref().map_or(&[], TraceProbes::refused)
    }

    /// Returns the counters of each function so far.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn counts(&mut self) -> Result<Vec<Counts>, ProbeError> {
        let mut counts = self.programs.counts()?;
        // Drops the counters of the unwinding sites.
        counts.truncate(self.functions);
        Ok(counts)
    }

    /// Detaches the probes of `functions`.
    ///
    /// # Errors
    /// Fails if the kernel does not attach the remaining functions again.
    pub fn detach(&mut self, functions: &[u32]) -> Result<(), ProbeError> {
        match &mut self.probes {
            Some(probes) => probes.detach(&mut self.programs, functions),
            None => Ok(()),
        }
    }

    /// Drains records until `stop` is requested; then detaches the probes and drains the rest. `each` is
    /// called with every record, and with `None` whenever the rings are empty; it has access to this session.
    pub fn run(&mut self, stop: &Stop, each: &mut dyn FnMut(&mut Tracing, Option<&[u8]>)) {
        // After detaching, no eBPF program is still running: detaching waits for them.
        match self.source.take() {
            None => return,
            Some(Source::Rings(rings)) => self.run_rings(rings, stop, each),
            Some(Source::Ring(mut ring)) => {
                reader::read(&mut ring, stop, |record| {
                    each(self, record);
                    true
                });
                self.probes = None;
                while let Some(record) = ring.next() {
                    each(self, Some(&record));
                }
            }
        }
        each(self, None);
    }

    fn run_rings(
        &mut self,
        rings: TraceRings,
        stop: &Stop,
        each: &mut dyn FnMut(&mut Tracing, Option<&[u8]>),
    ) {
        let mut reading = Reading { rings, merge: Merge::default() };
        let mut pace = LONGEST_PACE;
        loop {
            let (began, stopping) = (Instant::now(), stop.wait(pace));
            let fullest = reading.round(|record| each(self, Some(record)));
            pace = pace_for(fullest, reading.rings.slots(), began.elapsed());
            each(self, None);
            if stopping {
                break;
            }
        }
        self.probes = None;
        reading.look();
        reading.merge.drain(u64::MAX, |hit| each(self, Some(hit.as_bytes())));
    }
}

/// Longest pause between two rounds, used when there are few records.
const LONGEST_PACE: Duration = Duration::from_millis(20);
/// Tolerance for the eBPF programs' clock, the kernel's fast one, which may be off by some nanoseconds while
/// time is adjusted.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/time/timekeeping.c>
const CLOCK_SLACK_NS: u64 = 1000;
/// Largest part of a ring that may fill between two rounds.
const PART: f64 = 0.25;

/// Returns the pause until the next round, if the fullest ring got `records` in `elapsed`.
fn pace_for(records: u64, slots: u64, elapsed: Duration) -> Duration {
    let room = slots as f64 * PART / records.max(1) as f64;
    LONGEST_PACE.min(elapsed.mul_f64(room.min(1000.0)))
}

/// State of draining the rings.
struct Reading {
    rings: TraceRings,
    merge: Merge,
}

impl Reading {
    /// Drains all rings once, and passes on, in order, the records up to the time of this round. Returns how
    /// many records the fullest ring had.
    fn round(&mut self, mut each: impl FnMut(&[u8])) -> u64 {
        let before = clock::monotonic_ns().saturating_sub(CLOCK_SLACK_NS);
        let (fullest, behind_ns) = self.look();
        // Records behind one that is still being written were not drained.
        let until = behind_ns.map_or(before, |behind| before.min(behind.saturating_sub(1)));
        self.merge.drain(until, |hit| each(hit.as_bytes()));
        fullest
    }

    fn look(&mut self) -> (u64, Option<u64>) {
        let (mut fullest, mut behind_ns) = (0, None);
        for cpu in 0..self.rings.cpus() {
            let looked = self.rings.take(cpu, |hit: Hit| self.merge.push(hit));
            fullest = fullest.max(looked.taken);
            behind_ns = behind_ns.into_iter().chain(looked.behind_ns).min();
        }
        (fullest, behind_ns)
    }
}

fn config(bin: &GoBinary, whom: Whom, reads: &Reads) -> Result<TraceConfig, ProbeError> {
    let row = binary_row(bin, None, whom.all).ok_or(ProbeError::UnknownLayout)?;
    let layout = bin.layout();
    Ok(TraceConfig {
        tgid: whom.pid.unwrap_or(0),
        all: row.watch_all,
        goid: whom.goroutine.unwrap_or(0),
        g_goid: row.g_goid,
        panic_sp: if layout.release.recovers_to_panic_sp() { layout.panic.sp.into() } else { NO_OFFSET },
        g_sigcode0: layout.g.sigcode0.into(),
        stack: u32::from(reads.stack),
        count_only: u32::from(reads.count_only),
        ..TraceConfig::default()
    })
}

/// Returns the sites of the runtime functions that unwind or end goroutines, as functions from index `first`
/// on. A site that cannot be placed is left out: calls whose end it would report then end silently.
fn unwinding(bin: &GoBinary, first: u32) -> Vec<(&'static str, TraceSite)> {
    let mut sites = Vec::new();
    for (program, symbol) in [(RECOVERY, "runtime.recovery"), (GONE, "runtime.goexit0")] {
        let mut plan =
            trace_plan(bin, &|func| func.name() == symbol, Wanted { exits: false, arguments: true });
        if let Some(mut site) = plan.sites.pop() {
            site.function = first + sites.len() as u32;
            sites.push((program, site));
        }
    }
    sites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_ring_is_looked_at_more_often() {
        assert_eq!(pace_for(0, 32_768, LONGEST_PACE), LONGEST_PACE);
        assert_eq!(pace_for(1000, 32_768, LONGEST_PACE), LONGEST_PACE);
        // A full ring in 20 ms: a quarter of it takes 5 ms.
        assert_eq!(pace_for(32_768, 32_768, LONGEST_PACE), LONGEST_PACE / 4);
        // Half a ring in 5 ms.
        assert_eq!(pace_for(16_384, 32_768, LONGEST_PACE / 4), Duration::from_micros(2500));
    }
}

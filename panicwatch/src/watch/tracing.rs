//! A session of function tracing: probes in one binary, the ring read until somebody asks to stop, the counts.
//!
//! Leaner than [`session`](super::session): nothing is armed on the way, no incident is looked for. Must not know what
//! the records mean.

use std::{fs::File, path::Path};

use aya::maps::{MapData, RingBuf};
use panicwatch_common::trace::{Counts, FetchList, MAX_FUNCTIONS, NO_OFFSET, TraceConfig};

use super::reader::{self, Stop};
use crate::{
    gobin::GoBinary,
    probe::{
        attach::binary_row,
        error::ProbeError,
        plan::trace::{TracePlan, TraceSite, Wanted, trace_plan},
        trace::{GONE, RECOVERY, TraceNeeds, TraceProbes, TracePrograms},
    },
};

/// Which processes and goroutines.
#[derive(Debug, Clone, Copy, Default)]
pub struct Whom {
    /// This process; others can be added with [`Tracing::watch`].
    pub pid: Option<u32>,
    /// Every process of the binary.
    pub all: bool,
    /// This goroutine only.
    pub goroutine: Option<u64>,
}

/// What to read of each call.
#[derive(Debug, Clone, Default)]
pub struct Reads {
    /// Callers.
    pub stack: bool,
    /// What to read at the entry of each function.
    pub entries: Option<Vec<FetchList>>,
    /// What to read at its exits.
    pub exits: Option<Vec<FetchList>>,
}

/// A session; dropping takes the probes off.
pub struct Tracing {
    programs: TracePrograms,
    probes: Option<TraceProbes>,
    ring: Option<RingBuf<MapData>>,
    config: TraceConfig,
    functions: usize,
}

impl Tracing {
    /// Loads the programs and puts the probes into `file`, which is `bin`. With `exits` returns and unwinding are
    /// looked at.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(
        bin: &GoBinary,
        plan: &TracePlan,
        exits: bool,
        whom: Whom,
        reads: &Reads,
        ring_bytes: u32,
        (file, name): (&File, &Path),
    ) -> Result<Tracing, ProbeError> {
        let functions = u32::try_from(plan.functions.len()).unwrap_or(u32::MAX);
        if functions >= MAX_FUNCTIONS - 2 {
            return Err(ProbeError::TooManyFunctions(MAX_FUNCTIONS - 2));
        }
        let needs = TraceNeeds {
            ring_bytes,
            // And the two that tell of unwinding.
            functions: functions + 2,
            // Where the process has the binary is told by entries: results need it too.
            full_entries: reads.stack || reads.entries.is_some() || reads.exits.is_some(),
            exits,
            full_exits: reads.exits.is_some(),
        };
        let mut programs = TracePrograms::load(&needs)?;
        let ring = programs.take_ring()?;
        let config = config(bin, whom, reads.stack)?;
        programs.configure(config)?;
        for (at_exit, lists) in [(false, &reads.entries), (true, &reads.exits)] {
            for (function, list) in (0..).zip(lists.iter().flatten()) {
                programs.set_fetch(function, at_exit, *list)?;
            }
        }
        let extra = if exits { unwinding(bin, functions) } else { Vec::new() };
        let probes = programs.attach(plan, &extra, file, name)?;
        let functions = plan.functions.len();
        Ok(Tracing { programs, probes: Some(probes), ring: Some(ring), config, functions })
    }

    /// Traces process `pid` too, and what it starts of the same binary.
    ///
    /// # Errors
    /// When the table is full.
    pub fn watch(&mut self, pid: u32) -> Result<(), ProbeError> {
        self.programs.watch(pid)
    }

    /// Takes process `pid` out of the table; what it has started stays.
    ///
    /// # Errors
    /// When it was not in it.
    pub fn unwatch(&mut self, pid: u32) -> Result<(), ProbeError> {
        self.programs.unwatch(pid)
    }

    /// Says which process most hits come from: its hits become cheaper.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn prefer(&mut self, pid: u32) -> Result<(), ProbeError> {
        self.config.tgid = pid;
        self.programs.configure(self.config)
    }

    /// Functions with a site that the kernel takes no probe on, by number.
    pub fn refused(&self) -> &[u32] {
        self.probes.as_ref().map_or(&[], TraceProbes::refused)
    }

    /// How often each function was hit so far.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counts(&mut self) -> Result<Vec<Counts>, ProbeError> {
        let mut counts = self.programs.counts()?;
        // Unwinding is nobody's call.
        counts.truncate(self.functions);
        Ok(counts)
    }

    /// Takes functions off.
    ///
    /// # Errors
    /// When the kernel refuses to take the others back.
    pub fn detach(&mut self, functions: &[u32]) -> Result<(), ProbeError> {
        match &mut self.probes {
            Some(probes) => probes.detach(&mut self.programs, functions),
            None => Ok(()),
        }
    }

    /// Reads records until `stop` is requested; then takes the probes off and reads what is left. `each` gets every
    /// record, and `None` together with this session whenever there are no more for now.
    pub fn run(&mut self, stop: &Stop, each: &mut dyn FnMut(&mut Tracing, Option<&[u8]>)) {
        let Some(mut ring) = self.ring.take() else { return };
        reader::read(&mut ring, stop, |record| {
            each(self, record);
            true
        });
        self.probes = None;
        // Whoever was hit before that has left by now: taking probes off waits for them.
        while let Some(record) = ring.next() {
            each(self, Some(&record));
        }
        each(self, None);
    }
}

fn config(bin: &GoBinary, whom: Whom, stack: bool) -> Result<TraceConfig, ProbeError> {
    let row = binary_row(bin, whom.all).ok_or(ProbeError::UnknownLayout)?;
    let layout = bin.layout();
    Ok(TraceConfig {
        tgid: whom.pid.unwrap_or(0),
        all: row.watch_all,
        goid: whom.goroutine.unwrap_or(0),
        g_goid: row.g_goid,
        // Before 1.22 recovery goes on at g.sigcode0.
        // <https://github.com/golang/go/blob/go1.21.13/src/runtime/panic.go#L1042>
        panic_sp: if layout.minor >= 22 { layout.panic.sp.into() } else { NO_OFFSET },
        g_sigcode0: layout.g.sigcode0.into(),
        stack: u32::from(stack),
    })
}

/// The sites that tell of unwinding, as functions from number `first` on. One that cannot be placed is left out: calls
/// that it would tell of are over without a word.
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

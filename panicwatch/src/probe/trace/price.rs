//! Measures the cost of a hit on this machine, on functions of our own, before tracing begins.

use std::{fs::File, path::Path, thread, time::Duration};

use panicwatch_common::trace::TraceConfig;

use super::{Source, TracePrograms, failed};
use crate::{
    plan::{
        Price,
        trace::{Tells, TracePlan, TraceSite},
    },
    probe::{
        error::ProbeError,
        own::{Own, OwnSite},
    },
};

/// Cost of a hit at an entry, nanoseconds, by how the kernel executes the probed instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HitPrices {
    /// Cost if the kernel emulates the instruction.
    pub emulated_ns: u32,
    /// Cost if the kernel single-steps the instruction.
    pub stepped_ns: u32,
}

impl HitPrices {
    /// Returns the cost of a hit at a site of class `price`.
    pub fn of(&self, price: Price) -> u32 {
        match price {
            Price::Emulated => self.emulated_ns,
            Price::Stepped => self.stepped_ns,
        }
    }
}

impl TracePrograms {
    /// Measures the cost of hits on this machine, on functions of our own. `config` is that of the session,
    /// which must not be running yet: the records in `source` are discarded.
    ///
    /// # Errors
    /// Fails if a map cannot be updated or a probe cannot be attached.
    pub fn measure(&mut self, config: TraceConfig, source: &mut Source) -> Result<HitPrices, ProbeError> {
        self.configure(TraceConfig { tgid: std::process::id(), goid: 0, ..config })?;
        let prices = self.measured();
        self.configure(config)?;
        source.throw_away();
        prices
    }

    fn measured(&mut self) -> Result<HitPrices, ProbeError> {
        const LOADS: [(Own, Price, u32); 2] =
            [(Own::Emulated, Price::Emulated, 1000), (Own::Stepped, Price::Stepped, 100)];
        let name = Path::new("/proc/self/exe");
        let file = File::open(name).map_err(|error| failed("trace", name, error))?;
        let (function, tells) = (self.functions, Tells::Entry);
        let site = |(own, price, _): (Own, Price, u32)| {
            let OwnSite { address, file_offset, bytes } = own.site()?;
            Ok(TraceSite { function, tells, address, file_offset, bytes, price, on_check: false, below: 0 })
        };
        let sites = LOADS.map(site).into_iter().collect::<Result<Vec<_>, ProbeError>>()?;
        let without = LOADS.map(|(own, _, times)| own.time(times, Duration::ZERO));
        let probes = self.attach(&TracePlan { sites, ..TracePlan::default() }, &[], &file, name)?;
        let with = LOADS.map(|(own, _, times)| own.time(times, Duration::ZERO));
        // In the background: detaching may take a second on a busy system, and these functions are not called
        // any more.
        thread::spawn(move || drop(probes));
        let each = |i: usize| {
            let ns = with[i].saturating_sub(without[i]).as_nanos() / u128::from(LOADS[i].2);
            u32::try_from(ns).unwrap_or(u32::MAX)
        };
        Ok(HitPrices { emulated_ns: each(0), stepped_ns: each(1) })
    }
}

//! What a hit costs on this machine, measured on functions of our own before tracing begins.

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

/// What a hit at an entry costs, nanoseconds, by what the kernel does with the instruction under the probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HitPrices {
    /// It emulates it.
    pub emulated_ns: u32,
    /// It steps over it.
    pub stepped_ns: u32,
}

impl HitPrices {
    /// That of a site.
    pub fn of(&self, price: Price) -> u32 {
        match price {
            Price::Emulated => self.emulated_ns,
            Price::Stepped => self.stepped_ns,
        }
    }
}

impl TracePrograms {
    /// What hits cost on this machine, measured on functions of our own. `config` is the session's, which is not to run
    /// yet: its records are thrown away.
    ///
    /// # Errors
    /// When the kernel refuses.
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
        // The kernel may take a second for that when it is busy, and nobody calls these functions any more.
        thread::spawn(move || drop(probes));
        let each = |i: usize| {
            let ns = with[i].saturating_sub(without[i]).as_nanos() / u128::from(LOADS[i].2);
            u32::try_from(ns).unwrap_or(u32::MAX)
        };
        Ok(HitPrices { emulated_ns: each(0), stepped_ns: each(1) })
    }
}

//! Keeps tracing within a share of one CPU: the most expensive functions are detached first.

use std::time::{Duration, Instant};

use crate::{
    cli::common::say,
    plan::trace::{Tells, TracePlan},
    probe::trace::HitPrices,
    watch::tracing::Tracing,
};

/// Minimum interval between checks.
const PACE: Duration = Duration::from_millis(500);

struct Function {
    name: String,
    entry_ns: u32,
    exit_ns: u32,
    entries: u64,
    exits: u64,
    off: bool,
}

pub(super) struct Budget {
    percent: u32,
    functions: Vec<Function>,
    looked: Instant,
}

impl Budget {
    pub(super) fn new(percent: u32, plan: &TracePlan, prices: HitPrices) -> Budget {
        let dearest = |number: u32, entry: bool| {
            let own = |site: &&crate::plan::trace::TraceSite| {
                site.function == number && (site.tells == Tells::Entry) == entry
            };
            plan.sites.iter().filter(own).map(|site| prices.of(site.price)).max().unwrap_or(0)
        };
        let function = |(number, name): (u32, &String)| Function {
            name: name.clone(),
            entry_ns: dearest(number, true),
            exit_ns: dearest(number, false),
            entries: 0,
            exits: 0,
            off: false,
        };
        let functions = (0..).zip(plan.functions.iter().map(|f| &f.name)).map(function).collect();
        Budget { percent, functions, looked: Instant::now() }
    }

    /// Checks the cost of the hits since the last check, and detaches functions if it exceeds the budget.
    pub(super) fn check(&mut self, tracing: &mut Tracing) {
        let elapsed = self.looked.elapsed();
        if elapsed < PACE {
            return;
        }
        self.looked = Instant::now();
        let Ok(counts) = tracing.counts() else { return };
        let mut costs = Vec::new();
        for (number, (function, now)) in (0..).zip(self.functions.iter_mut().zip(counts)) {
            let entries = (now.entries - function.entries) * u64::from(function.entry_ns);
            let exits = (now.exits - function.exits) * u64::from(function.exit_ns);
            (function.entries, function.exits) = (now.entries, now.exits);
            costs.push((entries + exits, number));
        }
        let allowed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX) / 100 * u64::from(self.percent);
        let off = over(&mut costs, allowed);
        let off: Vec<u32> = off.into_iter().filter(|number| !self.functions[*number as usize].off).collect();
        if off.is_empty() {
            return;
        }
        for &number in &off {
            let function = &mut self.functions[number as usize];
            function.off = true;
            say(&format!(
                "{} is no longer traced: with it, tracing costs more than {} % of a CPU",
                crate::escape::one_line(&function.name),
                self.percent
            ));
        }
        if let Err(error) = tracing.detach(&off) {
            say(&error.to_string());
        }
        if self.functions.iter().any(|function| !function.off) {
            say("calls of the other functions during the detach may be missing");
        }
    }
}

/// Returns the functions to detach, most expensive first, so that the cost of the others is within `allowed`
/// ns.
fn over(costs: &mut [(u64, u32)], allowed: u64) -> Vec<u32> {
    costs.sort_unstable();
    let mut total: u64 = costs.iter().map(|(cost, _)| cost).sum();
    let mut off = Vec::new();
    for (cost, number) in costs.iter().rev() {
        if total <= allowed {
            break;
        }
        total -= cost;
        off.push(*number);
    }
    off
}

#[cfg(test)]
mod tests {
    use super::over;

    #[test]
    fn the_dearest_go_first() {
        assert_eq!(over(&mut [(10, 0), (500, 1), (90, 2)], 100), [1]);
        assert_eq!(over(&mut [(10, 0), (500, 1), (95, 2)], 100), [1, 2]);
        assert_eq!(over(&mut [(10, 0)], 10), [0; 0]);
    }
}

//! What a recovered panic costs with panicwatch, beside what the probes on its way cost with nothing behind them.
//!
//! Run by `cargo xtask bench panics`. A hundred panics are measured at a time, with a rest between, so that nothing is
//! lost for want of room. Ways are taken in turns; trust the differences within a run.

#![expect(clippy::print_stdout, reason = "its figures are what a benchmark is for")]

mod load;
#[path = "load/sites.rs"]
mod sites;
#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;

use std::{path::Path, thread, time::Duration};

use load::{Attached, Figures, Load};
use sites::{Counters, Site, planned};

/// Rounds; each has every way once.
const ROUNDS: usize = 5;
/// Hundreds of panics of a way in a round.
const BURSTS: usize = 30;
/// For panicwatch to take a hundred incidents.
const REST: Duration = Duration::from_millis(40);
/// A panic may cost so much beyond the probes, nanoseconds.
const LIMIT_NS: f64 = 10_000.0;

fn main() {
    let program = match load::obstacle().map_or_else(load::program, Err) {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED all: {why}"),
    };
    let sites = planned(&program);
    let raised: Vec<Site> = sites.iter().filter(|site| site.name == "panic raised").cloned().collect();
    let mut load = Load::start(&program, "panic");
    bursts(&mut load, BURSTS);
    let mut figures = vec![Figures::default(); 5];
    let (mut hits, mut notes) = (Figures::default(), Vec::new());
    for _ in 0..ROUNDS {
        figures[0].0.push(bursts(&mut load, BURSTS));
        figures[1].0.push(counted(&mut load, &program, &raised).0);
        let (ns, each) = counted(&mut load, &program, &sites);
        figures[2].0.push(ns);
        hits.0.push(each);
        for (way, options) in [(3, &["--no-timeline"][..]), (4, &[])] {
            let attached = Attached::to(load.pid(), options);
            figures[way].0.push(bursts(&mut load, BURSTS));
            notes.extend(attached.end());
        }
    }
    let median: Vec<f64> = figures.iter().map(Figures::median).collect();
    let [bare, one, probes, captured, recorded] = median[..] else { unreachable!("five ways") };
    let (hits, price) = (hits.median(), one - bare);
    println!("a recovered panic, ns, median of {ROUNDS} rounds of {BURSTS} times a hundred (quartiles):");
    let names =
        ["without panicwatch", "one probe, counting", "every probe, counting", "--no-timeline", "default"];
    for (name, figures) in names.iter().zip(&figures) {
        println!("  {name:24} {}", figures.told());
    }
    println!("  {hits:.1} hits a panic, {price:.0} ns each: {:.0} ns for the probes alone", hits * price);
    for (name, ns) in [("--no-timeline", captured), ("default", recorded)] {
        let (derived, measured) = (ns - bare - hits * price, ns - probes);
        println!(
            "  {name}: {derived:.0} ns beyond {hits:.1} hits at {price:.0} ns, {measured:.0} ns beyond the counting probes (limit {LIMIT_NS:.0})"
        );
    }
    notes.sort();
    notes.dedup();
    notes.iter().for_each(|note| println!("  {note}"));
}

/// The median of so many hundreds, nanoseconds a panic.
fn bursts(load: &mut Load, n: usize) -> f64 {
    let one = |_| {
        thread::sleep(REST);
        load.run(0).ns
    };
    Figures((0..n).map(one).collect()).median()
}

/// The same with counting probes, and how often they were hit for each panic.
fn counted(load: &mut Load, program: &Path, sites: &[Site]) -> (f64, f64) {
    let counters = Counters::place(program, sites).expect("probes as panicwatch places them");
    let ns = bursts(load, BURSTS);
    (ns, counters.hits() as f64 / (BURSTS * 100) as f64)
}

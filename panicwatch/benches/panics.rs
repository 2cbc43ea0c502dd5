//! Measures what a recovered panic costs with panicwatch, and what its probes cost with no eBPF program
//! behind them.
//!
//! Run by `cargo xtask bench panics`. Panics are measured in bursts of a hundred with a pause between them,
//! so that no event is lost to a full ring. The ways to watch alternate within each round; trust only the
//! differences within one run.

#![expect(clippy::print_stdout, reason = "its figures are what a benchmark is for")]

#[expect(dead_code, reason = "shared with the benchmark of the recorder, which uses more of it")]
mod load;
#[path = "load/sites.rs"]
mod sites;
#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;

use std::{path::Path, thread, time::Duration};

use load::{Attached, Figures, Load};
use sites::{Counters, Site, planned};

/// Rounds; each measures every way once.
const ROUNDS: usize = 5;
/// Bursts of a hundred panics per way and round.
const BURSTS: usize = 30;
/// Pause in which panicwatch processes a hundred incidents.
const REST: Duration = Duration::from_millis(40);
/// Limit of the cost of one panic beyond that of its probes, in nanoseconds.
const LIMIT_NS: f64 = 10_000.0;

fn main() {
    if panicwatch::helper::dispatch(panicwatch::watch::helpers::serve).is_some() {
        return;
    }
    let program = match load::obstacle().map_or_else(load::program, Err) {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED all: {why}"),
    };
    let sites = planned(&program);
    let raised: Vec<Site> = sites.iter().filter(|site| site.name == "panic raised").cloned().collect();
    let mut load = Load::start(&program, "panic");
    bursts(&mut load, BURSTS);
    let mut figures = vec![Figures::default(); 3 + WAYS.len()];
    let (mut hits, mut notes) = (Figures::default(), Vec::new());
    for _ in 0..ROUNDS {
        figures[0].0.push(bursts(&mut load, BURSTS));
        figures[1].0.push(counted(&mut load, &program, &raised).0);
        let (ns, each) = counted(&mut load, &program, &sites);
        figures[2].0.push(ns);
        hits.0.push(each);
        for ((name, options), figures) in WAYS.iter().zip(&mut figures[3..]) {
            let attached = Attached::to(load.pid(), options);
            bursts(&mut load, 1); // After this burst the rate limit applies, if there is one.
            figures.0.push(bursts(&mut load, BURSTS));
            notes.extend(attached.end().into_iter().map(|note| format!("{name}: {note}")));
        }
    }
    report(&figures, hits.median());
    // These notes contain a number that changes from run to run.
    notes.retain(|note| !note.contains("counted only"));
    notes.sort();
    notes.dedup();
    notes.iter().for_each(|note| println!("  {note}"));
}

/// Ways to watch: a name and the options of `panicwatch attach`.
const WAYS: [(&str, &[&str]); 3] = [
    ("captured, no timeline", &["--no-timeline", "--max-captures", "0"]),
    ("captured, default", &["--max-captures", "0"]),
    ("counted only", &["--no-timeline", "--max-captures", "1"]),
];

/// Prints the costs without panicwatch, with one counting probe, with all counting probes, and of each way.
fn report(figures: &[Figures], hits: f64) {
    println!("a recovered panic, ns, median of {ROUNDS} rounds of {BURSTS} times a hundred (quartiles):");
    let names = ["without panicwatch", "one probe, counting", "every probe, counting"].into_iter();
    for (name, figures) in names.chain(WAYS.iter().map(|way| way.0)).zip(figures) {
        println!("  {name:24} {}", figures.told());
    }
    let median = |i: usize| figures[i].median();
    let (bare, price, probes) = (median(0), median(1) - median(0), median(2));
    println!("  {hits:.1} hits a panic, {price:.0} ns each: {:.0} ns for the probes alone", hits * price);
    for (i, (name, _)) in WAYS.iter().enumerate() {
        let ns = median(3 + i);
        println!(
            "  {name}: {:.0} ns beyond the hits, {:.0} ns beyond the counting probes (limit {LIMIT_NS:.0})",
            ns - bare - hits * price,
            ns - probes
        );
    }
}

/// Returns the median of `n` bursts, in nanoseconds per panic.
fn bursts(load: &mut Load, n: usize) -> f64 {
    let one = |_| {
        thread::sleep(REST);
        load.run(0).ns
    };
    Figures((0..n).map(one).collect()).median()
}

/// Measures bursts with counting probes attached; returns nanoseconds and hits per panic.
fn counted(load: &mut Load, program: &Path, sites: &[Site]) -> (f64, f64) {
    let counters = Counters::place(program, sites).expect("probes as panicwatch places them");
    let ns = bursts(load, BURSTS);
    (ns, counters.hits() as f64 / (BURSTS * 100) as f64)
}

//! Computes the cost of recording from the counters of the eBPF programs: the part that watched processes
//! bear, and the part that all others bear. Pure.
//!
//! A run of a tracepoint's program uses CPU time of the process in whose context it runs, whichever process
//! the event is about. One run in [`TIMED_EVERY`] is timed and charged to that process, the payer; so the
//! cost of all runs is that many times the cost of the timed ones. A hit of a probe in a program costs what
//! the calibration measured.

use std::collections::BTreeMap;

use panicwatch_common::recorder::{KINDS, TIMED_EVERY, kind, payer};

use super::Source;

/// Nanoseconds to call the program at a tracepoint, which the program cannot time itself. An estimate: on an
/// idle Intel Xeon with Linux 6.18, loops timed with and without a program measured 221 ns for a system call;
/// the program itself measured 149 of them.
const BEFORE_NS: f64 = 40.0;

/// Ratio of the slowdown that a watched program sees to the measured time of our eBPF programs (cache
/// effects). Measured with a net/http server at 85 000 requests per second (docs/recorder.md). Runs for
/// unwatched processes touch a few cache lines that stay cached: measured by
/// `cargo xtask bench recorder -- unwatched`, they take less than the timed part plus [`BEFORE_NS`].
const FELT: f64 = 2.0;

/// Counters by kind of record, summed over all CPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Number of runs, timed or not.
    pub hits: Vec<u64>,
    /// Number of timed runs, by payer.
    pub timed: [Vec<u64>; payer::PAYERS],
    /// Total duration of the timed runs, by payer, nanoseconds.
    pub timed_ns: [Vec<u64>; payer::PAYERS],
}

impl Default for Counters {
    fn default() -> Counters {
        let zero = || vec![0; KINDS as usize];
        Counters { hits: zero(), timed: [zero(), zero()], timed_ns: [zero(), zero()] }
    }
}

/// Untimed cost of one hit in nanoseconds, by kind of record: the result of the calibration.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices(pub [f64; KINDS as usize]);

impl Prices {
    /// Costs of zero for all kinds.
    pub fn zero() -> Prices {
        Prices([0.0; KINDS as usize])
    }

    /// Returns the cost of a hit of a probe in a program; `None` if it was not measured.
    pub fn in_program(&self) -> Option<f64> {
        let price = self.0[kind::GO_PARK as usize];
        (price > 0.0).then_some(price)
    }

    /// Returns the average cost of a run of `source` in nanoseconds: the calibrated part plus what the
    /// programs have timed since they were loaded; `None` if neither is known.
    pub fn of_source(&self, source: Source, counters: &Counters) -> Option<f64> {
        let sum = |all: &[Vec<u64>; payer::PAYERS]| -> u64 {
            all.iter().flat_map(|of| source.kinds().iter().map(|kind| of[*kind as usize])).sum()
        };
        let runs = sum(&counters.timed);
        let calibrated = source.kinds().iter().map(|kind| self.0[*kind as usize]).find(|price| *price > 0.0);
        let timed = (runs > 0).then(|| sum(&counters.timed_ns) as f64 / runs as f64 + BEFORE_NS);
        (calibrated.is_some() || timed.is_some()).then(|| calibrated.unwrap_or(0.0) + timed.unwrap_or(0.0))
    }
}

/// CPU time that a source used, nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    /// CPU time of watched processes.
    pub target_ns: f64,
    /// CPU time of all other processes and idle CPUs.
    pub host_ns: f64,
}

/// Returns the cost of each source between two readings of the counters.
pub fn costs(before: &Counters, now: &Counters, calibrated: &Prices) -> BTreeMap<Source, Cost> {
    Source::ALL.into_iter().map(|source| (source, cost(source, before, now, calibrated))).collect()
}

fn cost(source: Source, before: &Counters, now: &Counters, calibrated: &Prices) -> Cost {
    let since = |before: &[u64], now: &[u64], kind: u32| {
        now[kind as usize].saturating_sub(before[kind as usize]) as f64
    };
    let timed = |payer: usize| -> f64 {
        let of = |kind: &u32| {
            let runs = since(&before.timed[payer], &now.timed[payer], *kind);
            let ns = since(&before.timed_ns[payer], &now.timed_ns[payer], *kind);
            (ns + runs * BEFORE_NS) * weight(*kind)
        };
        source.kinds().iter().map(of).sum()
    };
    let hits = |kind: &u32| since(&before.hits, &now.hits, *kind) * calibrated.0[*kind as usize];
    let hits: f64 = source.kinds().iter().map(hits).sum();
    Cost { target_ns: (timed(payer::TARGET) + hits) * FELT, host_ns: timed(payer::HOST) }
}

/// Returns the number of runs that one timed run stands for.
fn weight(kind: u32) -> f64 {
    if kind == kind::SAMPLE { 1.0 } else { TIMED_EVERY as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds `runs` runs of `kind`, charged to `payer`; timed runs take `ns` nanoseconds each.
    fn timed(counters: &mut Counters, kind: u32, payer: usize, runs: u64, ns: u64) {
        counters.hits[kind as usize] += runs;
        let timed = if kind == kind::SAMPLE { runs } else { runs / TIMED_EVERY };
        counters.timed[payer][kind as usize] += timed;
        counters.timed_ns[payer][kind as usize] += timed * ns;
    }

    #[test]
    fn a_run_is_charged_to_the_process_in_whose_context_it_is() {
        let (before, mut now) = (Counters::default(), Counters::default());
        timed(&mut now, kind::SWITCH_OUT, payer::TARGET, 640, 200);
        timed(&mut now, kind::SWITCH_OUT, payer::HOST, 64_000, 20);
        let costs = costs(&before, &now, &Prices::zero());
        assert_eq!(costs[&Source::Switch].target_ns, 640.0 * (200.0 + BEFORE_NS) * FELT);
        assert_eq!(costs[&Source::Switch].host_ns, 64_000.0 * (20.0 + BEFORE_NS));
        assert_eq!(costs[&Source::Wakeup], Cost::default());
    }

    #[test]
    fn only_what_happened_since_counts() {
        let mut before = Counters::default();
        timed(&mut before, kind::PAGE_FAULT, payer::HOST, 6400, 100);
        let mut now = before.clone();
        timed(&mut now, kind::PAGE_FAULT, payer::HOST, 64, 100);
        let costs = costs(&before, &now, &Prices::zero());
        assert_eq!(costs[&Source::Fault].host_ns, 64.0 * (100.0 + BEFORE_NS));
    }

    #[test]
    fn every_sample_is_timed_and_every_hit_in_a_program_is_the_targets() {
        let mut now = Counters::default();
        timed(&mut now, kind::SAMPLE, payer::TARGET, 10, 5000);
        now.hits[kind::GO_PARK as usize] = 100;
        let mut prices = Prices::zero();
        prices.0[kind::GO_PARK as usize] = 500.0;
        let costs = costs(&Counters::default(), &now, &prices);
        assert_eq!(costs[&Source::Sample].target_ns, 10.0 * (5000.0 + BEFORE_NS) * FELT);
        assert_eq!(costs[&Source::Goroutine], Cost { target_ns: 100.0 * 500.0 * FELT, host_ns: 0.0 });
    }

    #[test]
    fn a_price_adds_what_is_timed_to_what_was_calibrated() {
        let mut counters = Counters::default();
        timed(&mut counters, kind::SWITCH_OUT, payer::TARGET, 64, 150);
        timed(&mut counters, kind::SWITCH_OUT, payer::HOST, 64, 50);
        timed(&mut counters, kind::SAMPLE, payer::TARGET, 2, 4000);
        let mut prices = Prices::zero();
        prices.0[kind::SAMPLE as usize] = 3000.0;
        prices.0[kind::GO_PARK as usize] = 500.0;
        let price = |source| prices.of_source(source, &counters);
        assert_eq!(price(Source::Switch), Some(100.0 + BEFORE_NS));
        assert_eq!(price(Source::Sample), Some(3000.0 + 4000.0 + BEFORE_NS));
        assert_eq!(price(Source::Goroutine), Some(500.0));
        assert_eq!(price(Source::Wakeup), None);
    }

    #[test]
    fn alternating_runs_are_timed_evenly() {
        use panicwatch_common::recorder::is_timed;
        for step in [1, 2, 3, 4, 8, 64] {
            for first in 0..step {
                let timed = (0..64_000).filter(|n| is_timed(first + step * n)).count();
                assert!((950..=1050).contains(&timed), "{timed} of 64000 at every {step}th from {first}");
            }
        }
    }
}

//! Keeping what recording costs within bounds: what to take off, and when to try it again. Pure: measurements go in.
//!
//! The cost of a source is the number of its records times what one costs on this machine. It is compared with the CPU
//! time that the watched processes used meanwhile.

use std::collections::{BTreeMap, VecDeque};

use panicwatch_common::recorder::{KINDS, kind};

use super::Source;

/// Runs of the kernel's programs that were timed while they happened, by the kind of record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timed {
    /// How many.
    pub hits: Vec<u64>,
    /// How long they took, nanoseconds.
    pub ns: Vec<u64>,
}

/// What calling a program at a tracepoint takes, which it cannot time itself. Nanoseconds, an estimate: loops timed with and without,
/// on an idle Intel Xeon with Linux 6.18, said 221 for a system call that took 149 from when its process had been looked up, and
/// looking it up is timed too.
const BEFORE_NS: f64 = 40.0;

/// What a run costs the program, in times of what it takes: it throws lines and pages out of the caches that the program has
/// to fetch again. So measured with a net/http server at 85 000 requests a second (docs/recorder.md).
const FELT: f64 = 2.0;

/// Nanoseconds that one hit takes, by the kind of record.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices(pub [f64; KINDS as usize]);

impl Prices {
    /// Nothing costs anything.
    pub fn zero() -> Prices {
        Prices([0.0; KINDS as usize])
    }

    /// That of a hit in a program; `None` when it was not measured.
    pub fn in_program(&self) -> Option<f64> {
        let price = self.0[kind::GO_PARK as usize];
        (price > 0.0).then_some(price)
    }

    /// These, with what the kernel's own probes were seen to take on top: the mean of a source's.
    pub fn with(&self, timed: &Timed) -> Prices {
        let mut prices = self.clone();
        for source in Source::ALL.into_iter().filter(|source| !source.is_in_program()) {
            let sum = |all: &[u64]| -> u64 { source.kinds().iter().map(|kind| all[*kind as usize]).sum() };
            let (hits, ns) = (sum(&timed.hits), sum(&timed.ns));
            if hits > 0 {
                let each = ns as f64 / hits as f64 + BEFORE_NS;
                source.kinds().iter().for_each(|kind| prices.0[*kind as usize] += each);
            }
        }
        prices
    }

    /// What the program feels of them.
    pub fn felt(&self) -> Prices {
        Prices(self.0.map(|price| price * FELT))
    }

    /// That of a record of `source`; `None` when it was not measured.
    pub fn of_source(&self, source: Source) -> Option<f64> {
        let measured = |kind: &u32| self.0.get(*kind as usize).copied().filter(|price| *price > 0.0);
        source.kinds().iter().find_map(measured)
    }

    fn of(&self, source: Source, hits: &[u64]) -> f64 {
        let each = |kind: &u32| {
            let kind = *kind as usize;
            hits.get(kind).copied().unwrap_or(0) as f64 * self.0.get(kind).copied().unwrap_or(0.0)
        };
        source.kinds().iter().map(each).sum()
    }
}

/// What one look at the counters gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// When.
    pub time_ns: u64,
    /// Records by kind since the reading before.
    pub hits: Vec<u64>,
    /// CPU time that the watched processes used since then, nanoseconds.
    pub cpu_ns: u64,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Take it off: it cost so much, in percent of the watched processes' CPU time, and nothing dearer is left.
    Shed {
        /// Which.
        source: Source,
        /// Percent.
        cost: f64,
        /// It was not the budget that was exceeded, but the most that is spent of each core whatever the budget says.
        capped: bool,
    },
    /// Try it again.
    Resume(Source),
}

/// What may be spent without asking, of a core's time: a process that hardly runs has hardly any CPU time to compare with.
const FREE: f64 = 0.001;
/// Readings are judged over this time.
const SPAN_NS: u64 = 1_000_000_000;
/// But a cost this many times over the budget is not waited out.
const GROSS: f64 = 3.0;
/// Before a source is tried again, at first; doubled every time it fails.
const FIRST_PAUSE_NS: u64 = 10_000_000_000;
/// At most.
const LAST_PAUSE_NS: u64 = 300_000_000_000;

#[derive(Debug, Clone, Copy)]
struct Pause {
    until_ns: u64,
    pause_ns: u64,
    off: bool,
}

/// Watches over the cost.
#[derive(Debug)]
pub struct Budget {
    percent: f64,
    /// Part of the machine's time.
    limit: f64,
    prices: Prices,
    active: Vec<Source>,
    pauses: BTreeMap<Source, Pause>,
    readings: VecDeque<Reading>,
}

impl Budget {
    /// `percent` of the watched processes' CPU time may be spent on `active`, and no more than `core_percent` of each of
    /// the machine's `cores`.
    pub fn new(
        percent: f64,
        (core_percent, cores): (f64, u32),
        prices: Prices,
        active: Vec<Source>,
    ) -> Budget {
        let limit = core_percent / 100.0 * f64::from(cores.max(1));
        Budget { percent, limit, prices, active, pauses: BTreeMap::new(), readings: VecDeque::new() }
    }

    /// Reckons with these from now on.
    pub fn reprice(&mut self, prices: Prices) {
        self.prices = prices;
    }

    /// What recording costs at present, in percent of the watched processes' CPU time.
    pub fn cost_percent(&self) -> f64 {
        let cpu: u64 = self.readings.iter().map(|reading| reading.cpu_ns).sum();
        let cost: f64 = self.active.iter().map(|source| self.spent(*source)).sum();
        if cpu == 0 { 0.0 } else { cost / cpu as f64 * 100.0 }
    }

    fn spent(&self, source: Source) -> f64 {
        self.readings.iter().map(|reading| self.prices.of(source, &reading.hits)).sum()
    }

    /// Takes a reading, `elapsed_ns` after the one before.
    pub fn judge(&mut self, reading: Reading, elapsed_ns: u64) -> Vec<Action> {
        let now_ns = reading.time_ns;
        self.readings.push_back(reading);
        while self.readings.front().is_some_and(|first| first.time_ns + SPAN_NS < now_ns) {
            self.readings.pop_front();
        }
        let cpu: u64 = self.readings.iter().map(|reading| reading.cpu_ns).sum();
        let first = self.readings.front().map_or(now_ns, |first| first.time_ns);
        let span = (now_ns - first) as f64 + elapsed_ns as f64;
        let cap = span * self.limit;
        let budget = (cpu as f64 * self.percent / 100.0).max(span * FREE);
        let (allowed, capped) = (budget.min(cap), budget > cap);
        let mut costs: Vec<(Source, f64)> =
            self.active.iter().map(|source| (*source, self.spent(*source))).collect();
        costs.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut total: f64 = costs.iter().map(|(_, cost)| cost).sum();
        let settled = span >= SPAN_NS as f64 * 0.9;
        let mut actions = Vec::new();
        if settled || total > allowed * GROSS {
            for (source, cost) in costs {
                if total <= allowed || cost == 0.0 {
                    break;
                }
                total -= cost;
                actions.push(Action::Shed { source, cost: cost / cpu.max(1) as f64 * 100.0, capped });
                self.shed(source, now_ns);
            }
        }
        if !actions.is_empty() {
            self.readings.clear();
        } else {
            actions.extend(self.resume(now_ns));
        }
        actions
    }

    fn shed(&mut self, source: Source, now_ns: u64) {
        self.active.retain(|active| *active != source);
        let before = self.pauses.get(&source).map_or(FIRST_PAUSE_NS / 2, |pause| pause.pause_ns);
        let pause_ns = before.saturating_mul(2).min(LAST_PAUSE_NS);
        self.pauses.insert(source, Pause { until_ns: now_ns + pause_ns, pause_ns, off: true });
    }

    /// One at a time, so that the one that is too dear is found.
    fn resume(&mut self, now_ns: u64) -> Option<Action> {
        let ready = |pause: &Pause| pause.off && pause.until_ns <= now_ns;
        let (&source, pause) = self.pauses.iter_mut().find(|(_, pause)| ready(pause))?;
        pause.off = false;
        self.active.push(source);
        self.readings.clear();
        Some(Action::Resume(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_timed_is_added_to_what_was_calibrated() {
        let mut timed = Timed { hits: vec![0; KINDS as usize], ns: vec![0; KINDS as usize] };
        (timed.hits[kind::SWITCH_OUT as usize], timed.ns[kind::SWITCH_OUT as usize]) = (10, 1000);
        (timed.hits[kind::SAMPLE as usize], timed.ns[kind::SAMPLE as usize]) = (2, 8000);
        let prices = prices().with(&timed);
        let price = |source| prices.of_source(source);
        assert_eq!(price(Source::Switch), Some(100.0 + BEFORE_NS));
        assert_eq!(prices.0[kind::SWITCH_IN as usize], 100.0 + BEFORE_NS);
        assert_eq!(price(Source::Sample), Some(3000.0 + 4000.0 + BEFORE_NS));
        assert_eq!(price(Source::Goroutine), Some(500.0));
        assert_eq!(price(Source::Wakeup), None);
    }

    const TICK: u64 = 250_000_000;

    fn prices() -> Prices {
        let mut prices = Prices::zero();
        prices.0[kind::SYSCALL_ENTER as usize] = 200.0;
        prices.0[kind::GO_PARK as usize] = 500.0;
        prices.0[kind::SAMPLE as usize] = 3000.0;
        prices
    }

    fn budget() -> Budget {
        Budget::new(1.0, (5.0, 2), prices(), vec![Source::Sample, Source::Syscall, Source::Goroutine])
    }

    /// Runs `ticks` of so many hits each while one core is busy; gives what was done, with the tick.
    fn run(budget: &mut Budget, from: u64, ticks: u64, hits: &[(u32, u64)]) -> Vec<(u64, Action)> {
        let mut done = Vec::new();
        for tick in from..from + ticks {
            let mut all = vec![0; KINDS as usize];
            for &(kind, n) in hits {
                if budget.active.iter().any(|source| source.kinds().contains(&kind)) {
                    all[kind as usize] = n;
                }
            }
            let reading = Reading { time_ns: tick * TICK, hits: all, cpu_ns: TICK };
            done.extend(budget.judge(reading, TICK).into_iter().map(|action| (tick, action)));
        }
        done
    }

    #[test]
    fn what_is_within_the_budget_stays() {
        let mut budget = budget();
        // 0.6 % of a core.
        assert_eq!(run(&mut budget, 0, 100, &[(kind::SAMPLE, 250), (kind::GO_PARK, 1500)]), []);
        assert!((budget.cost_percent() - 0.6).abs() < 0.01, "{}", budget.cost_percent());
    }

    #[test]
    fn the_dearest_goes_first_and_no_more_than_needed() {
        let mut budget = budget();
        // Samples 0.3 %, system calls 0.4 %, goroutines 2 %.
        let hits = [(kind::SAMPLE, 250), (kind::SYSCALL_ENTER, 5000), (kind::GO_PARK, 10_000)];
        let done = run(&mut budget, 0, 20, &hits);
        let [(_, Action::Shed { source: Source::Goroutine, cost, capped: false })] = done[..] else {
            panic!("{done:?}")
        };
        assert!((cost - 2.0).abs() < 0.01, "{cost}");
    }

    #[test]
    fn a_gross_cost_is_not_waited_out() {
        let mut budget = budget();
        let done = run(&mut budget, 0, 1, &[(kind::GO_PARK, 100_000)]);
        assert!(matches!(done[..], [(0, Action::Shed { source: Source::Goroutine, .. })]), "{done:?}");
    }

    #[test]
    fn it_comes_back_later_and_later_while_it_is_too_dear() {
        let mut budget = budget();
        let done = run(&mut budget, 0, 400, &[(kind::GO_PARK, 100_000)]);
        let resumed: Vec<u64> =
            done.iter().filter(|(_, a)| matches!(a, Action::Resume(_))).map(|(t, _)| *t).collect();
        assert_eq!(resumed.len(), 3, "{done:?}");
        assert!(resumed[0] >= 40 && resumed[1] - resumed[0] >= 80 && resumed[2] - resumed[1] >= 160);
        let sheds = done.iter().filter(|(_, a)| matches!(a, Action::Shed { .. })).count();
        assert_eq!(sheds, 4, "shed again after every try");
    }

    #[test]
    fn a_process_that_hardly_runs_is_not_the_measure() {
        let mut budget = budget();
        for tick in 0..50 {
            let mut hits = vec![0; KINDS as usize];
            hits[kind::GO_PARK as usize] = 50;
            let reading = Reading { time_ns: tick * TICK, hits, cpu_ns: 10_000 };
            assert_eq!(budget.judge(reading, TICK), [], "25 µs of 250 ms");
        }
    }

    #[test]
    fn a_generous_budget_does_not_lift_the_cap() {
        let mut budget = Budget::new(50.0, (5.0, 2), prices(), vec![Source::Goroutine]);
        let done = run(&mut budget, 0, 20, &[(kind::GO_PARK, 100_000)]);
        let shed = matches!(done[..], [(_, Action::Shed { source: Source::Goroutine, capped: true, .. })]);
        assert!(shed, "20 % of a core: {done:?}");
    }
}

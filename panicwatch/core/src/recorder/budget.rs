//! The overhead budgets: decides which sources to pause, and when to resume them. Pure: takes measurements.
//!
//! There are two budgets. The *target* budget bounds the overhead in watched processes, as a percentage of
//! their CPU time. The *host* budget bounds the overhead of the programs at the kernel's tracepoints in all
//! other processes, as a percentage of the machine's CPU capacity. Costs are those of [`super::cost`].

use std::collections::{BTreeMap, VecDeque};

use super::{Source, cost::Cost};

/// Limits of the overhead; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Target budget: percent of the watched processes' CPU time.
    pub target_percent: Option<f64>,
    /// Percent of each core that watched processes may bear, whatever the target budget allows.
    pub core_percent: Option<f64>,
    /// Host budget: percent of the machine's CPU capacity.
    pub host_percent: Option<f64>,
    /// Number of the machine's cores.
    pub cores: u32,
}

/// The limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The target budget.
    Target,
    /// The limit of each core.
    Core,
    /// The host budget.
    Host,
}

/// Differences between two readings of the counters.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Time of the reading, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Time since the previous reading, nanoseconds.
    pub elapsed_ns: u64,
    /// Cost of each source since the previous reading.
    pub costs: BTreeMap<Source, Cost>,
    /// CPU time that the watched processes used since the previous reading, nanoseconds; `None` if it was not
    /// read because the cost is within [`FLOOR`].
    pub cpu_ns: Option<u64>,
}

/// Action of the governor.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Pause the source.
    Pause {
        /// The source to pause.
        source: Source,
        /// Length of the pause, nanoseconds.
        pause_ns: u64,
        /// The limit that was exceeded.
        over: Limit,
        /// Whether its last pause was as long, so that there is nothing new to report.
        again: bool,
    },
    /// Re-enable the source, to measure its cost again.
    Resume(Source),
    /// A re-enabled source has stayed within the budgets.
    Settled(Source),
}

/// Part of one core's time that recording may always use in watched processes: a service that is idle most of
/// the time has hardly any CPU time to compare with, but idle capacity to spend.
pub const FLOOR: f64 = 0.01;
/// Time over which readings are judged.
const SPAN_NS: u64 = 1_000_000_000;
/// A cost that exceeds the budget by this factor is acted on before that time is over.
const GROSS: f64 = 3.0;
/// First pause of a source; doubled each time the source exceeds the budget again right after it was resumed.
const FIRST_PAUSE_NS: u64 = 5_000_000_000;
/// Longest pause of a source.
const LAST_PAUSE_NS: u64 = 20_000_000_000;
/// Time within the budgets after which a resumed source is settled.
const SETTLED_NS: u64 = 2_000_000_000;
/// A source whose cost is less than this part of the excess is not worth pausing.
const SIGNIFICANT: f64 = 0.05;
/// Smallest part of a core's time that serves as the base of a percentage.
const BASE: f64 = 0.001;

/// Order in which sources are disabled, least valuable first. Without switches, it is unknown which threads
/// ran.
const LEAST_VALUABLE_FIRST: [Source; 12] = [
    Source::Fault,
    Source::Syscall,
    Source::Wakeup,
    Source::Function,
    Source::Assist,
    Source::Goroutine,
    Source::Sample,
    Source::Send,
    Source::Migrate,
    Source::Signal,
    Source::Gc,
    Source::Switch,
];

#[derive(Debug, Clone, Copy)]
struct Pause {
    /// Length of the current or last pause.
    pause_ns: u64,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Paused {
        until_ns: u64,
        over: Limit,
        /// Cost per second of the sources that stayed active, nanoseconds: if it falls to less than half of
        /// this, the load has dropped.
        left_ns: f64,
    },
    Trial {
        since_ns: u64,
    },
}

/// The budget mechanism: keeps the cost within the limits.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    active: Vec<Source>,
    pauses: BTreeMap<Source, Pause>,
    readings: VecDeque<Reading>,
}

impl Budget {
    /// Returns the budget mechanism for a recorder that has enabled the sources `active`.
    pub fn new(limits: Limits, active: Vec<Source>) -> Budget {
        Budget { limits, active, pauses: BTreeMap::new(), readings: VecDeque::new() }
    }

    /// Returns the enabled sources.
    pub fn active(&self) -> &[Source] {
        &self.active
    }

    /// Returns the current overhead in watched processes, in percent of their CPU time; `None` if they use
    /// hardly any, or it is unknown.
    pub fn target_percent(&self) -> Option<f64> {
        let cpu = self.readings.iter().map(|reading| reading.cpu_ns).sum::<Option<u64>>()? as f64;
        let base = self.span_ns() * BASE;
        (base > 0.0 && cpu >= base).then(|| self.total(|cost| cost.target_ns) / cpu * 100.0)
    }

    /// Returns the current overhead in all other processes, in percent of the machine's CPU capacity; `None`
    /// before the first reading.
    pub fn host_percent(&self) -> Option<f64> {
        let capacity = self.span_ns() * self.cores();
        (capacity > 0.0).then(|| self.total(|cost| cost.host_ns) / capacity * 100.0)
    }

    fn cores(&self) -> f64 {
        f64::from(self.limits.cores.max(1))
    }

    fn span_ns(&self) -> f64 {
        self.readings.iter().map(|reading| reading.elapsed_ns as f64).sum()
    }

    fn spent(&self, source: Source, part: impl Fn(&Cost) -> f64) -> f64 {
        self.readings.iter().filter_map(|reading| reading.costs.get(&source)).map(part).sum()
    }

    fn total(&self, part: impl Fn(&Cost) -> f64) -> f64 {
        self.active.iter().map(|source| self.spent(*source, &part)).sum()
    }

    /// Adds a reading and returns what to do. `is_watching` reports whether any process is watched: if none
    /// is, nothing is disabled.
    pub fn judge(&mut self, reading: Reading, is_watching: impl FnOnce() -> bool) -> Vec<Action> {
        let now_ns = reading.time_ns;
        self.readings.push_back(reading);
        while self.readings.front().is_some_and(|first| first.time_ns + SPAN_NS < now_ns) {
            self.readings.pop_front();
        }
        let over = self.exceeded();
        if !over.is_empty() && is_watching() {
            let actions = over.into_iter().flat_map(|(over, allowed)| self.pause(over, allowed, now_ns));
            let actions: Vec<Action> = actions.collect();
            self.readings.clear();
            return actions;
        }
        let mut actions = self.settle(now_ns);
        actions.extend(self.resume(now_ns));
        actions
    }

    /// Returns the exceeded limits, each with the cost that it allows in the time of the readings,
    /// nanoseconds.
    fn exceeded(&self) -> Vec<(Limit, f64)> {
        let span = self.span_ns();
        let cpu: u64 = self.readings.iter().filter_map(|reading| reading.cpu_ns).sum();
        let of_target = |percent: f64| (cpu as f64 * percent / 100.0).max(span * FLOOR);
        let of_machine = |percent: f64| span * self.cores() * percent / 100.0;
        let settled = span >= SPAN_NS as f64 * 0.9;
        let limits = [
            (Limit::Target, self.limits.target_percent.map(of_target)),
            (Limit::Core, self.limits.core_percent.map(of_machine)),
            (Limit::Host, self.limits.host_percent.map(of_machine)),
        ];
        let is_exceeded = |(limit, allowed): (Limit, Option<f64>)| {
            let allowed = allowed?;
            let total = self.total(|cost| limit.part(cost));
            let over = total > allowed * if settled { 1.0 } else { GROSS };
            over.then_some((limit, allowed))
        };
        limits.into_iter().filter_map(is_exceeded).collect()
    }

    /// Pauses sources, the least valuable first, until the rest is within the limit. Skips sources whose
    /// pause would not help.
    fn pause(&mut self, over: Limit, allowed: f64, now_ns: u64) -> Vec<Action> {
        let seconds = self.span_ns() / 1e9;
        let part = |cost: &Cost| over.part(cost);
        let mut total = self.total(part);
        if total <= allowed {
            return Vec::new(); // What another limit disabled was enough.
        }
        let order = LEAST_VALUABLE_FIRST.iter().filter(|source| self.active.contains(source));
        let costs: Vec<(Source, f64)> = order.map(|source| (*source, self.spent(*source, part))).collect();
        let mut chosen: Vec<(Source, f64)> = Vec::new();
        let worth = (total - allowed) * SIGNIFICANT;
        for least in [worth, 0.0] {
            for (source, cost) in &costs {
                if total > allowed && *cost > least && !chosen.iter().any(|(other, _)| other == source) {
                    total -= cost;
                    chosen.push((*source, *cost));
                }
            }
        }
        // Later choices may have made earlier ones unnecessary.
        for at in (0..chosen.len()).rev() {
            if total + chosen[at].1 <= allowed {
                total += chosen.remove(at).1;
            }
        }
        let left_ns = total / seconds;
        let pause = |(source, _): (Source, f64)| self.pause_one(source, over, left_ns, now_ns);
        chosen.into_iter().map(pause).collect()
    }

    fn pause_one(&mut self, source: Source, over: Limit, left_ns: f64, now_ns: u64) -> Action {
        self.active.retain(|active| *active != source);
        let before = self.pauses.get(&source).map(|pause| pause.pause_ns);
        let pause_ns = before.map_or(FIRST_PAUSE_NS, |before| before.saturating_mul(2).min(LAST_PAUSE_NS));
        let state = State::Paused { until_ns: now_ns + pause_ns, over, left_ns };
        self.pauses.insert(source, Pause { pause_ns, state });
        Action::Pause { source, pause_ns, over, again: before == Some(pause_ns) }
    }

    /// Removes the pauses of sources that have stayed within the budgets for a while since they were
    /// re-enabled.
    fn settle(&mut self, now_ns: u64) -> Vec<Action> {
        let is_settled = |pause: &Pause| matches!(pause.state, State::Trial { since_ns } if since_ns + SETTLED_NS <= now_ns);
        let settled: Vec<Source> =
            self.pauses.iter().filter(|(_, pause)| is_settled(pause)).map(|(source, _)| *source).collect();
        settled.iter().for_each(|source| {
            self.pauses.remove(source);
        });
        settled.into_iter().map(Action::Settled).collect()
    }

    /// Re-enables one source at a time, the most valuable first, so that the one that costs too much is
    /// identified.
    fn resume(&mut self, now_ns: u64) -> Option<Action> {
        let span = self.span_ns();
        if span < SPAN_NS as f64 * 0.9 {
            return None;
        }
        let is_due = |source: &Source| match self.pauses.get(source)?.state {
            State::Paused { until_ns, over, left_ns } => {
                let left_now = self.total(|cost| over.part(cost)) / span * 1e9;
                (until_ns <= now_ns || left_now < left_ns / 2.0).then_some(*source)
            }
            State::Trial { .. } => None,
        };
        let source = LEAST_VALUABLE_FIRST.iter().rev().find_map(is_due)?;
        self.pauses.get_mut(&source)?.state = State::Trial { since_ns: now_ns };
        self.active.push(source);
        self.readings.clear();
        Some(Action::Resume(source))
    }
}

impl Limit {
    /// Returns the part of a cost that the limit bounds.
    fn part(self, cost: &Cost) -> f64 {
        match self {
            Limit::Target | Limit::Core => cost.target_ns,
            Limit::Host => cost.host_ns,
        }
    }
}

#[cfg(test)]
mod tests;

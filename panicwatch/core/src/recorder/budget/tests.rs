//! Tests of the arithmetic of both overhead budgets, tick by tick.

use super::*;

/// Interval of readings, nanoseconds.
const TICK: u64 = 250_000_000;
const SECOND: u64 = 1_000_000_000;
/// One percent of one core per second, nanoseconds.
const PERCENT: f64 = 10_000_000.0;

fn limits() -> Limits {
    Limits { target_percent: Some(1.0), core_percent: Some(5.0), host_percent: Some(0.5), cores: 2 }
}

fn default_sources() -> Vec<Source> {
    crate::recorder::Level::Default.sources()
}

/// A load: the cost of each source per second, in percent of one core (target, host), and the number of cores
/// that the watched processes use.
struct Load {
    costs: &'static [(Source, f64, f64)],
    cores: f64,
    watching: bool,
}

/// Runs `budget` for some time under a load; returns its actions with their times in seconds. Disabled
/// sources cost nothing.
fn run(budget: &mut Budget, from_s: u64, seconds: u64, load: &Load) -> Vec<(f64, Action)> {
    let mut done = Vec::new();
    for tick in 1..=seconds * SECOND / TICK {
        let time_ns = from_s * SECOND + tick * TICK;
        let part = PERCENT * TICK as f64 / SECOND as f64;
        let active = load.costs.iter().filter(|(source, ..)| budget.active().contains(source));
        let costs =
            active.map(|(s, target, host)| (*s, Cost { target_ns: target * part, host_ns: host * part }));
        let reading = Reading {
            time_ns,
            elapsed_ns: TICK,
            costs: costs.collect(),
            cpu_ns: Some((load.cores * TICK as f64) as u64),
        };
        let actions = budget.judge(reading, || load.watching);
        done.extend(actions.into_iter().map(|action| (time_ns as f64 / SECOND as f64, action)));
    }
    done
}

fn paused(done: &[(f64, Action)]) -> Vec<(Source, Limit)> {
    let one = |(_, action): &(f64, Action)| match action {
        Action::Pause { source, over, .. } => Some((*source, *over)),
        _ => None,
    };
    done.iter().filter_map(one).collect()
}

#[test]
fn an_idle_target_on_a_busy_host_is_recorded() {
    let mut budget = Budget::new(limits(), default_sources());
    // 20 000 switches and wake-ups per second of other processes: 0.8 % of a core; the budget of two cores is
    // 1 %. The service uses 0.01 %.
    let load = Load {
        costs: &[(Source::Switch, 0.03, 0.4), (Source::Wakeup, 0.03, 0.4)],
        cores: 0.0001,
        watching: true,
    };
    assert_eq!(run(&mut budget, 0, 600, &load), []);
    assert_eq!(budget.target_percent(), None, "no percentage of nothing");
    let host = budget.host_percent().unwrap();
    assert!((host - 0.4).abs() < 1e-6, "{host}");
}

#[test]
fn a_service_without_any_cpu_time_is_recorded() {
    let mut budget = Budget::new(limits(), default_sources());
    let load = Load { costs: &[(Source::Switch, 0.9, 0.0)], cores: 0.0, watching: true };
    assert_eq!(run(&mut budget, 0, 600, &load), []);
    assert_eq!(budget.target_percent(), None);
}

#[test]
fn a_busy_target_on_a_quiet_host_pauses_the_least_valuable() {
    let mut budget = Budget::new(limits(), default_sources());
    // A service that uses two cores has a budget of 2 % of a core; the cost is 2.7 %.
    let load = Load {
        costs: &[
            (Source::Switch, 1.2, 0.0),
            (Source::Wakeup, 0.9, 0.0),
            (Source::Sample, 0.4, 0.0),
            (Source::Fault, 0.2, 0.0),
        ],
        cores: 2.0,
        watching: true,
    };
    let done = run(&mut budget, 0, 4, &load);
    // Pausing page faults alone would not suffice; with wake-ups paused, they fit.
    assert_eq!(paused(&done), [(Source::Wakeup, Limit::Target)]);
    let target = budget.target_percent().unwrap();
    assert!((target - 0.9).abs() < 1e-6, "{target}");
}

#[test]
fn page_faults_go_before_wake_ups_before_samples_before_switches() {
    let even: &[(Source, f64, f64)] = &[
        (Source::Switch, 1.0, 0.0),
        (Source::Wakeup, 1.0, 0.0),
        (Source::Sample, 1.0, 0.0),
        (Source::Fault, 1.0, 0.0),
    ];
    let order = [Source::Fault, Source::Wakeup, Source::Sample, Source::Switch];
    for (cores, n) in [(3.0, 1), (2.0, 2), (1.0, 3)] {
        let mut budget =
            Budget::new(Limits { core_percent: None, ..limits() }, order.into_iter().rev().collect());
        let done = run(&mut budget, 0, 2, &Load { costs: even, cores, watching: true });
        let sources: Vec<Source> = paused(&done).into_iter().map(|(source, _)| source).collect();
        assert_eq!(sources, order[..n], "{cores} cores");
    }
}

#[test]
fn a_busy_host_pauses_what_costs_it_too_much() {
    let mut budget = Budget::new(limits(), default_sources());
    // A compiler runs at the same time: 3 % of a core for page faults. That is 1.7 % of the machine's two
    // cores, and 0.5 % is allowed.
    let load = Load {
        costs: &[(Source::Switch, 0.1, 0.2), (Source::Wakeup, 0.1, 0.2), (Source::Fault, 0.0, 3.0)],
        cores: 0.1,
        watching: true,
    };
    assert_eq!(paused(&run(&mut budget, 0, 4, &load)), [(Source::Fault, Limit::Host)]);
}

#[test]
fn nothing_is_paused_while_nothing_is_watched() {
    let mut budget = Budget::new(limits(), default_sources());
    let load = Load { costs: &[(Source::Fault, 0.0, 20.0)], cores: 0.0, watching: false };
    assert_eq!(run(&mut budget, 0, 60, &load), []);
    let watching = Load { watching: true, ..load };
    assert_eq!(paused(&run(&mut budget, 60, 1, &watching)), [(Source::Fault, Limit::Host)]);
}

#[test]
fn budgets_that_are_off_pause_nothing() {
    let off = Limits { target_percent: None, core_percent: None, host_percent: None, cores: 2 };
    let load = Load { costs: &[(Source::Switch, 90.0, 90.0)], cores: 1.0, watching: true };
    assert_eq!(run(&mut Budget::new(off, default_sources()), 0, 60, &load), []);
    // Each budget alone.
    let host = Limits { host_percent: Some(0.5), ..off };
    let done = run(&mut Budget::new(host, default_sources()), 0, 1, &load);
    assert_eq!(paused(&done), [(Source::Switch, Limit::Host)]);
    let target = Limits { target_percent: Some(1.0), ..off };
    let done = run(&mut Budget::new(target, default_sources()), 0, 1, &load);
    assert_eq!(paused(&done), [(Source::Switch, Limit::Target)]);
}

#[test]
fn a_generous_budget_does_not_lift_the_limit_of_each_core() {
    let generous = Limits { target_percent: Some(50.0), host_percent: None, ..limits() };
    let mut budget = Budget::new(generous, vec![Source::Goroutine]);
    let load = Load { costs: &[(Source::Goroutine, 20.0, 0.0)], cores: 1.0, watching: true };
    assert_eq!(paused(&run(&mut budget, 0, 1, &load)), [(Source::Goroutine, Limit::Core)]);
}

#[test]
fn a_gross_cost_is_not_waited_out_and_a_moderate_one_is() {
    for (cost, at) in [(5.0, 0.25), (1.5, 1.0)] {
        let load = Load {
            costs: if cost > 2.0 { &[(Source::Fault, 5.0, 0.0)] } else { &[(Source::Fault, 1.5, 0.0)] },
            cores: 1.0,
            watching: true,
        };
        let mut budget = Budget::new(limits(), default_sources());
        let done = run(&mut budget, 0, 2, &load);
        assert!(matches!(done[..], [(when, Action::Pause { .. })] if when == at), "{cost} %: {done:?}");
    }
}

#[test]
fn pauses_grow_to_twenty_seconds_and_only_longer_ones_are_news() {
    let mut budget = Budget::new(limits(), default_sources());
    let load = Load { costs: &[(Source::Fault, 10.0, 0.0)], cores: 1.0, watching: true };
    let done = run(&mut budget, 0, 120, &load);
    let pauses: Vec<(u64, bool)> = done
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Pause { pause_ns, again, .. } => Some((*pause_ns / SECOND, *again)),
            _ => None,
        })
        .collect();
    assert_eq!(pauses[..5], [(5, false), (10, false), (20, false), (20, true), (20, true)]);
    assert!(!done.iter().any(|(_, action)| matches!(action, Action::Settled(_))), "{done:?}");
}

#[test]
fn it_is_enabled_again_within_seconds_once_load_drops() {
    let mut budget = Budget::new(limits(), default_sources());
    let busy =
        Load { costs: &[(Source::Fault, 10.0, 0.0), (Source::Switch, 0.5, 0.0)], cores: 1.0, watching: true };
    // After an hour, the pause has its maximum length.
    assert_eq!(paused(&run(&mut budget, 0, 3600, &busy)).first(), Some(&(Source::Fault, Limit::Target)));
    assert!(!budget.active().contains(&Source::Fault));
    let idle = Load {
        costs: &[(Source::Fault, 0.01, 0.0), (Source::Switch, 0.01, 0.0)],
        cores: 0.01,
        watching: true,
    };
    let done = run(&mut budget, 3600, 10, &idle);
    let [(resumed, Action::Resume(Source::Fault)), (_, Action::Settled(Source::Fault))] = done[..] else {
        panic!("{done:?}")
    };
    assert!(resumed - 3600.0 < 3.0, "after {} s", resumed - 3600.0);
    assert!(budget.active().contains(&Source::Fault));
    // The next pause is short again.
    let done = run(&mut budget, 3610, 2, &busy);
    assert!(
        matches!(done[..], [(_, Action::Pause { pause_ns: FIRST_PAUSE_NS, again: false, .. })]),
        "{done:?}"
    );
}

#[test]
fn the_most_valuable_comes_back_first() {
    let mut budget = Budget::new(limits(), default_sources());
    let storm = Load {
        costs: &[(Source::Switch, 40.0, 0.0), (Source::Wakeup, 40.0, 0.0), (Source::Fault, 40.0, 0.0)],
        cores: 1.0,
        watching: true,
    };
    assert_eq!(paused(&run(&mut budget, 0, 1, &storm)).len(), 3);
    let quiet = Load { costs: &[], cores: 0.0, watching: true };
    let done = run(&mut budget, 1, 20, &quiet);
    let resumed: Vec<Source> = done
        .iter()
        .filter_map(|(_, action)| if let Action::Resume(source) = action { Some(*source) } else { None })
        .collect();
    assert_eq!(resumed, [Source::Switch, Source::Wakeup, Source::Fault]);
}

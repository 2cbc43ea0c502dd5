//! Incidents correlated from tables of events: every scenario complete, and with each record and each pair of
//! records lost in turn. An incident that lacks records may lack an outcome, but it must not have a wrong
//! one, nor another incident's panics.

#[path = "../support/mod.rs"]
mod support;

mod process;
mod random;

use std::{collections::BTreeMap, sync::Arc};

use panicwatch::{
    capture::Program,
    clock,
    correlate::{Correlator, Lost},
    event::Event,
    gobin,
    incident::{Incident, Outcome, State},
    plan::plan,
};
use panicwatch_common::event::kind;
use process::{HI, PID, Process};
use support::{fixture, toolchains};

type Scenario = fn(&mut Process<'_>);

/// Two panics at the same site, one after the other, then a fatal one there.
fn again_and_again(p: &mut Process<'_>) {
    for _ in 0..2 {
        let raise = p.raise(7, HI - 0x1000);
        p.begin(7);
        // The function that panics recovers in a deferred call of its own.
        p.recover(7, HI - 0x1000);
        p.was(&[raise], Outcome::Recovered);
    }
    let raise = p.raise(7, HI - 0x1000);
    p.begin(7);
    p.end(7, false);
    p.die(7, 0);
    p.exit(7, 2);
    p.gone(kind::PROCESS_EXIT, Some(2 << 8));
    p.was(&[raise], Outcome::Fatal);
}

/// Recovered and raised again, twice; then a panic recovered within a deferred call of another panic, which
/// continues.
fn nested(p: &mut Process<'_>) {
    let mut raises = Vec::new();
    for level in 1..4 {
        raises.push(p.raise(7, HI - 0x1000 * level));
        p.begin(7);
        p.point(7, kind::RECOVER, [0; 6], 0);
    }
    p.end(7, true);
    p.recovery(7, HI - 0x800);
    p.was(&raises, Outcome::Recovered);
    let outer = p.raise(7, HI - 0x1000);
    p.begin(7);
    let inner = p.raise(7, HI - 0x2000);
    p.begin(7);
    p.recover(7, HI - 0x1800);
    p.was(&[inner], Outcome::Recovered);
    p.end(7, false);
    p.begin(7);
    p.recover(7, HI - 0x800);
    p.was(&[outer], Outcome::Recovered);
    p.exit(1, 0);
    p.gone(kind::PROCESS_EXIT, Some(0));
}

/// A deferred call ends the process while another goroutine has recovered a panic and a third one's panic is
/// in progress.
fn exits(p: &mut Process<'_>) {
    let under_way = p.raise(9, HI - 0x3000);
    p.begin(9);
    let caught = p.raise(8, HI - 0x1000);
    p.begin(8);
    p.recover(8, HI - 0x800);
    let exiting = p.raise(7, HI - 0x1000);
    p.begin(7);
    p.exit(7, 3);
    p.gone(kind::PROCESS_EXIT, Some(3 << 8));
    p.was(&[under_way], Outcome::Exited);
    p.was(&[caught], Outcome::Recovered);
    p.was(&[exiting], Outcome::Exited);
}

/// The process is killed during a panic.
fn killed(p: &mut Process<'_>) {
    let raise = p.raise(7, HI - 0x1000);
    p.begin(7);
    p.gone(kind::PROCESS_EXIT, Some(9));
    p.was(&[raise], Outcome::Exited);
}

/// A deferred call executes another program in this process; the new image has its own panic at the same
/// site.
fn execs(p: &mut Process<'_>) {
    let raise = p.raise(1, HI - 0x1000);
    p.begin(1);
    p.gone(kind::EXEC, None);
    p.was(&[raise], Outcome::Exited);
    p.goroutines.clear();
    let raise = p.raise(1, HI - 0x1000);
    p.begin(1);
    p.recover(1, HI - 0x800);
    p.was(&[raise], Outcome::Recovered);
    p.gone(kind::PROCESS_EXIT, Some(0));
}

/// runtime.Goexit in a deferred call; a panic in a deferred call that Goexit runs is recovered.
fn goexits(p: &mut Process<'_>) {
    let raise = p.raise(7, HI - 0x1000);
    p.begin(7);
    p.goexit(7, HI - 0x1800);
    p.was(&[raise], Outcome::Goexit);
    let inner = p.raise(7, HI - 0x2000);
    p.begin(7);
    p.recover(7, HI - 0x1900);
    p.was(&[inner], Outcome::Recovered);
    p.gone(kind::PROCESS_EXIT, Some(0));
}

/// A fatal error in a deferred call, after a recovered panic.
fn throws(p: &mut Process<'_>) {
    let raise = p.raise(7, HI - 0x1000);
    p.begin(7);
    p.recover(7, HI - 0x800);
    p.was(&[raise], Outcome::Recovered);
    let raise = p.raise(7, HI - 0x1000);
    p.begin(7);
    p.throw(7);
    p.die(7, 1);
    p.exit(7, 2);
    p.gone(kind::PROCESS_EXIT, Some(2 << 8));
    p.was(&[raise], Outcome::Fatal);
}

const SCENARIOS: [(&str, Scenario); 7] = [
    ("again and again", again_and_again),
    ("nested", nested),
    ("exits", exits),
    ("killed", killed),
    ("execs", execs),
    ("goexits", goexits),
    ("throws", throws),
];

/// Correlates the events, except those at `dropped`, which are counted as lost because the ring was full.
fn correlate(program: &Arc<Program>, events: &[Event], dropped: &[usize]) -> Vec<Incident> {
    let binaries = |_| Some(program.clone());
    let mut correlator = Correlator::new(clock::measure(), panicwatch::host::random::bits);
    let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
    for (i, event) in events.iter().enumerate() {
        let head = event.head;
        let of_process = matches!(head.kind, kind::EXEC | kind::PROCESS_EXIT);
        if dropped.contains(&i) {
            if !of_process {
                *lost.entry(head.goid).or_default() += 1;
            }
            continue;
        }
        let mut event = event.clone();
        event.head.lost = lost.get(&head.goid).copied().unwrap_or(0) as u32;
        if head.kind == kind::PROCESS_EXIT {
            correlator.lost(PID, &Lost { by_goroutine: lost.clone(), unattributed: 0 });
        }
        correlator.push(event, &binaries);
    }
    correlator.lost(PID, &Lost { by_goroutine: lost, unattributed: 0 });
    correlator.finish(&binaries);
    correlator.take()
}

/// Returns the first error in the incidents of a process that lost records.
fn wrong(process: &Process<'_>, incidents: &[Incident]) -> Option<String> {
    let mut seen = Vec::new();
    for incident in incidents {
        let raises: Vec<u64> = incident.panics.iter().map(|panic| panic.raised_ns).collect();
        let truths: Vec<_> = raises.iter().map(|raise| process.truth[raise]).collect();
        let unknown = incident.outcome == Outcome::Unknown;
        // An incident of unknown outcome may combine panics that were in progress together, as far as was
        // seen.
        if !unknown && truths.iter().any(|truth| truth.0 != truths[0].0) {
            return Some(format!("panics of several incidents in one: {raises:?}"));
        }
        if raises.iter().any(|raise| seen.contains(raise)) {
            return Some(format!("a panic twice: {raises:?}"));
        }
        if unknown != incident.missing.iter().any(|missing| missing.what == "outcome") {
            return Some(format!("{:?}, {:?}", incident.outcome, incident.missing));
        }
        let outcome = truths.first().map_or(Outcome::Fatal, |truth| truth.1);
        let dies = process.truth.values().any(|truth| truth.1 == Outcome::Fatal);
        if !unknown && (incident.outcome != outcome || raises.is_empty() && !dies) {
            return Some(format!("{raises:?} is {outcome:?}, told as {:?}", incident.outcome));
        }
        if incident.panics.iter().rev().skip(1).any(|panic| panic.state == State::Recovered) {
            return Some(format!("an older panic is the recovered one: {raises:?}"));
        }
        seen.extend(raises);
    }
    None
}

fn programs() -> Vec<(String, Arc<Program>)> {
    let dir = tempfile::tempdir().expect("a directory");
    let releases = toolchains().into_iter().filter(|go| [21, 22, 27].contains(&go.version().minor()));
    releases
        .map(|go| {
            let exe = dir.path().join("chain");
            go.build(&fixture("chain"), &[], &exe);
            let bin = gobin::open(&exe).expect("a Go program");
            let plan = plan(&bin);
            (format!("go{}", go.release), Arc::new(Program::new(bin, plan, exe)))
        })
        .collect()
}

#[test]
fn no_lost_record_makes_a_wrong_incident() {
    for (release, program) in programs() {
        for (name, scenario) in SCENARIOS {
            let mut process = Process::new(&program);
            scenario(&mut process);
            let all = correlate(&program, &process.events, &[]);
            assert_eq!(wrong(&process, &all), None, "{release} {name}: {all:#?}");
            let told: usize = all.iter().map(|incident| incident.panics.len()).sum();
            assert_eq!(told, process.truth.len(), "{release} {name}: nothing was lost");
            assert!(all.iter().all(|incident| incident.outcome != Outcome::Unknown), "{release} {name}");
            assert_eq!(all.len(), process.incidents, "{release} {name}");
            let count = process.events.len();
            for i in 0..count {
                for k in i..count {
                    let kinds = [process.events[i].head.kind, process.events[k].head.kind];
                    let incidents = correlate(&program, &process.events, &[i, k]);
                    let what = format!("{release} {name}: without {i} and {k}, kinds {kinds:?}");
                    assert_eq!(wrong(&process, &incidents), None, "{what}");
                }
            }
        }
    }
}

#[test]
fn a_chain_of_any_length_stays_in_its_incident() {
    for (release, program) in programs() {
        for length in [1, 23, 24, 25, 63, 64, 65, 127, 128, 129, 130, 1000] {
            let mut process = Process::new(&program);
            let raises: Vec<u64> = (1..=length)
                .map(|level| {
                    let raise = process.raise(7, HI - 0x400 * level);
                    process.begin(7);
                    process.point(7, kind::RECOVER, [0; 6], 0);
                    raise
                })
                .collect();
            process.end(7, true);
            process.recovery(7, HI - 0x200);
            let unrelated = process.raise(7, HI - 0x400);
            process.begin(7);
            process.recover(7, HI - 0x200);
            let [chain, other] = &correlate(&program, &process.events, &[])[..] else {
                panic!("{release}, {length}: not two incidents");
            };
            let of = |incident: &Incident| incident.panics.iter().map(|p| p.raised_ns).collect::<Vec<_>>();
            let kept = match raises.len() {
                ..=128 => raises.clone(),
                n => [&raises[..64], &raises[n - 64..]].concat(),
            };
            assert_eq!(of(chain), kept, "{release}, {length}");
            assert_eq!(of(other), [unrelated], "{release}, {length}");
            let told = chain.missing.iter().find(|missing| missing.what == "panics");
            let count =
                told.and_then(|told| told.reason.split(' ').find_map(|word| word.parse::<usize>().ok()));
            assert_eq!(count.unwrap_or(0), raises.len() - kept.len(), "{release}, {length}");
        }
    }
}

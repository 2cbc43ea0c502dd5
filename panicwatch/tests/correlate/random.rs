//! Random scripts of several goroutines, with random losses: no incident is invented, none is swallowed, none
//! has a wrong outcome. `PANICWATCH_SEED=N` repeats one script.

use std::collections::BTreeMap;

use panicwatch::incident::Outcome;
use panicwatch_common::event::kind;

use super::{
    correlate,
    process::{HI, Process},
    programs, wrong,
};

/// Number of scripts per release.
const SCRIPTS: u64 = 3000;

/// A pseudo-random generator with a reproducible seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}

/// Returns the stack pointer of the function that raises the panic at this depth.
fn frame(depth: usize) -> u64 {
    HI - 0x400 * depth as u64
}

/// Panics in progress of each goroutine, oldest first.
type Open = BTreeMap<u64, Vec<u64>>;

/// Performs one step of one goroutine.
fn step(p: &mut Process<'_>, open: &mut Open, random: &mut Random) {
    let goid = 7 + random.below(4);
    let raises = open.entry(goid).or_default();
    let depth = raises.len();
    match random.below(6) {
        // A first panic, or one raised by a deferred call of the newest.
        _ if depth == 0 => {
            raises.push(p.raise(goid, frame(1)));
            p.begin(goid);
        }
        0 | 1 if depth < 6 => {
            raises.push(p.raise(goid, frame(depth + 1)));
            p.begin(goid);
        }
        // Recovered in a frame of its own: the older panics continue.
        2 | 3 => {
            p.recover(goid, frame(depth) + 0x200);
            let newest = raises.split_off(depth - 1);
            p.was(&newest, Outcome::Recovered);
        }
        // Recovered in a frame above all of them: the older panics end too.
        4 => {
            p.recover(goid, frame(1) + 0x200);
            let all = std::mem::take(raises);
            p.was(&all, Outcome::Recovered);
        }
        // The next deferred call runs.
        _ => {
            p.end(goid, false);
            p.begin(goid);
        }
    }
}

/// Ends the process: by os.Exit, by SIGKILL, or because a goroutine dies of its panics.
fn end(p: &mut Process<'_>, mut open: Open, random: &mut Random) {
    let dying = open.iter().find(|(_, raises)| !raises.is_empty()).map(|(goid, _)| *goid);
    match (random.below(3), dying) {
        (0, Some(goid)) => {
            p.end(goid, false);
            p.die(goid, 0);
            p.exit(goid, 2);
            p.gone(kind::PROCESS_EXIT, Some(2 << 8));
            let raises = open.remove(&goid).unwrap_or_default();
            p.was(&raises, Outcome::Fatal);
        }
        (1, _) => p.gone(kind::PROCESS_EXIT, Some(9)),
        _ => {
            p.exit(1, 0);
            p.gone(kind::PROCESS_EXIT, Some(0));
        }
    }
    for raises in open.into_values().filter(|raises| !raises.is_empty()) {
        p.was(&raises, Outcome::Exited);
    }
}

#[test]
fn random_scripts_with_random_losses() {
    let only = std::env::var("PANICWATCH_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
    for (release, program) in programs() {
        for seed in only.map_or(0..SCRIPTS, |seed| seed..seed + 1) {
            let mut random = Random(seed);
            let (mut process, mut open) = (Process::new(&program), Open::new());
            for _ in 0..random.below(40) {
                step(&mut process, &mut open, &mut random);
            }
            end(&mut process, open, &mut random);
            let per_thousand = [0, 0, 20, 100, 300][random.below(5) as usize];
            let count = process.events.len();
            let dropped: Vec<usize> = (0..count).filter(|_| random.below(1000) < per_thousand).collect();
            let incidents = correlate(&program, &process.events, &dropped);
            let what = format!("{release}, PANICWATCH_SEED={seed}, without {dropped:?}");
            assert_eq!(wrong(&process, &incidents), None, "{what}");
            let raised =
                process.events.iter().enumerate().filter(|(_, event)| event.head.kind == kind::PANIC);
            let mut kept: Vec<u64> =
                raised.filter(|(at, _)| !dropped.contains(at)).map(|(_, event)| event.head.time_ns).collect();
            let mut told: Vec<u64> =
                incidents.iter().flat_map(|incident| &incident.panics).map(|panic| panic.raised_ns).collect();
            kept.sort_unstable();
            told.sort_unstable();
            assert_eq!(told, kept, "{what}: panics swallowed or invented");
            if dropped.is_empty() {
                assert_eq!(incidents.len(), process.incidents, "{what}");
                assert!(incidents.iter().all(|incident| incident.outcome != Outcome::Unknown), "{what}");
            }
        }
    }
}

//! Measures precisely what each source of the recorder costs a server: sources are attached and detached in
//! turn under one continuous load.
//!
//! Runs that each start a load and a panicwatch of their own spend most of their time on starting. Here only
//! the sources change, every fifth of a second, so that four minutes determine the throughput to four
//! thousandths (two standard errors) on a machine whose speed varies by some percent from one span to the
//! next. The session runs in this process, and no source is disabled by the overhead budget. The baseline is
//! a panicwatch that records nothing.

use std::{fs::File, path::Path, thread, time::Duration};

use panicwatch::{
    recorder::{Level, Options, Source},
    watch::{
        armory::Armory,
        session::{Scope, Session},
    },
};

use crate::{
    load::{Figures, Load},
    wrk::Wrk,
};

/// Length of each measured span.
const SPAN: Duration = Duration::from_millis(200);
/// Pause after attaching or detaching probes, which stops all processors for a moment.
const SETTLE: Duration = Duration::from_millis(20);
/// Time under load before the first span.
const WARM_UP: Duration = Duration::from_secs(3);

/// Sources that are attached and detached together.
struct Set {
    name: String,
    sources: Vec<Source>,
}

fn sets() -> Vec<Set> {
    let level = |name: &str, level: Level| {
        let options = Options { level, ..Options::default() };
        Set { name: format!("--level {name}"), sources: options.sources() }
    };
    // The first set shows the error of the method: its ratios should be 1.
    let mut sets = vec![
        Set { name: "nothing".to_owned(), sources: Vec::new() },
        level("default", Level::Default),
        level("full", Level::Full),
    ];
    let alone = |source: Source| Set { name: format!("{} alone", source.name()), sources: vec![source] };
    let all = Source::ALL.into_iter().filter(|source| *source != Source::Function);
    sets.extend(all.map(alone));
    sets
}

/// Turns per round; each takes half a second.
const TURNS: usize = 20;

/// Runs `rounds` times [`TURNS`] turns of each set of sources whose name contains one of the comma-separated
/// words in `only`.
pub(crate) fn run(program: &Path, wrk: &Wrk, only: Option<&str>, rounds: usize) {
    let mut sets = sets();
    sets.retain(|set| only.is_none_or(|only| only.split(',').any(|word| set.name.contains(word))));
    let mut load = Load::start(program, "server");
    let options = Options { level: Level::Full, ..Options::default() };
    let session = Session::start(Scope::Chosen, &options).expect("recording starts");
    let exe = format!("/proc/{}/exe", load.pid());
    let armed = session.arm(&File::open(&exe).expect("it runs"), program).expect("it can be armed");
    session.watch(load.pid(), Some(&armed)).expect("it is watched");
    let armory = session.armory();
    off(&armory, &options.sources());
    let endless = wrk.keep_on(&load.ready);
    thread::sleep(WARM_UP);
    println!(
        "\nserver: sources switched on and off under one load, {} turns each; nothing shed",
        rounds * TURNS
    );
    println!("  {:24} {:18} {:18} the budget reckons with", "", "throughput", "CPU for each");
    for set in &sets {
        let ratios = compare(&mut load, &session, set, rounds * TURNS);
        let (throughput, cpu) = (ratios.throughput.mean(), ratios.cpu.mean());
        println!("  {:24} {throughput:18} {cpu:18} {:.2} % of CPU time", set.name, ratios.reckoned.median());
    }
    drop(endless);
}

/// Ratios of each span with a set of sources to the spans before and after it.
#[derive(Default)]
struct Ratios {
    throughput: Figures,
    /// CPU time per request.
    cpu: Figures,
    /// Not a ratio: the sources' cost as the overhead governor estimates it, in percent of the server's CPU
    /// time.
    reckoned: Figures,
}

fn compare(load: &mut Load, session: &Session, set: &Set, turns: usize) -> Ratios {
    let armory = session.armory();
    let mut ratios = Ratios::default();
    let mut before = span(load);
    for turn in 0..turns {
        on(&armory, &set.sources);
        let with = span(load);
        off(&armory, &set.sources);
        let after = span(load);
        ratios.throughput.0.push(2.0 * with.throughput / (before.throughput + after.throughput));
        ratios.cpu.0.push(2.0 * with.cpu_ns / (before.cpu_ns + after.cpu_ns));
        before = after;
        // The governor averages over about the last second; the sources were attached for half of it.
        if turn > TURNS / 4
            && let Some(percent) = session.governor().cost_percent
        {
            ratios.reckoned.0.push(2.0 * percent);
        }
    }
    ratios
}

fn on(armory: &Armory, sources: &[Source]) {
    for source in sources {
        armory.with_programs(|programs| programs.attach_source(*source)).expect("it is attached");
        if source.is_in_program() {
            armory.start_source(*source).expect("it is attached");
        }
    }
}

fn off(armory: &Armory, sources: &[Source]) {
    for source in sources {
        armory.with_programs(|programs| programs.detach_source(*source));
        armory.stop_source(*source);
    }
}

/// Measurements of one span.
struct Span {
    /// Requests per second.
    throughput: f64,
    /// CPU time of the server per request, in nanoseconds.
    cpu_ns: f64,
}

fn span(load: &mut Load) -> Span {
    thread::sleep(SETTLE);
    let (cpu_before, [answered_before, ns_before]) = (load.cpu_ns(), load.ask(""));
    thread::sleep(SPAN);
    let [answered, ns] = load.ask("");
    let requests = answered - answered_before;
    Span { throughput: requests / (ns - ns_before) * 1e9, cpu_ns: (load.cpu_ns() - cpu_before) / requests }
}

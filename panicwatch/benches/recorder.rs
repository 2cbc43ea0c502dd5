//! Measures what recording costs a program that does not panic: at every level, and for each source alone.
//!
//! Run by `cargo xtask bench recorder`. Each run with panicwatch is compared only with the two runs without
//! it before and after; the program prints the median of these ratios, their quartiles, and the uncertainty
//! of the median. `turns` measures more precisely what a server pays for each source. `unwatched` measures
//! what unwatched processes pay, and `neighbours` shows how complete incidents are when such processes run.
//! `--rounds N` sets the number of rounds, a word selects the loads whose name contains it, and `--only WORD`
//! selects the ways to watch whose name contains the word.

#![expect(clippy::print_stdout, reason = "its figures are what a benchmark is for")]

mod load;
#[path = "load/neighbours.rs"]
mod neighbours;
#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;
#[path = "load/turns.rs"]
mod turns;
#[path = "load/wrk.rs"]
mod wrk;

use std::path::Path;

use load::{Attached, Figures, Load};
use wrk::Wrk;

/// Length of a run of the server, in seconds.
const SERVER_SECONDS: u32 = 3;
/// Length of a run of the other loads, in milliseconds.
const LOAD_MS: u32 = 700;
/// Options that turn the overhead budget off, so that no source is disabled while its cost is measured.
const NO_LIMIT: &[&str] = &["--budget", "off", "--host-budget", "off"];
/// All sources, by the names that `--without` accepts.
const SOURCES: [&str; 11] = [
    "switch",
    "wakeup",
    "migrate",
    "signal",
    "syscall",
    "fault",
    "send",
    "sample",
    "gc",
    "assist",
    "goroutine",
];

/// A way to watch.
#[derive(Clone)]
struct Way {
    name: String,
    options: Vec<String>,
    /// Whether an unmeasured run comes first, in which the overhead governor adapts.
    settles: bool,
}

fn main() {
    if panicwatch::helper::dispatch(panicwatch::watch::helpers::serve).is_some() {
        return;
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let option = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        Some((at + 1, arguments.get(at + 1)?))
    };
    let (rounds, only) = (option("--rounds"), option("--only"));
    let taken = [rounds, only].map(|option| option.map(|(at, _)| at));
    let rounds = rounds.and_then(|(_, n)| n.parse().ok()).unwrap_or(5);
    let wanted = |what: &str| {
        let is_word = |(at, word): &(usize, &String)| !word.starts_with("--") && !taken.contains(&Some(*at));
        let mut words = arguments.iter().enumerate().filter(is_word).peekable();
        words.peek().is_none() || words.any(|(_, word)| what.contains(word.as_str()))
    };
    let program = match load::obstacle().map_or_else(load::program, Err) {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED all: {why}"),
    };
    if wanted("neighbours") {
        match load::fixture("neighbours") {
            Ok(server) => neighbours::incidents(&server),
            Err(why) => println!("SKIPPED neighbours: {why}"),
        }
    }
    if wanted("unwatched") {
        neighbours::unwatched(&program, rounds);
    }
    if wanted("turns")
        && let Some(wrk) = Wrk::find()
    {
        turns::run(&program, &wrk, only.map(|(_, word)| word.as_str()), rounds);
    }
    let named = |mut ways: Vec<Way>| {
        ways.retain(|way| only.is_none_or(|(_, word)| way.name.contains(word.as_str())));
        ways
    };
    if wanted("server")
        && let Some(wrk) = Wrk::find()
    {
        server(&program, &wrk, &named(levels()), rounds);
    }
    let ways = named([levels(), sources()].concat());
    for (what, thing) in [("goroutine", "there and back between goroutines"), ("syscall", "system call")] {
        if wanted(what) {
            repeated(&program, what, thing, &ways, rounds);
        }
    }
}

fn way(name: &str, options: &[&[&str]]) -> Way {
    let options: Vec<String> = options.concat().iter().map(|o| (*o).to_owned()).collect();
    let settles = !options.iter().any(|option| option == "off");
    Way { name: name.to_owned(), options, settles }
}

impl Way {
    fn attach(&self, pid: u32) -> Attached {
        Attached::to(pid, &self.options.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn levels() -> Vec<Way> {
    vec![
        way("--no-timeline", &[&["--no-timeline"]]),
        way("budgeted", &[]),
        way("budgeted --level full", &[&["--level", "full", "--budget", "1", "--host-budget", "0.5"]]),
        way("default", &[NO_LIMIT]),
        way("--level kernel", &[&["--level", "kernel"], NO_LIMIT]),
        way("--level runtime", &[&["--level", "runtime"], NO_LIMIT]),
        way("--level full", &[&["--level", "full"], NO_LIMIT]),
    ]
}

/// Returns one way per source: level full without all other sources.
fn sources() -> Vec<Way> {
    let alone = |source: &&str| {
        let others: Vec<&str> = SOURCES.into_iter().filter(|other| other != source).collect();
        way(&format!("{source} alone"), &[&["--level", "full", "--without", &others.join(",")], NO_LIMIT])
    };
    SOURCES.iter().map(alone).collect()
}

/// Measurements of one run.
#[derive(Debug, Clone, Copy)]
struct Measure {
    /// Operations per second.
    throughput: f64,
    /// CPU time per operation, in nanoseconds.
    cpu_ns: f64,
    /// Latency at the 99th percentile in milliseconds, where it is measured.
    p99_ms: Option<f64>,
}

/// Ratios to the runs without panicwatch; `cpu_more` is a difference, in nanoseconds.
#[derive(Default, Clone)]
struct Ratios {
    throughput: Figures,
    cpu: Figures,
    cpu_more: Figures,
    p99: Figures,
}

impl Ratios {
    fn push(&mut self, with: Measure, before: Measure, after: Measure) {
        let cpu = (before.cpu_ns + after.cpu_ns) / 2.0;
        self.throughput.0.push(2.0 * with.throughput / (before.throughput + after.throughput));
        self.cpu.0.push(with.cpu_ns / cpu);
        self.cpu_more.0.push(with.cpu_ns - cpu);
        if let (Some(with), Some(before), Some(after)) = (with.p99_ms, before.p99_ms, after.p99_ms) {
            self.p99.0.push(2.0 * with / (before + after));
        }
    }
}

/// Measures requests to an HTTP server.
fn server(program: &Path, wrk: &Wrk, ways: &[Way], rounds: usize) {
    let mut load = Load::start(program, "server");
    let what = format!("server: a request, net/http, wrk with 16 connections for {SERVER_SECONDS} s");
    compare(&mut load, &what, ways, rounds, &mut |load| {
        let cpu = load.cpu_ns();
        let run = wrk.run(&load.ready, SERVER_SECONDS);
        let cpu_ns = (load.cpu_ns() - cpu) / run.requests;
        Measure { throughput: run.throughput, cpu_ns, p99_ms: Some(run.p99_ms) }
    });
}

/// Measures one operation, repeated for [`LOAD_MS`].
fn repeated(program: &Path, what: &str, thing: &str, ways: &[Way], rounds: usize) {
    let mut load = Load::start(program, what);
    let what = format!("{what}: {thing}, for {LOAD_MS} ms");
    compare(&mut load, &what, ways, rounds, &mut |load| {
        let run = load.run(LOAD_MS);
        Measure { throughput: 1e9 / run.ns, cpu_ns: run.cpu_ns, p99_ms: None }
    });
}

fn compare(
    load: &mut Load,
    what: &str,
    ways: &[Way],
    rounds: usize,
    run: &mut dyn FnMut(&mut Load) -> Measure,
) {
    run(load); // Warm-up: the heap and the connections reach their size.
    let (mut ratios, mut bare, mut notes) = (vec![Ratios::default(); ways.len()], Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut before = run(load);
        for (way, ratios) in ways.iter().zip(&mut ratios) {
            let attached = way.attach(load.pid());
            if way.settles {
                run(load);
            }
            let with = run(load);
            notes.extend(attached.end().into_iter().map(|note| format!("{}: {note}", way.name)));
            let after = run(load);
            ratios.push(with, before, after);
            bare.push(after);
            before = after;
        }
    }
    let median = |of: &dyn Fn(&Measure) -> f64| Figures(bare.iter().map(of).collect()).median();
    let p99 = bare[0].p99_ms.map(|_| format!(", p99 {:.2} ms", median(&|m| m.p99_ms.unwrap_or(f64::NAN))));
    println!(
        "\n{what}, {rounds} rounds; without panicwatch {:.0} a second, CPU {:.0} ns each{}",
        median(&|m| m.throughput),
        median(&|m| m.cpu_ns),
        p99.clone().unwrap_or_default()
    );
    println!(
        "  {:24} {:50} {:50} {:>8}  {}",
        "",
        "throughput",
        "CPU for each",
        "ns more",
        p99.map_or("", |_| "p99")
    );
    for (way, ratios) in ways.iter().zip(&ratios) {
        let p99 = if ratios.p99.0.is_empty() { String::new() } else { ratios.p99.told() };
        let (throughput, cpu) = (ratios.throughput.told(), ratios.cpu.told());
        println!("  {:24} {throughput:50} {cpu:50} {:8.0}  {p99}", way.name, ratios.cpu_more.median());
    }
    say(notes);
}

/// Prints panicwatch's messages, each once even if its numbers vary.
fn say(mut notes: Vec<String>) {
    notes.sort();
    let words = |note: &String| note.replace(|c: char| c.is_ascii_digit() || c == '.', "");
    notes.dedup_by_key(|note| words(note));
    notes.iter().for_each(|note| println!("  {note}"));
}

//! What recording costs a program that does not panic: at every level, and each source by itself.
//!
//! Run by `cargo xtask bench recorder`. Every run with panicwatch stands between two without and is compared with
//! them alone; what is printed is the median of these ratios and their quartiles. `--rounds N` for more of them,
//! and a word for the loads whose name contains it.

#![expect(clippy::print_stdout, reason = "its figures are what a benchmark is for")]

mod load;
#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "shared with the tests, which use more of it")]
mod support;
#[path = "load/wrk.rs"]
mod wrk;

use std::path::Path;

use load::{Attached, Figures, Load};
use wrk::Wrk;

/// Length of a run of the server, seconds.
const SERVER_SECONDS: u32 = 3;
/// Of the others, milliseconds.
const LOAD_MS: u32 = 700;
/// Nothing is shed while a price is measured.
const NO_LIMIT: &[&str] = &["--budget", "100"];
/// What there is to record, by the names that `--without` takes.
const SOURCES: [&str; 10] =
    ["switch", "wakeup", "migrate", "signal", "syscall", "fault", "sample", "gc", "assist", "goroutine"];

/// A way to watch.
#[derive(Clone)]
struct Way {
    name: String,
    options: Vec<String>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let rounds =
        arguments.iter().position(|a| a == "--rounds").and_then(|i| arguments.get(i + 1)?.parse().ok());
    let rounds = rounds.unwrap_or(5);
    let wanted = |what: &str| {
        let mut words =
            arguments.iter().filter(|a| !a.starts_with("--") && a.parse::<u32>().is_err()).peekable();
        words.peek().is_none() || words.any(|word| what.contains(word.as_str()))
    };
    let program = match load::obstacle().map_or_else(load::program, Err) {
        Ok(program) => program,
        Err(why) => return println!("SKIPPED all: {why}"),
    };
    let ways = [levels(), sources()].concat();
    if wanted("server")
        && let Some(wrk) = Wrk::find()
    {
        server(&program, &wrk, &ways, rounds);
    }
    for (what, thing) in [("goroutine", "there and back between goroutines"), ("syscall", "system call")] {
        if wanted(what) {
            repeated(&program, what, thing, &ways, rounds);
        }
    }
}

fn way(name: &str, options: &[&[&str]]) -> Way {
    Way { name: name.to_owned(), options: options.concat().iter().map(|o| (*o).to_owned()).collect() }
}

impl Way {
    fn attach(&self, pid: u32) -> Attached {
        Attached::to(pid, &self.options.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn levels() -> Vec<Way> {
    vec![
        way("--no-timeline", &[&["--no-timeline"]]),
        way("default", &[NO_LIMIT]),
        way("--level kernel", &[&["--level", "kernel"], NO_LIMIT]),
        way("--level runtime", &[&["--level", "runtime"], NO_LIMIT]),
        way("--level full", &[&["--level", "full"], NO_LIMIT]),
        way("--level full --budget 1", &[&["--level", "full", "--budget", "1"]]),
    ]
}

/// Each source alone: everything on, and all others off again.
fn sources() -> Vec<Way> {
    let alone = |source: &&str| {
        let others: Vec<&str> = SOURCES.into_iter().filter(|other| other != source).collect();
        way(&format!("{source} alone"), &[&["--level", "full", "--without", &others.join(",")], NO_LIMIT])
    };
    SOURCES.iter().map(alone).collect()
}

/// Requests to a server.
fn server(program: &Path, wrk: &Wrk, ways: &[Way], rounds: usize) {
    let load = Load::start(program, "server");
    let run = || wrk.run(&load.ready, SERVER_SECONDS);
    run(); // Its heap and its connections reach their size.
    let mut figures = vec![(Figures::default(), Figures::default()); ways.len()];
    let mut bare = (Figures::default(), Figures::default());
    let mut notes = Vec::new();
    for _ in 0..rounds {
        let mut before = run();
        for (way, (throughput, p99)) in ways.iter().zip(&mut figures) {
            let attached = way.attach(load.pid());
            let with = run();
            notes.extend(attached.end().into_iter().map(|note| format!("{}: {note}", way.name)));
            let after = run();
            throughput.0.push(2.0 * with.throughput / (before.throughput + after.throughput));
            p99.0.push(2.0 * with.p99_ms / (before.p99_ms + after.p99_ms));
            bare.0.0.push(after.throughput);
            bare.1.0.push(after.p99_ms);
            before = after;
        }
    }
    println!(
        "\nserver: net/http by wrk, 16 connections, {SERVER_SECONDS} s, {rounds} rounds; without panicwatch {:.0} requests/s, p99 {:.2} ms",
        bare.0.median(),
        bare.1.median()
    );
    println!("  {:26} {:24} p99", "", "throughput");
    for (way, (throughput, p99)) in ways.iter().zip(&figures) {
        println!("  {:26} {:24} {}", way.name, throughput.told(), p99.told());
    }
    say(notes);
}

/// One thing, again and again.
fn repeated(program: &Path, what: &str, thing: &str, ways: &[Way], rounds: usize) {
    let mut load = Load::start(program, what);
    load.run(LOAD_MS);
    let mut figures = vec![(Figures::default(), Figures::default()); ways.len()];
    let mut bare = Figures::default();
    let mut notes = Vec::new();
    for _ in 0..rounds {
        let mut before = load.run(LOAD_MS);
        for (way, (ratio, more)) in ways.iter().zip(&mut figures) {
            let attached = way.attach(load.pid());
            let with = load.run(LOAD_MS);
            notes.extend(attached.end().into_iter().map(|note| format!("{}: {note}", way.name)));
            let after = load.run(LOAD_MS);
            let without = (before + after) / 2.0;
            ratio.0.push(without / with);
            more.0.push(with - without);
            bare.0.push(after);
            before = after;
        }
    }
    println!(
        "\n{what}: {thing}, {LOAD_MS} ms, {rounds} rounds; without panicwatch {:.0} ns each",
        bare.median()
    );
    println!("  {:26} {:24} ns more", "", "throughput");
    for (way, (ratio, more)) in ways.iter().zip(&figures) {
        println!("  {:26} {:24} {:.0}", way.name, ratio.told(), more.median());
    }
    say(notes);
}

/// What panicwatch had to say, once each.
fn say(mut notes: Vec<String>) {
    notes.sort();
    notes.dedup();
    notes.iter().for_each(|note| println!("  {note}"));
}

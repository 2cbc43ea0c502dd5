//! Each source can be left out, says so then, and tells something when it is not.

use anyhow::{Context, Result, ensure};

use super::{Built, lines, told::Line};
use crate::{
    fixtures::only,
    ledger::{End, Verdict},
    run::{self, Program},
};

/// A source.
pub(crate) struct Source {
    /// As `--without` takes it.
    pub(crate) name: &'static str,
    /// What the document calls its events; samples are none.
    events: &'static [&'static str],
    /// What makes the fixture provoke them; none: nothing does so reliably.
    scenario: Option<&'static str>,
}

/// All of them.
pub(crate) const SOURCES: [Source; 10] = [
    source("switch", &["switch_out", "switch_in"], Some("channel")),
    source("wakeup", &["waking"], Some("channel")),
    source("migrate", &["migrate"], None),
    source("signal", &["signal_sent", "signal_delivered"], Some("preempt")),
    source("syscall", &["syscall_enter", "syscall_exit"], Some("syscall")),
    source("fault", &["page_fault"], Some("gc")),
    source("sample", &[], Some("preempt")),
    source("gc", &["gc_start", "gc_mark_done", "stw_begin", "stw_end"], Some("gc")),
    source("assist", &["gc_assist"], None),
    source(
        "goroutine",
        &["go_create", "go_park", "go_ready", "go_run", "go_yield", "go_end"],
        Some("channel"),
    ),
];

const fn source(
    name: &'static str,
    events: &'static [&'static str],
    scenario: Option<&'static str>,
) -> Source {
    Source { name, events, scenario }
}

/// With it and without it.
pub(crate) fn without(built: &Built, name: &str) -> Verdict {
    let source = SOURCES.iter().find(|source| source.name == name).context("a source")?;
    let everything = ["--level", "full", "--budget", "100", "--window", "20ms"];
    let scenario = source.scenario.unwrap_or("gc");
    let with = line(built, scenario, &everything)?;
    if source.scenario.is_some() {
        ensure!(told(source, &with)? > 0, "with everything on {scenario} shows nothing of {name}");
    }
    let without = line(built, scenario, &[&everything[..], &["--without", name]].concat())?;
    ensure!(
        told(source, &without)? == 0,
        "it is off, and {} of its events are told",
        told(source, &without)?
    );
    // It says so, in one more sentence than what else is off.
    let off =
        |line: &Line| line.list("off").map(|off| off.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (before, after) = (off(&with)?, off(&without)?);
    let new: Vec<_> = after.iter().filter(|sentence| !before.contains(sentence)).collect();
    ensure!(!new.is_empty(), "nothing says that {name} is off: {after:?}");
    Ok(End::Passed)
}

/// How samples can be taken.
pub(crate) const WAYS_TO_SAMPLE: [&str; 2] = ["tick", "clock"];

/// A goroutine that spins is found spinning, in no kernel's code, whichever way samples are taken.
pub(crate) fn samples(built: &Built, way: &str) -> Verdict {
    let options = ["--window", "50ms", "--budget", "100"];
    let mut program = Program::new(&built.path, &["preempt", "/dev/null"]).with(&options);
    if way == "clock" {
        program.env.push(("PANICWATCH_SAMPLING_CLOCK".to_owned(), "1".to_owned()));
    }
    let run = run::watched(&program)?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    let line = lines(&[only(run.incidents)?])?.pop().context("no time line")?;
    let samples: Vec<&serde_json::Value> =
        line.list("tracks")?.iter().filter_map(|track| track["samples"].as_array()).flatten().collect();
    // It reads the clock now and then, in the kernel's code for that, which has no name here.
    let is_spinning = |frame: &serde_json::Value| {
        frame["function"].as_str().is_some_and(|name| matches!(name, "main.preempt.func1" | "main.work"))
    };
    let spins = |sample: &&&serde_json::Value| {
        sample["frames"].as_array().is_some_and(|frames| frames.iter().any(is_spinning))
    };
    let spinning = samples.iter().filter(spins).count();
    let outside = samples.iter().filter(|sample| sample["kernel"].is_null()).count();
    // Two CPUs in the window of 50 ms have 20 ticks of 250 a second, and 10 of 100.
    ensure!(samples.len() >= 4 && spinning * 4 >= samples.len() * 3, "{spinning} of {samples:?}");
    ensure!(outside * 2 >= samples.len(), "{outside} of them not in the kernel: {samples:?}");
    Ok(End::Passed)
}

fn line(built: &Built, scenario: &str, options: &[&str]) -> Result<Line> {
    let program = Program::new(&built.path, &[scenario, "/dev/null"]).with(options);
    let run = run::watched(&program)?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    lines(&[only(run.incidents)?])?.pop().context("no time line")
}

/// How much of a source's is in a time line.
fn told(source: &Source, line: &Line) -> Result<usize> {
    if source.events.is_empty() {
        let samples = line.list("tracks")?.iter().filter_map(|track| track["samples"].as_array());
        return Ok(samples.map(Vec::len).sum());
    }
    let is = |what: &serde_json::Value| source.events.iter().any(|event| what == event);
    Ok(line.list("events")?.iter().filter(|event| is(&event["what"])).count())
}

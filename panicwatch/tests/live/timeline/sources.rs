//! Each source can be disabled; the timeline then reports it as off, and otherwise has its events.

use anyhow::{Context, Result, ensure};

use super::{Built, lines, told::Line};
use crate::{
    fixtures::{self, only},
    gobuild::DEFAULT,
    ledger::{End, Verdict},
    run::{self, Program},
};

/// A source and how to provoke its events.
pub(crate) struct Source {
    /// Name accepted by `--without`.
    pub(crate) name: &'static str,
    /// Names of its events in the document; samples have none.
    events: &'static [&'static str],
    /// Fixture scenario that provokes them; `None` if nothing does so reliably.
    scenario: Option<&'static str>,
}

/// Every source that can be disabled.
pub(crate) const SOURCES: [Source; 11] = [
    source("switch", &["switch_out", "switch_in"], Some("channel")),
    source("wakeup", &["waking"], Some("channel")),
    source("migrate", &["migrate"], None),
    source("signal", &["signal_sent", "signal_delivered"], Some("preempt")),
    source("syscall", &["syscall_enter", "syscall_exit"], Some("syscall")),
    source("fault", &["page_fault"], Some("gc")),
    source("send", &["send"], None),
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

/// Runs with the source and without it.
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
    // The timeline lists it in `off`, in addition to what is off anyway.
    let off =
        |line: &Line| line.list("off").map(|off| off.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (before, after) = (off(&with)?, off(&without)?);
    let new: Vec<_> = after.iter().filter(|sentence| !before.contains(sentence)).collect();
    ensure!(!new.is_empty(), "nothing says that {name} is off: {after:?}");
    Ok(End::Passed)
}

/// Ways in which samples are taken.
pub(crate) const WAYS_TO_SAMPLE: [&str; 2] = ["tick", "clock"];

/// A spinning goroutine is sampled in its loop and not in the kernel, in both ways of sampling.
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
    // It reads the clock now and then, in the kernel's code for that (vDSO), which has no name here.
    let is_spinning = |frame: &serde_json::Value| {
        frame["function"].as_str().is_some_and(|name| matches!(name, "main.preempt.func1" | "main.work"))
    };
    let spins = |sample: &&&serde_json::Value| {
        sample["frames"].as_array().is_some_and(|frames| frames.iter().any(is_spinning))
    };
    let spinning = samples.iter().filter(spins).count();
    let outside = samples.iter().filter(|sample| sample["kernel"].is_null()).count();
    // On two CPUs, a window of 50 ms has 20 ticks at 250 per second, and 10 at 100.
    ensure!(samples.len() >= 4 && spinning * 4 >= samples.len() * 3, "{spinning} of {samples:?}");
    ensure!(outside * 2 >= samples.len(), "{outside} of them not in the kernel: {samples:?}");
    Ok(End::Passed)
}

/// In a server that is never idle, socket sends show which goroutine runs: where a thread changed goroutines
/// without a switch in the kernel, less than half as much time is unknown as without them.
pub(crate) fn sends(built: &Built, count: &str) -> Verdict {
    let server = match fixtures::build("neighbours", DEFAULT, &Ok(built.toolchain.clone()))? {
        Ok((_, server)) => server,
        Err(reason) => return Ok(End::Skipped(reason)),
    };
    let unknown = |without: &str| -> Result<(u64, Vec<String>)> {
        let options = ["--budget", "off", "--host-budget", "off", "--without", without];
        let run = run::watched(&Program::new(&server, &["100", count]).with(&options))?;
        ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
        ensure!(run.incidents.len().to_string() == count, "{} incidents of {count}", run.incidents.len());
        let lines = lines(&run.incidents)?;
        let unknown = lines.iter().map(|line| line.summary("unknown_ns")).sum::<Result<u64>>()?;
        let off = lines.first().context("no time line")?.list("off")?;
        let why = off.iter().filter(|off| off["source"] == "send").map(|off| off["reason"].to_string());
        Ok((unknown, why.collect()))
    };
    let (with, why_off) = unknown("sample,wakeup")?;
    if let Some(reason) = why_off.first() {
        ensure!(reason.contains("Linux 6.3"), "sends are off: {reason}");
        return Ok(End::Skipped("the kernel has no tracepoint for socket sends (Linux 6.3)".to_owned()));
    }
    let (without, why_off) = unknown("sample,wakeup,send")?;
    ensure!(why_off == ["\"not requested\""], "{why_off:?}");
    ensure!(with * 2 < without, "{with} ns unknown with the sends of {count} incidents, {without} without");
    Ok(End::Passed)
}

fn line(built: &Built, scenario: &str, options: &[&str]) -> Result<Line> {
    let program = Program::new(&built.path, &[scenario, "/dev/null"]).with(options);
    let run = run::watched(&program)?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    lines(&[only(run.incidents)?])?.pop().context("no time line")
}

/// Returns the number of a source's events, or of samples, in a timeline.
fn told(source: &Source, line: &Line) -> Result<usize> {
    if source.events.is_empty() {
        let samples = line.list("tracks")?.iter().filter_map(|track| track["samples"].as_array());
        return Ok(samples.map(Vec::len).sum());
    }
    let is = |what: &serde_json::Value| source.events.iter().any(|event| what == event);
    Ok(line.list("events")?.iter().filter(|event| is(&event["what"])).count())
}

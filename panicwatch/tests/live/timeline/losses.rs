//! Nothing may be lost: neither the timeline of a process that ends at once nor any record of a continuous
//! stream. What is lost must be reported.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use panicwatch::incident::Incident;
use serde_json::Value;

use super::{Built, lines, told::Line};
use crate::{
    fixtures::only,
    ledger::{End, Verdict},
    need,
    run::{self, Program, Watched},
};

/// Ways in which the process ends while it panics.
pub(crate) const ENDINGS: [&str; 3] = ["crash", "exit", "kill"];

/// The goroutine's last milliseconds are reported although the process no longer exists.
pub(crate) fn outlives(built: &Built, ending: &str) -> Verdict {
    let program = Program::new(&built.path, &["channel", "-", ending]);
    let run = run::watched(&program.with(&["--level", "runtime"]))?;
    let status = match ending {
        "crash" => 2,
        "exit" => 3,
        _ => 128 + libc::SIGKILL,
    };
    ensure!(run.output.status == status, "exit status {}: {}", run.output.status, run.output.stderr);
    let incident = only(run.incidents)?;
    let line = lines(std::slice::from_ref(&incident))?.pop().context("no time line")?;
    let (from, raise) = line.window()?;
    ensure!(raise - from == 10_000_000, "a window of {} ns", raise - from);
    ensure!(line.number("lost")? == 0, "{} records lost", line.number("lost")?);
    // It waited for five messages, two milliseconds each, and worked half a millisecond after each.
    let (waiting, running) = (line.summary("waiting_ns")?, line.summary("running_ns")?);
    ensure!(waiting > 4_000_000, "it waited {waiting} ns");
    ensure!(running > 1_000_000, "it ran {running} ns");
    ensure!(line.summary("unknown_ns")? < 1_000_000, "{} ns are unknown", line.summary("unknown_ns")?);
    let goroutine = incident.goroutine.as_ref().context("no goroutine")?.id;
    let told = line.told(goroutine, true)?;
    ensure!(told.spans.iter().any(|span| span.reason == "chan receive"), "{:?}", told.spans);
    Ok(End::Passed)
}

/// Numbered system calls at a hundred thousand records per second: every call in every window is present.
pub(crate) fn flood(built: &Built, _: &str) -> Verdict {
    let seconds = if need::full() { "60" } else { "5" };
    let mut demanded = 0;
    for Flooded { line, next, made, .. } in flooded(built, seconds, None)? {
        ensure!(line.number("lost")? == 0, "{} records of a window are lost", line.number("lost")?);
        ensure!(line.list("gaps")?.is_empty(), "gaps {:?}", line.list("gaps")?);
        let seen = numbers(&line)?;
        let (first, last) = (seen.first().context("none")?, seen.last().context("none")?);
        ensure!(*last + 1 == next, "call {} was the last before the panic, {last} is told", next - 1);
        ensure!(last - first + 1 == seen.len() as u64, "{} calls of {first} to {last}", seen.len());
        ensure!(*first + made <= next, "{made} calls were made in the window, {} are told", next - first);
        demanded += made;
    }
    ensure!(demanded > 200, "{demanded} calls in all windows: that is no flood");
    Ok(End::Passed)
}

/// With a ring that holds less than a window, every incident reports the loss.
pub(crate) fn small_ring(built: &Built, slots: &str) -> Verdict {
    let room = slots.parse::<u64>()? * processors()?;
    let mut too_many = 0;
    for Flooded { incident, line, made, .. } in flooded(built, "2", Some(slots))? {
        let told = numbers(&line)?.len() as u64;
        ensure!(told <= room, "{told} calls from rings of {room} records: they are not small");
        let goroutine = incident.goroutine.as_ref().context("no goroutine")?;
        let thread = goroutine.thread_id.context("no thread")?;
        let elsewhere = line.ran_elsewhere(goroutine.id, thread);
        ensure!(elsewhere.is_none(), "it panicked on thread {thread}, and {elsewhere:?}");
        if made * RECORDS_A_CALL <= room {
            continue;
        }
        too_many += 1;
        ensure!(line.number("lost")? > 0, "records were lost, and none is said to be");
        ensure!(!line.list("gaps")?.is_empty(), "{} records lost, and not where", line.number("lost")?);
        ensure!(line.summary("unknown_ns")? > 0, "records were lost, and everything is known");
    }
    ensure!(too_many > 0, "no window had more records than {room}");
    Ok(End::Passed)
}

/// A system call is recorded at entry and at exit.
const RECORDS_A_CALL: u64 = 2;

/// Returns the number of rings: one per CPU.
fn processors() -> Result<u64> {
    Ok(std::thread::available_parallelism()?.get() as u64)
}

/// A panic of the flooding program, and what the program printed about it.
struct Flooded {
    incident: Incident,
    line: Line,
    /// Number that the program would have given its next call.
    next: u64,
    /// Lower bound of the number of calls within the window.
    made: u64,
}

fn flooded(built: &Built, seconds: &str, slots: Option<&str>) -> Result<Vec<Flooded>> {
    let options = ["--level", "kernel"];
    let mut program = Program::new(&built.path, &["flood", seconds]).with(&options);
    program.env.extend(slots.map(|slots| ("PANICWATCH_RECORDER_SLOTS".to_owned(), slots.to_owned())));
    let Watched { output, incidents } = run::watched_within(&program, run::DEADLINE * 2)?;
    ensure!(output.status == 0, "exit status {}: {}", output.status, output.stderr);
    let said: Vec<Vec<u64>> = output.stdout.lines().map(words).collect();
    let Some(([calls, ns], panics)) = said.split_first().map(|(first, rest)| (first.as_slice(), rest)) else {
        bail!("it said {}", output.stdout)
    };
    let records_a_second = RECORDS_A_CALL * calls * 1_000_000_000 / ns;
    if need::full() && slots.is_none() {
        // This is a measurement that needs an otherwise idle machine.
        ensure!(records_a_second > 90_000, "the program made {records_a_second} records a second only");
    }
    ensure!(incidents.len() == panics.len(), "{} incidents of {}", incidents.len(), panics.len());
    let all = lines(&incidents)?;
    incidents
        .into_iter()
        .zip(all)
        .zip(panics)
        .map(|((incident, line), said)| of(incident, line, said))
        .collect()
}

/// Combines an incident with the program's line about it.
fn of(incident: Incident, line: Line, said: &[u64]) -> Result<Flooded> {
    let (next, lots) = said.split_first().context("an empty line")?;
    let text = incident.message.as_deref().unwrap_or_default();
    ensure!(text.contains(&next.to_string()), "{text:?} is not the panic before call {next}");
    let (from, _) = line.window()?;
    let made = CALLS_AT_ONCE * lots.iter().filter(|began| **began >= from).count() as u64;
    Ok(Flooded { incident, line, next: *next, made })
}

/// Calls per batch of the fixture (callsAtOnce).
const CALLS_AT_ONCE: u64 = 5;

/// Parses the numbers of a line.
fn words(line: &str) -> Vec<u64> {
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect()
}

/// Returns the numbers of the calls that began before the panic.
fn numbers(line: &Line) -> Result<BTreeSet<u64>> {
    let raise = line.number("raise_ns")?;
    let number = |event: &Value| {
        let is = event["what"] == "syscall_enter" && event["name"] == "getppid";
        let before = event["time_ns"].as_u64()? <= raise;
        let number = event["args"].get(0)?.as_str()?.strip_prefix("0x")?;
        (is && before).then(|| u64::from_str_radix(number, 16).ok())?
    };
    Ok(line.list("events")?.iter().filter_map(number).collect())
}

//! What must not be lost: the time line of a process that ends at once, and any record of a stream of them; and what
//! is lost must be said.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use panicwatch::incident::Incident;
use serde_json::Value;

use super::{Built, lines, told::Line};
use crate::{
    fixtures::only,
    ledger::{End, Verdict},
    need,
    run::{self, Program, Watched},
};

/// Ways for the process to end while it panics.
pub(crate) const ENDINGS: [&str; 3] = ["crash", "exit", "kill"];

/// The goroutine's last milliseconds are told though nobody is left to ask.
pub(crate) fn outlives(built: &Built, ending: &str) -> Verdict {
    let program = Program::new(&built.path, &["channel", "-", ending]);
    let run = run::watched(&program.with(&["--level", "runtime", "--budget", "100"]))?;
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

/// Numbered system calls at a hundred thousand records a second; every one in every window is there.
pub(crate) fn flood(built: &Built, _: &str) -> Verdict {
    let seconds = if need::full() { "60" } else { "5" };
    for (_, line, next) in flooded(built, seconds, None)? {
        ensure!(line.number("lost")? == 0, "{} records of a window are lost", line.number("lost")?);
        ensure!(line.list("gaps")?.is_empty(), "gaps {:?}", line.list("gaps")?);
        let seen = numbers(&line)?;
        // The window holds a hundred ticks of five calls; the machine may have been busy with others for some.
        ensure!(seen.len() > 100, "{} calls in a window", seen.len());
        let (first, last) = (seen.first().context("none")?, seen.last().context("none")?);
        ensure!(*last + 1 == next, "call {} was the last before the panic, {last} is told", next - 1);
        ensure!(last - first + 1 == seen.len() as u64, "{} calls of {first} to {last}", seen.len());
    }
    Ok(End::Passed)
}

/// A ring that holds less than a window says so in every incident.
pub(crate) fn small_ring(built: &Built, slots: &str) -> Verdict {
    for (incident, line, _) in flooded(built, "2", Some(slots))? {
        let told = numbers(&line)?.len();
        ensure!(told < 400, "{told} calls from a ring of {slots} records: it is not small");
        ensure!(line.number("lost")? > 0, "records were lost, and none is said to be");
        ensure!(!line.list("gaps")?.is_empty(), "{} records lost, and not where", line.number("lost")?);
        ensure!(line.summary("unknown_ns")? > 0, "records were lost, and everything is known");
        let goroutine = incident.goroutine.as_ref().context("no goroutine")?;
        let thread = goroutine.thread_id.context("no thread")?;
        let elsewhere = line.ran_elsewhere(goroutine.id, thread);
        ensure!(elsewhere.is_none(), "it panicked on thread {thread}, and {elsewhere:?}");
    }
    Ok(End::Passed)
}

/// The incidents, each with its time line and the number that the program would have given its next call.
fn flooded(built: &Built, seconds: &str, slots: Option<&str>) -> Result<Vec<(Incident, Line, u64)>> {
    let options = ["--level", "kernel", "--budget", "100"];
    let mut program = Program::new(&built.path, &["flood", seconds]).with(&options);
    program.env.extend(slots.map(|slots| ("PANICWATCH_RECORDER_SLOTS".to_owned(), slots.to_owned())));
    let Watched { output, incidents } = run::watched_within(&program, run::DEADLINE * 2)?;
    ensure!(output.status == 0, "exit status {}: {}", output.status, output.stderr);
    let mut said = output.stdout.split_whitespace().filter_map(|word| word.parse::<u64>().ok());
    let (calls, ns) = said.next().zip(said.next()).context("no count")?;
    let records_a_second = 2 * calls * 1_000_000_000 / ns;
    ensure!(records_a_second > 90_000, "the program made {records_a_second} records a second only");
    ensure!(incidents.len() as u64 >= ns / 300_000_000, "{} incidents in {ns} ns", incidents.len());
    let all = lines(&incidents)?;
    let with_next = |(incident, line): (Incident, Line)| {
        let text = incident.message.as_deref().unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let next = digits.parse().with_context(|| format!("no number in {text:?}"))?;
        Ok((incident, line, next))
    };
    incidents.into_iter().zip(all).map(with_next).collect()
}

/// The numbers of the calls that began.
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

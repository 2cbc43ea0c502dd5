//! States of the panicking goroutine and the collector's phases, compared with Go's execution tracer of the
//! same run.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Built, lines};
use crate::{
    fixtures::only,
    gobuild,
    lanes::{
        Trace,
        compare::{Tolerance, compare},
        old, parsed,
    },
    ledger::{End, Verdict, none},
    run::{self, Program},
};

/// Scenarios of the fixture.
pub(crate) const SCENARIOS: [&str; 5] = ["channel", "mutex", "gc", "preempt", "syscall"];

/// With all of the runtime's events, every state is known and must agree.
pub(crate) fn agrees(built: &Built, scenario: &str) -> Verdict {
    judge(built, scenario, &["--level", "runtime", "--budget", "100"], true)
}

/// At the default level, states that are not inferred must be true; many are unknown.
pub(crate) fn agrees_by_default(built: &Built, scenario: &str) -> Verdict {
    judge(built, scenario, &["--budget", "100"], false)
}

fn judge(built: &Built, scenario: &str, options: &[&str], whole: bool) -> Verdict {
    if scenario == "syscall" && !built.toolchain.release.has_trace_v2() {
        return Ok(End::Skipped(
            "the traces of Go 1.21 and earlier do not tell when a system call ended that kept its P"
                .to_owned(),
        ));
    }
    let dir = TempDir::new()?;
    let file = dir.path().join("trace");
    let arguments = [scenario, file.to_str().context("a path")?];
    let run = run::watched(&Program::new(&built.path, &arguments).with(options))?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    let trace = read(built, &file)?;
    let note = trace.panic().context("the program wrote no note of its panic")?;
    ensure!(
        run.output.stdout == format!("goroutine {}\ndone\n", note.goroutine),
        "{:?}, and the note is of goroutine {}",
        run.output.stdout,
        note.goroutine
    );
    let incident = only(run.incidents)?;
    let id = incident.goroutine.as_ref().map(|g| g.id);
    ensure!(id == Some(note.goroutine), "the incident is of goroutine {id:?}, not {}", note.goroutine);
    let line = lines(std::slice::from_ref(&incident))?.pop().context("no time line")?;
    let (from, raise) = line.window()?;
    ensure!(
        raise.checked_sub(note.clock_ns).is_some_and(|after| after < 3_000_000),
        "raised at {raise}, the program read its clock at {}",
        note.clock_ns
    );
    ensure!(raise - from == 10_000_000, "a window of {} ns", raise - from);
    let mut told = line.told(note.goroutine, whole)?;
    // The tracer recorded nothing before the trace began.
    let begin = trace.notes.first().context("no notes")?.clock_ns;
    told.window.0 = told.window.0.max(begin);
    ensure!(raise - told.window.0 > 5_000_000, "the trace began {} ns before the raise", raise - begin);
    none(
        "the time line is not what the tracer says",
        &compare(&trace, note.goroutine, &told, Tolerance::USUAL),
    )?;
    Ok(End::Passed)
}

/// Reads the trace with the release's own tool.
fn read(built: &Built, file: &std::path::Path) -> Result<Trace> {
    let release = built.toolchain.release;
    let how = match (release.has_trace_v2(), release.trace_tool_names_modes()) {
        (false, _) => "-d",
        (true, false) => "-d=1",
        (true, true) => "-d=parsed",
    };
    let output = gobuild::go(&built.toolchain)
        .args(["tool", "trace", how])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .context("go tool trace")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "go tool trace: {errors}");
    let text = String::from_utf8_lossy(&output.stdout);
    let trace = if release.has_trace_v2() { parsed::read(&text) } else { old::read(&text) };
    trace.map_err(|why| anyhow::anyhow!("{why}; {errors}"))
}

//! Functions named by the user: every entry within the window, and the goroutine that entered.

use anyhow::{Context, ensure};

use super::{Built, lines};
use crate::{
    fixtures::only,
    ledger::{End, Verdict},
    run::{self, Program},
};

/// Number of times the scenario calls the function: once after each message.
const TURNS: usize = 5;

/// Records the entries of one function selected by a pattern, and reports a pattern that matches none.
pub(crate) fn entries(built: &Built, name: &str) -> Verdict {
    let program = |pattern: &'static str| {
        let options = ["--window", "100ms", "--function", pattern, "--budget", "100"];
        Program::new(&built.path, &["channel", "/dev/null"]).with(&options)
    };
    let run = run::watched(&program("main.sp?n"))?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    let incident = only(run.incidents)?;
    let goroutine = incident.goroutine.as_ref().context("no goroutine")?.id;
    let line = lines(&[incident])?.pop().context("no time line")?;
    let entries: Vec<_> = line.list("events")?.iter().filter(|event| event["what"] == "function").collect();
    ensure!(entries.len() == TURNS, "{} entries, not {TURNS}: {entries:?}", entries.len());
    ensure!(entries.iter().all(|entry| entry["name"] == name), "other functions: {entries:?}");
    ensure!(entries.iter().all(|entry| entry["goroutine"] == goroutine), "not of {goroutine}: {entries:?}");

    let run = run::watched(&program("main.nothing"))?;
    let told = run.output.stderr;
    ensure!(told.contains("no function of the program is recorded for main.nothing"), "{told:?}");
    Ok(End::Passed)
}

//! The budget: what costs too much is taken off, and every time line that it touches says so.

use anyhow::{Context, Result, ensure};

use super::{Built, lines, told::Line};
use crate::{
    ledger::{End, Verdict},
    run::{self, Program},
};

/// Fifty thousand system calls a second, each recorded twice: some percent of a core, where one is allowed.
pub(crate) fn sheds(built: &Built, seconds: &str) -> Verdict {
    let program =
        Program::new(&built.path, &["flood", seconds]).with(&["--level", "kernel", "--budget", "1"]);
    let run = run::watched(&program)?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    ensure!(run.output.stderr.is_empty(), "not for the program's own error output: {}", run.output.stderr);
    let lines = lines(&run.incidents)?;
    let first = lines.first().context("no incident")?;
    ensure!(why_off(first, "syscall")?.is_none(), "off before anything was measured");
    ensure!(calls(first)? > 0, "no system call is told at first");
    let last = lines.last().context("no incident")?;
    let why = why_off(last, "syscall")?.context("system calls are recorded to the end")?;
    ensure!(why.starts_with("it cost ") && why.ends_with("the budget is 1 %"), "{why:?}");
    ensure!(calls(last)? == 0, "it is off, and {} system calls are told", calls(last)?);
    Ok(End::Passed)
}

fn why_off(line: &Line, source: &str) -> Result<Option<String>> {
    let off = line.list("off")?.iter().find(|off| off["source"] == source);
    Ok(off.and_then(|off| off["reason"].as_str()).map(str::to_owned))
}

fn calls(line: &Line) -> Result<usize> {
    Ok(line.list("events")?.iter().filter(|event| event["what"] == "syscall_enter").count())
}

//! `trace`, compared with programs that count their own calls and print their own arguments.

mod counts;
mod process;
mod values;

use std::{collections::HashMap, fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    compare::runs::Output,
    matrix::{self, Built, Row},
    run::{self, PANICWATCH},
};

/// Name, fixture, test, and whether every build flavour is tested.
const TESTS: &[Row] = &[
    ("every call is counted", "calls", counts::every_call, true),
    ("only counts", "calls", counts::only_counts, false),
    ("exits and unwinding", "calls", counts::exits, true),
    ("counted though lost", "calls", counts::lost, false),
    ("filters", "calls", counts::filters, false),
    ("the runtime", "calls", process::runtime, false),
    ("everything, with exits", "calls", process::everything, false),
    ("a running process", "calls", process::running, false),
    ("panicwatch killed", "calls", process::killed, false),
    ("text and perfetto", "calls", process::formats, false),
    ("arguments", "arguments", values::arguments, true),
    ("results", "arguments", values::results, true),
    ("conditions", "arguments", values::conditions, false),
    ("callers", "arguments", values::callers, true),
];

/// Returns every test of the group. The oldest release, the last one with probes on the stack check, and the
/// newest are built in every flavour.
pub(crate) fn trials() -> Vec<Trial> {
    matrix::trials("trace", TESTS, &["1.19", "1.24", "1.27"])
}

/// Output and events of a traced run.
struct Traced {
    output: Output,
    /// Every line except the last one, which is the summary.
    events: Vec<Value>,
    summary: Value,
}

impl Traced {
    /// Runs `panicwatch trace OPTIONS -o FILE -- PROGRAM ARGS`.
    fn run(options: &[&str], program: &Path, args: &[&str]) -> Result<Traced> {
        let dir = TempDir::new()?;
        let file = dir.path().join("trace.jsonl");
        let mut command = Command::new(PANICWATCH);
        command.arg("trace").args(options).arg("-o").arg(&file).arg("--").arg(program).args(args);
        let output = run::finish(command)?;
        ensure!(output.status == 0, "status {}: {}", output.status, output.stderr);
        let (events, summary) = read(&file)?;
        Ok(Traced { output, events, summary })
    }

    /// Returns the lines of one event type and function.
    fn of<'a>(&'a self, event: &'a str, function: &'a str) -> impl Iterator<Item = &'a Value> {
        self.events.iter().filter(move |line| line["event"] == event && line["function"] == function)
    }

    /// Returns a counter of a function in the summary; 0 for a function that was not called.
    fn count(&self, function: &str, what: &str) -> u64 {
        let all = self.summary["functions"].as_array().map_or(&[][..], Vec::as_slice);
        all.iter().filter(|f| f["function"] == function).filter_map(|f| f[what].as_u64()).sum()
    }
}

/// Reads the lines of a file and its last line, which is the summary.
fn read(file: &Path) -> Result<(Vec<Value>, Value)> {
    let text = fs::read_to_string(file)?;
    let lines: Result<Vec<Value>, _> = text.lines().map(serde_json::from_str).collect();
    let mut lines = lines.context("a line is not JSON")?;
    let summary = lines.pop().context("no line")?;
    ensure!(summary["summary"] == true, "the last line is {summary}");
    Ok((lines, summary))
}

/// Parses the program's own counts: lines of "name number".
fn truth(stdout: &str) -> HashMap<&str, u64> {
    stdout
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(k, v)| Some((k, v.parse().ok()?)))
        .collect()
}

//! Runs cells, collects their results, and prints the table at the end.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::{Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use libtest_mimic::{Completion, Failed, Trial};

/// How a cell ends without failing.
pub(crate) enum End {
    /// The cell ran and passed.
    Passed,
    /// The cell did not run, for this reason.
    Skipped(String),
}

/// Result of a cell.
pub(crate) type Verdict = anyhow::Result<End>;

static RESULTS: Mutex<BTreeMap<(String, String), String>> = Mutex::new(BTreeMap::new());

/// Returns a trial `GROUP::COLUMN::ROW` that records its result in the table of its group.
pub(crate) fn cell(
    group: &str,
    column: &str,
    row: &str,
    run: impl Fn() -> Verdict + Send + 'static,
) -> Trial {
    let place = (format!("{group}  {row}"), column.to_owned());
    Trial::ignorable_test(format!("{group}::{column}::{row}"), move || {
        let began = Instant::now();
        let (verdict, first_failure) = alone_when_it_fails(&run);
        let mut took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
        *took.entry(place.0.clone()).or_default() += began.elapsed();
        drop(took);
        let entry = match &verdict {
            Ok(End::Passed) if first_failure.is_some() => "passed, alone".to_owned(),
            Ok(End::Passed) => "passed".to_owned(),
            Ok(End::Skipped(reason)) => format!("skipped ({reason})"),
            Err(_) => "FAILED".to_owned(),
        };
        if let Some(failure) = first_failure {
            let mut retried = RETRIED.lock().unwrap_or_else(PoisonError::into_inner);
            retried.push(format!("{} {}: {failure:.300}", place.0, place.1));
        }
        RESULTS.lock().unwrap_or_else(PoisonError::into_inner).insert(place, entry);
        match verdict {
            Ok(End::Passed) => Ok(Completion::Completed),
            Ok(End::Skipped(reason)) => Ok(Completion::ignored_with(reason)),
            Err(error) => Err(Failed::from(format!("{error:#}"))),
        }
    })
}

/// Time spent in the cells of each row.
static TOOK: Mutex<BTreeMap<String, Duration>> = Mutex::new(BTreeMap::new());
/// Number of rows listed as the slowest.
const SLOWEST: usize = 15;

static RETRIED: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// Locked for reading by a test that runs in parallel, for writing by one that must run alone.
static MACHINE: RwLock<()> = RwLock::new(());

/// Runs a cell; if it fails in parallel, it is retried alone, up to twice, and its first failure is returned
/// too: programs with data races can end differently on busy cores.
fn alone_when_it_fails(run: &impl Fn() -> Verdict) -> (Verdict, Option<String>) {
    let among_others = {
        let _machine = MACHINE.read().unwrap_or_else(PoisonError::into_inner);
        run()
    };
    let Err(error) = among_others else { return (among_others, None) };
    let _machine = MACHINE.write().unwrap_or_else(PoisonError::into_inner);
    let verdict = run().or_else(|_| run());
    (verdict, Some(format!("{error:#}")))
}

/// Turns differences into one failure that lists them all.
pub(crate) fn none(what: &str, differences: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(differences.is_empty(), "{what}:\n  {}", differences.join("\n  "));
    Ok(())
}

/// Prints every cell that ran: a line per row, a column per release.
pub(crate) fn print_table() -> io::Result<()> {
    let results = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut columns: Vec<&String> = results.keys().map(|(_, column)| column).collect();
    columns.sort();
    columns.dedup();
    let mut out = io::stdout().lock();
    let mut reasons: Vec<&str> = Vec::new();
    let mut last = "";
    for (row, _) in results.keys() {
        if row == last {
            continue;
        }
        last = row;
        write!(out, "{row:<52}")?;
        for column in &columns {
            let Some(result) = results.get(&(row.clone(), (*column).clone())) else { continue };
            let short = if let Some(reason) = result.strip_prefix("skipped ") {
                let at = reasons.iter().position(|r| *r == reason).unwrap_or(reasons.len());
                if at == reasons.len() {
                    reasons.push(reason);
                }
                format!("skipped[{}]", at + 1)
            } else {
                result.clone()
            };
            write!(out, " {column}:{short}")?;
        }
        writeln!(out)?;
    }
    for (i, reason) in reasons.iter().enumerate() {
        writeln!(out, "skipped[{}]: {reason}", i + 1)?;
    }
    for retried in RETRIED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        writeln!(out, "first failed, beside another test: {}", retried.replace('\n', " "))?;
    }
    let took = TOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let mut slowest: Vec<_> = took.iter().collect();
    slowest.sort_by_key(|(_, took)| std::cmp::Reverse(**took));
    for (row, took) in slowest.into_iter().take(SLOWEST) {
        writeln!(out, "slowest: {:6.1} s  {row}", took.as_secs_f64())?;
    }
    let count = |what: &str| results.values().filter(|r| r.starts_with(what)).count();
    writeln!(out, "{} passed, {} FAILED, {} skipped", count("passed"), count("FAILED"), count("skipped"))
}

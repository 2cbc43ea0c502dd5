//! Counts are exact to the last call: with deep recursion on growing stacks, many goroutines, panics and
//! Goexit, and the collector running.

use anyhow::{Context, Result, ensure};

use super::{Built, Traced, truth};

/// Functions of the fixture that count their own calls.
const COUNTED: [&str; 6] = ["deep", "leaf", "panics", "exits", "recovers", "slow"];
const ROUNDS: &str = "20";

fn agrees(run: &Traced) -> Result<()> {
    let truth = truth(&run.output.stdout);
    for name in COUNTED {
        let own = *truth.get(name).with_context(|| format!("the program does not tell of {name}"))?;
        let ours = run.count(&format!("main.{name}"), "entries");
        ensure!(own == ours && own > 0, "{name} was called {own} times, trace counted {ours}");
    }
    Ok(())
}

pub(super) fn every_call(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*"], &built.path, &[ROUNDS])?;
    agrees(&run)?;
    ensure!(run.summary["lost"] == 0, "lost: {}", run.summary);
    for name in COUNTED {
        let function = format!("main.{name}");
        let (lines, counted) = (run.of("entry", &function).count() as u64, run.count(&function, "entries"));
        ensure!(lines == counted, "{name}: {lines} lines, {counted} counted");
    }
    ensure!(run.summary["entries"] == run.events.len(), "{} lines, {}", run.events.len(), run.summary);
    // Recursive calls are nested to their depth: deep(50) and more, below a goroutine's function.
    let deepest = run.of("entry", "main.deep").filter_map(|line| line["depth"].as_u64()).max();
    ensure!(deepest.is_some_and(|depth| (240..=245).contains(&depth)), "deepest call at {deepest:?}");
    let main = run.of("entry", "main.main").next().context("main.main was not seen")?;
    ensure!(main["goroutine"] == 1 && main["depth"] == 0, "{main}");
    let place = (main["file"].as_str().unwrap_or_default(), main["line"].as_u64().unwrap_or_default());
    ensure!(place.0.ends_with("calls/main.go") && place.1 > 0, "{main}");
    Ok(())
}

/// With --count there are counts but no events.
pub(super) fn only_counts(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*", "--count"], &built.path, &[ROUNDS])?;
    agrees(&run)?;
    ensure!(run.events.is_empty(), "calls are told: {:?}", run.events);
    ensure!(run.summary["lost"] == 0, "lost: {}", run.summary);
    let run = Traced::run(&["main.*", "--count", "--goroutine", "1"], &built.path, &["1"])?;
    let functions = run.summary["functions"].as_array().context("no functions")?;
    let of: Vec<_> = functions.iter().map(|f| (f["function"].as_str(), f["entries"].as_u64())).collect();
    ensure!(
        of == [(Some("main.main"), Some(1)), (Some("main.slow"), Some(1))]
            || of == [(Some("main.slow"), Some(1)), (Some("main.main"), Some(1))],
        "on goroutine 1: {of:?}"
    );
    Ok(())
}

pub(super) fn exits(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*", "--duration"], &built.path, &[ROUNDS])?;
    agrees(&run)?;
    ensure!(run.summary["lost"] == 0, "lost: {}", run.summary);
    // Functions that return do so as often as they are called; calls that are unwound are reported as such.
    for (name, event) in [
        ("deep", "exit"),
        ("leaf", "exit"),
        ("recovers", "exit"),
        ("slow", "exit"),
        ("panics", "unwound"),
        ("exits", "unwound"),
    ] {
        let function = format!("main.{name}");
        let entries = run.count(&function, "entries") as usize;
        let ended = run.of(event, &function).count();
        ensure!(entries == ended, "{name}: {entries} entries, {ended} times {event}");
        let unknown = run.of(event, &function).filter(|line| !line["duration_ns"].is_u64()).count();
        ensure!(unknown == 0, "{name}: {unknown} without a duration");
    }
    ensure!(run.count("main.panics", "exits") + run.count("main.exits", "exits") == 0, "{}", run.summary);
    // The program measures inside the call, so its duration is the shorter one. A thread may be preempted
    // between the two measurements, but not for as long as the sleep.
    let own = truth(&run.output.stdout)["took"];
    let ours = run.of("exit", "main.slow").next().and_then(|line| line["duration_ns"].as_u64());
    let ours = ours.context("main.slow did not return")?;
    ensure!((own..own + 20_000_000).contains(&ours), "the program slept {own} ns, its call took {ours} ns");
    nested(&run)
}

/// On each goroutine, entries and ends pair up like brackets, including their depths.
fn nested(run: &Traced) -> Result<()> {
    let mut open: std::collections::HashMap<u64, Vec<&str>> = std::collections::HashMap::new();
    for line in &run.events {
        let goroutine = line["goroutine"].as_u64().context("no goroutine")?;
        let (function, depth) = (line["function"].as_str().context("no name")?, line["depth"].as_u64());
        let calls = open.entry(goroutine).or_default();
        if line["event"] == "entry" {
            ensure!(depth == Some(calls.len() as u64), "{line} at depth {}", calls.len());
            calls.push(function);
        } else {
            let last = calls.pop();
            ensure!(last == Some(function) && depth == Some(calls.len() as u64), "{line} ends {last:?}");
        }
    }
    Ok(())
}

/// Uses a ring that is far too small.
pub(super) fn lost(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*", "--stack", "--buffer", "1"], &built.path, &["200"])?;
    agrees(&run)?;
    let lost = run.summary["lost"].as_u64().context("no lost")?;
    let entries = run.summary["entries"].as_u64().context("no entries")?;
    ensure!(lost + run.events.len() as u64 == entries, "{lost} lost, {} told, {entries}", run.events.len());
    ensure!(lost > 0, "nothing was lost: the test is too small");
    ensure!(run.output.stderr.contains(&format!("{lost} events are counted but not shown")), "not said");
    Ok(())
}

pub(super) fn filters(built: &Built) -> Result<()> {
    let run = Traced::run(&["main.*", "--goroutine", "1"], &built.path, &["1"])?;
    let of: Vec<_> = run.events.iter().map(|line| line["function"].as_str().unwrap_or_default()).collect();
    ensure!(of == ["main.main", "main.slow"], "on goroutine 1: {of:?}");
    let run = Traced::run(&["/main\\.(slow|leaf)$/", "--min-duration", "15ms"], &built.path, &["1"])?;
    let slow: Vec<_> = run.events.iter().filter(|line| line["function"] == "main.slow").collect();
    ensure!(slow.len() == 1 && slow[0]["event"] == "exit", "{slow:?}");
    let long = |line: &serde_json::Value| line["duration_ns"].as_u64().is_some_and(|ns| ns >= 15_000_000);
    ensure!(run.events.iter().all(long), "a short call is told: {:?}", run.events);
    ensure!(run.count("main.leaf", "entries") > 0, "calls that are not told are counted: {}", run.summary);
    Ok(())
}

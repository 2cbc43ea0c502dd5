//! The goroutine that last ran on a thread in the Go scheduler, read from the thread's stack when the thread
//! leaves its CPU, compared with the goroutines that the runtime's own events put on that thread.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};

use super::{Built, lines};
use crate::{
    fixtures::only,
    ledger::{End, Verdict},
    run::{self, Program},
};

/// Whenever a thread blocks, the goroutine reported as its last is the last one that `runtime.execute`
/// started on it.
pub(crate) fn is_the_one_executed_last(built: &Built, scenario: &str) -> Verdict {
    let options = ["--level", "runtime", "--window", "50ms"];
    let run = run::watched(&Program::new(&built.path, &[scenario, "/dev/null"]).with(&options))?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    let line = lines(&[only(run.incidents)?])?.pop().context("no time line")?;
    let mut executed: BTreeMap<u64, u64> = BTreeMap::new();
    let mut compared = 0;
    for event in line.list("events")? {
        let (thread, goroutine) = (event["thread"].as_u64(), event["goroutine"].as_u64());
        match (event["what"].as_str(), thread) {
            (Some("go_run"), Some(thread)) => {
                executed.insert(thread, goroutine.context("a turn of no goroutine")?);
            }
            // A thread that leaves its CPU only for a moment may be about to enter the goroutine.
            (Some("switch_out"), Some(thread)) if event["name"] == "blocked" => {
                let said = event["other_goroutine"].as_u64();
                if let (Some(said), Some(last)) = (said, executed.get(&thread)) {
                    ensure!(said == *last, "goroutine {last} ran last on thread {thread}: {event}");
                    compared += 1;
                }
            }
            _ => {}
        }
    }
    ensure!(compared > 0, "no thread rested after a goroutine");
    Ok(End::Passed)
}

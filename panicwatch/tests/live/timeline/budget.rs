//! The overhead budgets: a source that costs too much is paused, and every timeline affected by the pause
//! reports it. Activity of other processes does not pause the sources that an idle server needs.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{Built, lines, told::Line};
use crate::{
    fixtures,
    gobuild::DEFAULT,
    ledger::{End, Verdict},
    run::{self, Program},
};

/// Fifty thousand system calls per second, each recorded twice: some percent of a core, where the budget is
/// one percent.
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
    ensure!(why == "paused: over the 1 % overhead budget", "{why:?}");
    ensure!(calls(last)? == 0, "it is off, and {} system calls are told", calls(last)?);
    Ok(End::Passed)
}

/// A level that the user requests is recorded in full, whatever it costs.
pub(crate) fn honours_a_level(built: &Built, seconds: &str) -> Verdict {
    let run = run::watched(&Program::new(&built.path, &["flood", seconds]).with(&["--level", "kernel"]))?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    let lines = lines(&run.incidents)?;
    for line in &lines {
        let off = line.list("off")?.iter().filter(|off| off["reason"] != "not requested");
        let off: Vec<String> = off.map(ToString::to_string).collect();
        ensure!(off.is_empty(), "disabled: {off:?}");
    }
    // On a busy machine the program may have had no CPU time in some of the windows.
    let with_calls = lines.iter().filter_map(|line| calls(line).ok()).filter(|calls| *calls > 0).count();
    ensure!(with_calls > 0, "no system call is in any of {} timelines", lines.len());
    Ok(End::Passed)
}

/// Minimum share of the window for which the state of the panicking goroutine is known, in percent.
const KNOWN: u64 = 95;
/// Round trips of the neighbours between two pauses of a millisecond: 20 000 switches per second.
const BURST: usize = 10;

/// Incidents of an otherwise idle server next to neighbours that constantly switch, at default settings.
pub(crate) fn idle_beside_neighbours(built: &Built, count: &str) -> Verdict {
    let server = match fixtures::build("neighbours", DEFAULT, &Ok(built.toolchain.clone()))? {
        Ok((_, server)) => server,
        Err(reason) => return Ok(End::Skipped(reason)),
    };
    let neighbours = Neighbours::start()?;
    let run = run::watched(&Program::new(&server, &["0", count]))?;
    drop(neighbours);
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    ensure!(run.incidents.len().to_string() == count, "{} incidents of {count}", run.incidents.len());
    let mut less = Vec::new();
    for (n, line) in lines(&run.incidents)?.iter().enumerate() {
        let (from, raise) = line.window()?;
        let unknown = line.summary("unknown_ns")?;
        let percent = 100 - 100 * unknown / (raise - from);
        if percent < KNOWN {
            less.push(format!("incident {n}: known for {percent} % of the window"));
        }
        ensure!(why_off(line, "switch")?.is_none(), "incident {n}: {:?}", why_off(line, "switch")?);
    }
    // The host may be busy with other work: a thread that is delayed between two goroutines leaves a gap.
    ensure!(less.len() * 10 <= run.incidents.len(), "{less:?}");
    Ok(End::Passed)
}

/// Two threads that wake each other in turn until the value is dropped.
struct Neighbours(Arc<AtomicBool>);

impl Neighbours {
    fn start() -> Result<Neighbours> {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut here, mut there) = UnixStream::pair()?;
        thread::spawn(move || {
            let mut byte = [0];
            while there.read_exact(&mut byte).and_then(|()| there.write_all(&byte)).is_ok() {}
        });
        let stopped = stop.clone();
        thread::spawn(move || {
            let mut byte = [0];
            while !stopped.load(Ordering::Relaxed) {
                let turn = |_| here.write_all(&byte).and_then(|()| here.read_exact(&mut byte)).is_ok();
                if !(0..BURST).all(turn) {
                    return;
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Ok(Neighbours(stop))
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn why_off(line: &Line, source: &str) -> Result<Option<String>> {
    let off = line.list("off")?.iter().find(|off| off["source"] == source);
    Ok(off.and_then(|off| off["reason"].as_str()).map(str::to_owned))
}

fn calls(line: &Line) -> Result<usize> {
    Ok(line.list("events")?.iter().filter(|event| event["what"] == "syscall_enter").count())
}

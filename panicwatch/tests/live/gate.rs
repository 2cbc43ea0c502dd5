//! The exec gate when a process does not respond: execs on the host continue, and processes that were not
//! covered are reported.
//!
//! A faulty gate blocks every exec on the machine, even those of an administrator who could repair it. Each
//! test therefore has a [`Guard`], a thread that kills what the test started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use panicwatch::incident::Incident;
use tempfile::TempDir;

use crate::{
    fixtures,
    gobuild::DEFAULT,
    ledger::{End, Verdict, cell},
    need, process,
    run::{self, DEADLINE, PANICWATCH, Running},
    start::{start_up, ticks},
    toolchain::{self, Toolchain},
};

/// Number of execs by an unwatched process; each takes some milliseconds alone.
const EXECS: u32 = 20;
/// Time limit for all of them: the bound of one exec is far lower, but machines are busy.
const BOUND: Duration = Duration::from_secs(10);
/// Time after which the guard kills.
const PATIENCE: Duration = Duration::from_secs(25);

type Test = fn(&Path) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("panicwatch stopped", main_stopped),
    ("slow attach", slow_attach),
    ("two slow attaches at once", two_slow_attaches),
    ("gate stopped", gate_stopped),
    ("gate killed", gate_killed),
    ("loop stands still", loop_stands_still),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, toolchain) in toolchain::all() {
        if version != "1.27" && !need::full() {
            continue;
        }
        for (name, test) in TESTS {
            let toolchain = toolchain.clone();
            trials.push(cell("gate", &version, name, move || watched(*test, &toolchain)));
        }
    }
    trials
}

fn watched(test: Test, toolchain: &std::result::Result<Toolchain, String>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    match fixtures::build("ticker", DEFAULT, toolchain)? {
        Ok((_, path)) => test(&path).map(|()| End::Passed),
        Err(reason) => Ok(End::Skipped(reason)),
    }
}

/// Kills a process after [`PATIENCE`], unless it is dropped earlier. Needs no exec.
pub(crate) struct Guard(Option<Sender<()>>);

impl Guard {
    pub(crate) fn of(pid: u32) -> Guard {
        let (done, is_done) = channel();
        thread::spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // The test has not reaped the process yet, so the PID is still valid. Its gate ends with it.
                let _ = run::signal(pid, libc::SIGKILL);
            }
        });
        Guard(Some(done))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// Checks that unwatched processes can execute programs in time.
pub(crate) fn execs_go_on(when: &str) -> Result<()> {
    let began = Instant::now();
    for _ in 0..EXECS {
        ensure!(Command::new("/bin/true").status()?.success(), "/bin/true");
    }
    ensure!(began.elapsed() < BOUND, "{when}: {EXECS} execs took {:?}", began.elapsed());
    Ok(())
}

/// A run of a shell script with the ticker as $TICKER and a directory as $DIR. Go files that are arguments
/// get their probes before the start, so the ticker is not one.
struct Case {
    running: Running,
    dir: TempDir,
    _guard: Guard,
}

impl Case {
    fn start(ticker: &Path, script: &str, env: &[(&str, &str)]) -> Result<Case> {
        let dir = TempDir::new()?;
        // A file that no other process has executed.
        let program = dir.path().join("ticker");
        fs::copy(ticker, &program)?;
        let mut command = Command::new(PANICWATCH);
        command.arg("run").arg("-o").arg(dir.path().join("incidents"));
        command.args(["--", "sh", "-c", script]).env("TICKER", program).env("DIR", dir.path());
        command.envs(env.iter().copied());
        let running = Running::start(command)?;
        let guard = Guard::of(running.child.id());
        Ok(Case { running, dir, _guard: guard })
    }

    fn pid(&self) -> u32 {
        self.running.child.id()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the PID of the gate's process.
    fn gate(&self) -> Result<u32> {
        let found = process::children(self.pid())?.into_iter().find(|pid| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.starts_with(b"panicwatch: exec gate"))
        });
        found.context("no process of the exec gate")
    }

    /// Ends the script; returns its incidents, standard output and standard error.
    fn finish(mut self) -> Result<(Vec<Incident>, String, String)> {
        fs::write(self.file("stop"), "")?;
        let output = self.running.finish()?;
        ensure!(output.status == 0, "{output:?}");
        Ok((run::incidents(&self.file("incidents"))?, output.stdout, output.stderr))
    }
}

/// Waits until the content of `path` differs from `before`.
fn changes(path: &Path, before: &str) -> Result<()> {
    let began = Instant::now();
    while fs::read_to_string(path).unwrap_or_default() == before {
        ensure!(began.elapsed() < BOUND, "{} is still {before:?}", path.display());
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Script that executes programs in a loop, and then the ticker.
const LOOP: &str = "echo begun; while [ ! -e $DIR/stop ]; do cp /bin/true $DIR/new; $DIR/new; rm $DIR/new; \
                    n=$((n + 1)); echo $n >$DIR/count; done; $TICKER 300ms";

/// SIGSTOP of the main process blocks neither unwatched nor watched processes.
fn main_stopped(ticker: &Path) -> Result<()> {
    let mut case = Case::start(ticker, LOOP, &[])?;
    case.running.wait_for("begun")?;
    changes(&case.file("count"), "")?;
    run::signal(case.pid(), libc::SIGSTOP)?;
    let go_on = execs_go_on("panicwatch is stopped").and_then(|()| {
        let count = fs::read_to_string(case.file("count"))?;
        changes(&case.file("count"), &count).context("execs of a watched process")
    });
    run::signal(case.pid(), libc::SIGCONT)?;
    go_on?;
    let (incidents, stdout, stderr) = case.finish()?;
    ticks(&incidents, &stdout).with_context(|| stderr.clone())
}

/// While a binary is being read, other execs continue; its own continues at the deadline, which the incidents
/// report.
fn slow_attach(ticker: &Path) -> Result<()> {
    let env = [("PANICWATCH_ATTACH_DELAY_MS", "7000"), ("PANICWATCH_GATE_DEADLINE_MS", "5000")];
    let script = "echo begun; $TICKER 5s & i=0; while [ $i -lt 10 ]; do i=$((i + 1)); /bin/true; done; echo others; wait";
    let mut case = Case::start(ticker, script, &env)?;
    case.running.wait_for("begun")?;
    execs_go_on("a binary is being read")?;
    let (incidents, stdout, stderr) = case.finish()?;
    ensure!(stdout.starts_with("begun\nothers\nready\n"), "watched processes waited as well: {stdout:?}");
    ticks(&incidents, &stdout).with_context(|| stderr.clone())?;
    let reason = incidents.first().and_then(start_up).context("it says that its start was not covered")?;
    ensure!(reason.contains("attaching took longer than the 5000 ms for which an exec is held"), "{reason}");
    Ok(())
}

/// The two attaches overlap: one after the other they would exceed the deadline.
fn two_slow_attaches(ticker: &Path) -> Result<()> {
    let env = [("PANICWATCH_ATTACH_DELAY_MS", "3500"), ("PANICWATCH_GATE_DEADLINE_MS", "6000")];
    let case = Case::start(ticker, "cp $TICKER $DIR/second; $TICKER 200ms & $DIR/second 200ms & wait", &env)?;
    let (incidents, _, stderr) = case.finish()?;
    let late = incidents.iter().filter_map(start_up).next();
    ensure!(late.is_none() && !incidents.is_empty(), "{late:?} {stderr}");
    let pids: std::collections::BTreeSet<u32> =
        incidents.iter().map(|incident| incident.process.pid).collect();
    ensure!(pids.len() == 2, "of both programs: {pids:?}");
    Ok(())
}

/// SIGSTOP of the gate's process: the main process opens the gate, and closes it again afterwards.
fn gate_stopped(ticker: &Path) -> Result<()> {
    let mut case = Case::start(ticker, LOOP, &[])?;
    case.running.wait_for("begun")?;
    let gate = case.gate()?;
    run::signal(gate, libc::SIGSTOP)?;
    let go_on = execs_go_on("the gate's process is stopped");
    let noted = case.running.wait_for_stderr("the exec gate was opened because its process did not respond");
    run::signal(gate, libc::SIGCONT)?;
    go_on.and(noted)?;
    execs_go_on("the gate's process goes on")?;
    let (incidents, stdout, stderr) = case.finish()?;
    ticks(&incidents, &stdout).with_context(|| stderr.clone())
}

/// SIGKILL of the gate's process: the kernel opens the gate, and the main process starts another gate.
fn gate_killed(ticker: &Path) -> Result<()> {
    let mut case = Case::start(ticker, LOOP, &[])?;
    case.running.wait_for("begun")?;
    let gate = case.gate()?;
    run::signal(gate, libc::SIGKILL)?;
    execs_go_on("the gate's process was killed")?;
    case.running.wait_for_stderr("the exec gate's process exited (signal: 9 (SIGKILL))")?;
    let began = Instant::now();
    while case.gate().is_err() {
        ensure!(began.elapsed() < DEADLINE, "there is no gate again: {}", case.running.stderr()?);
        thread::sleep(Duration::from_millis(50));
    }
    execs_go_on("there is a gate again")?;
    let (incidents, stdout, stderr) = case.finish()?;
    ticks(&incidents, &stdout).with_context(|| stderr.clone())
}

/// The gate's own watchdog opens the gate when its loop hangs.
fn loop_stands_still(ticker: &Path) -> Result<()> {
    let mut case = Case::start(ticker, LOOP, &[("PANICWATCH_GATE_STALL_MS", "12000")])?;
    case.running.wait_for("begun")?;
    execs_go_on("the loop stands still")?;
    case.running.wait_for_stderr("the exec gate was opened because its event loop stalled")?;
    let (incidents, stdout, stderr) = case.finish()?;
    ticks(&incidents, &stdout).with_context(|| stderr.clone())
}

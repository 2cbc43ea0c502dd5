//! Tracing does not change the program: the runtime's own functions, running processes, and a panicwatch that
//! is killed.

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Built, Traced, read, truth};
use crate::run::{self, PANICWATCH, Running};

fn counted(stdout: &str) -> Result<()> {
    let truth = truth(stdout);
    ensure!(truth.get("slow") == Some(&1) && truth.len() == 7, "the program's own account: {stdout:?}");
    Ok(())
}

/// Traces functions of the scheduler, the collector and the signal handlers.
pub(super) fn runtime(built: &Built) -> Result<()> {
    let run = Traced::run(&["runtime.*"], &built.path, &["3"])?;
    counted(&run.output.stdout)?;
    ensure!(run.count("runtime.newproc1", "entries") >= 20, "{:?}", run.summary["entries"]);
    ensure!(
        run.output.stderr.contains("more functions are not traced; --dry-run lists them"),
        "{}",
        run.output.stderr
    );
    let mut command = Command::new(PANICWATCH);
    command.args(["trace", "runtime.*", "--dry-run", "--exe"]).arg(&built.path);
    let list = run::finish(command)?.stdout;
    for refused in ["morestack", "asyncPreempt", "sigtramp", "rt0_go", "mcall", "systemstack"] {
        let said = list.lines().any(|line| line.starts_with(&format!("runtime.{refused}  not traced: ")));
        ensure!(said, "{refused} is not refused: {list}");
    }
    // The scheduler runs on the threads' own stacks (g0).
    let own = run.of("entry", "runtime.schedule").next().context("runtime.schedule was not seen")?;
    ensure!(own["goroutine"] == 0, "{own}");
    Ok(())
}

pub(super) fn everything(built: &Built) -> Result<()> {
    let run = Traced::run(&["*", "--exits"], &built.path, &["2"])?;
    counted(&run.output.stdout)?;
    let truth = truth(&run.output.stdout);
    for name in ["deep", "leaf", "panics", "exits"] {
        let ours = run.count(&format!("main.{name}"), "entries");
        ensure!(truth.get(name) == Some(&ours), "{name}: {:?} calls, {ours} counted", truth.get(name));
    }
    Ok(())
}

/// Starts the program, which waits for a line before it begins.
fn waiting(built: &Built, dir: &TempDir) -> Result<Child> {
    let out = fs::File::create(dir.path().join("out"))?;
    let mut command = Command::new(&built.path);
    let child = command.args(["20", "wait"]).stdin(Stdio::piped()).stdout(out).spawn()?;
    wait_for(|| Ok(fs::read_to_string(dir.path().join("out"))?.contains("ready")))?;
    Ok(child)
}

fn wait_for(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = std::time::Instant::now();
    while !done()? {
        ensure!(began.elapsed() < run::DEADLINE, "nothing happened");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Ok(())
}

fn attached(child: &Child, file: &std::path::Path) -> Result<Running> {
    let mut command = Command::new(PANICWATCH);
    command.args(["trace", "main.*", "--pid", &child.id().to_string(), "-o"]).arg(file);
    let mut tracing = Running::start(command)?;
    tracing.wait_for_stderr("press Ctrl-C to stop")?;
    Ok(tracing)
}

fn go_on(child: &mut Child) -> Result<()> {
    child.stdin.take().context("no standard input")?.write_all(b"\n")?;
    Ok(())
}

pub(super) fn running(built: &Built) -> Result<()> {
    let dir = TempDir::new()?;
    let mut child = waiting(built, &dir)?;
    let file = dir.path().join("trace.jsonl");
    let mut tracing = attached(&child, &file)?;
    go_on(&mut child)?;
    ensure!(run::wait(&mut child, run::DEADLINE)?.success(), "the program failed");
    let output = tracing.finish()?;
    ensure!(output.status == 0, "status {}: {}", output.status, output.stderr);
    let (events, summary) = read(&file)?;
    let traced = Traced { output, events, summary };
    let stdout = fs::read_to_string(dir.path().join("out"))?;
    let truth = truth(&stdout);
    for name in ["deep", "leaf", "panics", "exits", "recovers", "slow"] {
        let ours = traced.count(&format!("main.{name}"), "entries");
        ensure!(truth.get(name) == Some(&ours), "{name}: {:?} calls, {ours} counted", truth.get(name));
    }
    Ok(())
}

/// The kernel detaches the probes, and the program continues undisturbed.
pub(super) fn killed(built: &Built) -> Result<()> {
    let dir = TempDir::new()?;
    let mut child = waiting(built, &dir)?;
    let mut tracing = attached(&child, &dir.path().join("trace.jsonl"))?;
    tracing.child.kill()?;
    tracing.child.wait()?;
    go_on(&mut child)?;
    ensure!(run::wait(&mut child, run::DEADLINE)?.success(), "the program did not survive");
    let stdout = fs::read_to_string(dir.path().join("out"))?;
    ensure!(truth(&stdout).get("slow") == Some(&1), "its account: {stdout:?}");
    Ok(())
}

pub(super) fn formats(built: &Built) -> Result<()> {
    let mut command = Command::new(PANICWATCH);
    command.args(["trace", "main.recovers", "main.panics", "--exits", "--"]).arg(&built.path).arg("1");
    let text = run::finish(command)?.stderr;
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("main.")).collect();
    let has = |what: &str| lines.iter().any(|line| line.contains(what));
    ensure!(has("  > main.recovers") && has("    > main.panics"), "{text}");
    ensure!(has("! main.panics unwound") && has("< main.recovers"), "{text}");
    ensure!(text.contains("220 calls") || text.contains("240 calls"), "{text}");
    let dir = TempDir::new()?;
    let file = dir.path().join("trace.pftrace");
    let mut command = Command::new(PANICWATCH);
    command.args(["trace", "main.*", "--exits", "--format", "perfetto", "-o"]).arg(&file);
    let output = run::finish({
        command.arg("--").arg(&built.path).arg("1");
        command
    })?;
    ensure!(output.status == 0, "{}", output.stderr);
    let bytes = fs::read(&file)?;
    for wanted in ["main.deep", "goroutine 1", "calls"] {
        ensure!(bytes.windows(wanted.len()).any(|w| w == wanted.as_bytes()), "no {wanted:?} in the trace");
    }
    Ok(())
}

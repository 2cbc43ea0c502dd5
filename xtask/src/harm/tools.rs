//! Other tools attached to the same program at the same time, and programs that are built or confined in
//! unusual ways.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Context, End, Scenario,
    programs::{self, Ended, PATIENCE, Reported, Running},
    sums::{adds_up, sums},
};
use crate::{paths, shell};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "bpftrace", run: bpftrace },
    Scenario { name: "perf", run: perf },
    Scenario { name: "strace", run: strace },
    Scenario { name: "gdb", run: gdb },
    Scenario { name: "gdb at a probe site", run: gdb_at_site },
    Scenario { name: "delve", run: delve },
    Scenario { name: "race build", run: race },
    Scenario { name: "coverage build", run: coverage },
    Scenario { name: "seccomp", run: seccomp },
];

const PANICS: u64 = 1000;

/// A book program that waits for the end of its standard input before it panics.
struct Target {
    child: Child,
    stdout: PathBuf,
}

/// A failing scenario must not leave its program behind, which waits for input.
impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Target {
    fn start(context: &Context, program: &Path, more: &[&str]) -> Result<Target> {
        let stdout = context.scratch.join("target.stdout");
        let mut command = Command::new(program);
        command.args(["-input", "-panics", &PANICS.to_string(), "-pause", "1ms"]).args(more);
        let child = command.stdin(Stdio::piped()).stdout(File::create(&stdout)?).spawn()?;
        Ok(Target { child, stdout })
    }

    fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// Lets the program panic, and waits until it ends.
    fn finish(mut self) -> Result<Ended> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        ensure!(status.code() == Some(7), "the target ended with {status}");
        Ok(Ended { status: 7, stdout: fs::read_to_string(&self.stdout)?, stderr: String::new() })
    }
}

/// Starts `panicwatch attach` on a target and waits until it is watching.
fn attach(context: &Context, target: &Target, file: &Path) -> Result<Running> {
    drop(fs::remove_file(file));
    let mut attach = Command::new(&context.panicwatch);
    attach.args(["attach", "--max-captures", "0", "--pid", &target.pid(), "-o"]).arg(file);
    let mut attach = programs::start(context, &mut attach)?;
    attach.until("watching")?;
    Ok(attach)
}

/// Lets the target panic with panicwatch and `tool` attached, in either order; then checks both counts.
fn beside(context: &Context, tool: &mut Command, ready: &str, tool_first: bool) -> Result<(String, Ended)> {
    let target = Target::start(context, &programs::book(context)?, &[])?;
    let file = context.scratch.join("beside.jsonl");
    let substitute = |word: &std::ffi::OsStr| word.to_string_lossy().replace("PID", &target.pid());
    let mut command = Command::new(tool.get_program());
    command.args(tool.get_args().map(substitute));
    let mut start = || -> Result<Running> {
        let mut running = programs::start(context, &mut command)?;
        running.until(ready)?;
        Ok(running)
    };
    let (attached, tool) = if tool_first {
        let tool = start()?;
        (attach(context, &target, &file)?, tool)
    } else {
        let attached = attach(context, &target, &file)?;
        (attached, start()?)
    };
    let mut ended = target.finish()?;
    ended.stderr = attached.wait(PATIENCE)?.stderr;
    drop(tool.signal("INT"));
    let tool = tool.wait(PATIENCE)?;
    Ok((adds_up(&ended, &file, PANICS)?, tool))
}

fn has(program: &str) -> bool {
    paths::on_path(program).is_some()
}

fn missing(program: &str) -> Result<End> {
    Ok(End::Skipped(format!("{program} is not installed")))
}

fn bpftrace(context: &Context) -> Result<End> {
    if !has("bpftrace") {
        return missing("bpftrace");
    }
    let program = programs::book(context)?;
    let script = format!(
        "uprobe:{}:main.one {{ @calls = count(); }} BEGIN {{ printf(\"ready\\n\"); }} END {{ printf(\"calls\"); }}",
        program.display()
    );
    let mut figures = Vec::new();
    for tool_first in [true, false] {
        // bpftrace's output is redirected to standard error, where the scenario waits for it.
        let line = "exec bpftrace -B line -e \"$0\" 1>&2";
        let (sums, tool) =
            beside(context, Command::new("sh").args(["-c", line, &script]), "ready", tool_first)?;
        let calls =
            tool.stderr.lines().find_map(|line| line.strip_prefix("@calls: ")?.trim().parse::<u64>().ok());
        let calls = calls.with_context(|| format!("no count: {}", tool.stderr))?;
        ensure!(calls >= PANICS, "bpftrace counted {calls} calls of {PANICS}");
        figures.push(sums);
    }
    Ok(End::Passed(format!("attached before and after bpftrace: {}", figures.join("; "))))
}

fn perf(context: &Context) -> Result<End> {
    if !has("perf") {
        return missing("perf");
    }
    let line = "perf record -q -F 499 -g -o /dev/null -p PID & perf=$!; trap 'kill -INT $perf' INT; echo ready 1>&2; wait $perf; wait";
    let (sums, _) = beside(context, Command::new("sh").args(["-c", line]), "ready", true)?;
    Ok(End::Passed(sums))
}

fn strace(context: &Context) -> Result<End> {
    if !has("strace") {
        return missing("strace");
    }
    let mut figures = Vec::new();
    for tool_first in [true, false] {
        let mut tool = Command::new("strace");
        tool.args(["-f", "-e", "trace=futex", "-o", "/dev/null", "-p", "PID"]);
        figures.push(beside(context, &mut tool, "attached", tool_first)?.0);
    }
    Ok(End::Passed(format!("attached before and after strace: {}", figures.join("; "))))
}

/// Returns a gdb command line that has a breakpoint at `place`, continues each time, and prints when it is
/// ready.
fn gdb_command(place: &str) -> Command {
    let mut gdb = Command::new("sh");
    let commands = [
        "set pagination off",
        "handle SIGURG nostop noprint pass",
        &format!("break {place}"),
        "ignore 1 1000000",
        "shell echo ready 1>&2",
        "continue",
        "detach",
    ];
    let commands: String = commands.iter().map(|command| format!(" -ex '{command}'")).collect();
    gdb.args(["-c", &format!("exec gdb -q -nx -batch -p PID{commands}")]);
    gdb
}

fn gdb(context: &Context) -> Result<End> {
    if !has("gdb") {
        return missing("gdb");
    }
    let mut figures = Vec::new();
    for tool_first in [true, false] {
        figures.push(beside(context, &mut gdb_command("main.one"), "ready", tool_first)?.0);
    }
    Ok(End::Passed(format!("attached before and after gdb: {}", figures.join("; "))))
}

/// gdb has a breakpoint on the very instruction that panicwatch would probe: panicwatch must refuse, and the
/// target must continue.
fn gdb_at_site(context: &Context) -> Result<End> {
    if !has("gdb") {
        return missing("gdb");
    }
    let program = programs::book(context)?;
    let json = shell::capture(
        Command::new(&context.panicwatch).args(["inspect", "--format", "json"]).arg(&program),
    )?;
    let inspected: Value = serde_json::from_str(&json)?;
    let probes = inspected["probes"].as_array().context("no probes")?;
    let site = probes.iter().find(|probe| probe["name"] == "panic raised").context("no probe of gopanic")?;
    let site = site["address"].as_str().context("no address")?;
    let target = Target::start(context, &program, &[])?;
    let tool = gdb_command(&format!("*{site}"));
    let words = tool.get_args().map(|word| word.to_string_lossy().replace("PID", &target.pid()));
    let mut gdb = programs::start(context, Command::new("sh").args(words))?;
    gdb.until("ready")?;
    let mut attach = Command::new(&context.panicwatch);
    attach.args(["attach", "--pid", &target.pid(), "-o", "/dev/null"]);
    let attached = programs::run(context, &mut attach, PATIENCE)?;
    let is_refused = attached.status == 3 && attached.stderr.contains("gdb");
    ensure!(is_refused, "attach ended with {}: {}", attached.status, attached.stderr);
    target.finish()?;
    gdb.wait(PATIENCE)?;
    Ok(End::Passed(format!(
        "attach refuses and names gdb; {PANICS} panics, the target ends as it does alone"
    )))
}

/// Debian's delve supports releases up to Go 1.20.
fn delve(context: &Context) -> Result<End> {
    let unpacked = paths::cache()?.join("debian/delve/usr/bin/dlv");
    let dlv = if unpacked.exists() { unpacked } else { PathBuf::from("dlv") };
    if !dlv.exists() && !has("dlv") {
        return missing("dlv");
    }
    let program = programs::build_with(context, programs::DEBIAN_GO, "xtask/harm/book", "book-1.19", &[])?;
    let script = context.scratch.join("delve.init");
    fs::write(&script, "break main.one\ncondition 1 n == 500\ncontinue\nclearall\ncontinue\nexit\n")?;
    let file = context.scratch.join("delve.jsonl");
    drop(fs::remove_file(&file));
    let mut run = Command::new(&context.panicwatch);
    run.args(["run", "--max-captures", "0", "-o"]).arg(&file).arg("--").arg(&dlv).arg("exec");
    run.arg("--init").arg(&script).arg("--allow-non-terminal-interactive=true").arg(&program);
    run.args(["--", "-panics", "1000"]).env("HOME", &context.scratch);
    let ended = programs::run(context, &mut run, PATIENCE)?;
    ensure!(
        ended.stdout.contains("recovered 1000"),
        "the program did not finish: {} {}",
        ended.stdout,
        ended.stderr
    );
    ensure!(ended.stdout.contains("main.one"), "delve did not stop at its breakpoint: {}", ended.stdout);
    // Delve is a Go program too and recovers from a panic of its own now and then.
    let reported = Reported::of_program(&file, &program)?;
    Ok(End::Passed(sums(1000, &reported, &ended.stderr)?))
}

/// Runs a book program built with `flags` under panicwatch.
fn built(context: &Context, name: &str, flags: &[&str], arguments: &[&str]) -> Result<End> {
    let program = programs::build(context, "xtask/harm/book", name, flags)?;
    let file = context.scratch.join(format!("{name}.jsonl"));
    let mut run = Command::new(&context.panicwatch);
    run.args(["run", "--level", "full", "--max-captures", "0", "-o"]).arg(&file).arg("--").arg(&program);
    run.args(["-panics", &PANICS.to_string(), "-pause", "1ms"]).args(arguments);
    let ended = programs::run(context, &mut run, PATIENCE)?;
    Ok(End::Passed(adds_up(&ended, &file, PANICS)?))
}

fn race(context: &Context) -> Result<End> {
    built(context, "book-race", &["-race"], &[])
}

fn coverage(context: &Context) -> Result<End> {
    built(context, "book-cover", &["-cover"], &[])
}

/// A target whose seccomp filter denies bpf, perf_event_open, ptrace, uprobe and uretprobe.
fn seccomp(context: &Context) -> Result<End> {
    built(context, "book", &[], &["-seccomp"])
}

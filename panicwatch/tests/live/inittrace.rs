//! `init-trace`, compared with GODEBUG=inittrace=1 of the same run, with sleeps of known length, and with
//! bare runs.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use panicwatch::inittasks::package_of;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    compare::runs::Output,
    ledger::none,
    matrix::{self, Built, Row},
    run::{self, PANICWATCH, Program, Running},
};

/// Name, fixture, test, and whether every build flavour is tested.
const TESTS: &[Row] = &[
    ("agrees with GODEBUG", "initchain", agrees, true),
    ("cgo", "callback", cgo, false),
    ("panic in an init", "initpanic", panics, true),
    ("panic in a variable", "initvar", variable, true),
    ("killed in an init", "initchain", killed, false),
    ("started by a script", "initchain", script, false),
    ("text and perfetto", "initchain", formats, false),
    ("lost records", "initchain", lost, false),
];

/// Returns every test of the group. Go 1.19 is read by other rules than its successors, so it is built in
/// every flavour too.
pub(crate) fn trials() -> Vec<Trial> {
    matrix::trials("inittrace", TESTS, &["1.19", "1.21", "1.27"])
}

/// Output and trace of a traced run.
struct Traced {
    output: Output,
    trace: Value,
}

/// Runs `panicwatch init-trace --format json -o FILE -- PROGRAM ARG…` with `input` on standard input.
fn traced(program: &Path, args: &[&str], env: &[(&str, &str)], input: &str) -> Result<Traced> {
    let dir = TempDir::new()?;
    let file = dir.path().join("trace.json");
    let mut command = Command::new(PANICWATCH);
    command.args(["init-trace", "--format", "json", "-o"]).arg(&file).arg("--").arg(program).args(args);
    command.env_remove("GODEBUG").envs(env.iter().copied());
    let output = with_input(command, input)?;
    let text = fs::read_to_string(&file)?;
    let trace = serde_json::from_str(&text).with_context(|| format!("{text:?}, {:?}", output.stderr))?;
    Ok(Traced { output, trace })
}

fn with_input(mut command: Command, input: &str) -> Result<Output> {
    use std::{io::Write as _, os::unix::process::ExitStatusExt as _};
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok(Output {
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        status: output.status.code().unwrap_or(-1),
        signal: output.status.signal(),
    })
}

/// A package of the trace.
struct Package {
    name: String,
    start_ns: u64,
    duration_ns: u64,
    depth: Option<u64>,
}

fn packages(trace: &Value) -> Result<Vec<Package>> {
    let all = trace["packages"].as_array().context("no packages")?;
    let package = |p: &Value| {
        Some(Package {
            name: p["package"].as_str()?.to_owned(),
            start_ns: p["start_ns"].as_u64()?,
            duration_ns: p["duration_ns"].as_u64()?,
            depth: p["depth"].as_u64(),
        })
    };
    all.iter().map(|p| package(p).with_context(|| format!("{p}"))).collect()
}

fn time_of(trace: &Value, what: &str) -> Result<u64> {
    let chain = trace["chain"].as_array().context("no chain")?;
    let step = chain.iter().find(|step| step["what"] == what);
    step.and_then(|step| step["time_ns"].as_u64()).with_context(|| format!("no {what} in {chain:?}"))
}

/// One line of GODEBUG=inittrace=1: times in nanoseconds, each with its unit; the exact time is less than one
/// unit greater.
struct Line {
    package: String,
    at: (u64, u64),
    clock: (u64, u64),
}

/// Parses lines such as "init internal/bytealg @0.008 ms, 0.001 ms clock, 0 bytes, 0 allocs".
fn inittrace(stderr: &str) -> Result<Vec<Line>> {
    let line = |text: &str| {
        let (package, rest) = text.strip_prefix("init ")?.split_once(" @")?;
        let (at, rest) = rest.split_once(" ms, ")?;
        let (clock, _) = rest.split_once(" ms clock")?;
        // inittrace prints paths with the linker's escapes.
        Some(Line { package: package_of(&format!("{package}.init")), at: time(at)?, clock: time(clock)? })
    };
    let lines = stderr.lines().filter(|l| l.starts_with("init "));
    lines.map(|l| line(l).with_context(|| format!("{l:?}"))).collect()
}

/// Parses milliseconds as fmtNSAsMS prints them: truncated, to the place of the last digit.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go> (doInit1), mgc.go (fmtNSAsMS)
fn time(text: &str) -> Option<(u64, u64)> {
    let (whole, digits) = text.split_once('.').unwrap_or((text, ""));
    let unit = 1_000_000 / 10u64.pow(digits.len().try_into().ok()?);
    let value: u64 = format!("{whole}{digits}").parse().ok()?;
    // "0" stands for less than a microsecond.
    Some((value * unit, if text == "0" { 1_000 } else { unit }))
}

/// Checks that all steps are present and in order.
fn chain_is_whole(trace: &Value, wanted: &[&str]) -> Result<()> {
    let chain = trace["chain"].as_array().context("no chain")?;
    let names: Vec<&str> = chain.iter().filter_map(|step| step["what"].as_str()).collect();
    ensure!(names == wanted, "the chain is {names:?}, not {wanted:?}");
    let times: Vec<u64> = chain.iter().filter_map(|step| step["time_ns"].as_u64()).collect();
    ensure!(times.is_sorted() && times.len() == names.len(), "times {times:?}");
    let total = times.last().zip(times.first()).map(|(last, first)| last - first);
    ensure!(trace["total_ns"].as_u64() == total, "total_ns {} of {times:?}", trace["total_ns"]);
    let exec = trace["exec_ns"].as_u64().context("no exec_ns")?;
    ensure!(Some(&exec) < times.first(), "exec at {exec}, then {times:?}");
    Ok(())
}

const WHOLE: [&str; 7] = [
    "runtime.rt0_go",
    "runtime.schedinit",
    "runtime.newproc",
    "runtime.mstart",
    "runtime.main",
    "main.init",
    "main.main",
];

fn agrees(built: &Built) -> Result<()> {
    let run = traced(&built.path, &["a", "b c"], &[("GODEBUG", "inittrace=1")], "input")?;
    ensure!(run.output.status == 3, "status {}: {}", run.output.status, run.output.stderr);
    ensure!(run.output.stdout == "a b c|input\n", "{:?}", run.output.stdout);
    let go = inittrace(&run.output.stderr)?;
    let others: Vec<&str> = run.output.stderr.lines().filter(|l| !l.starts_with("init ")).collect();
    ensure!(others.is_empty(), "standard error is not the program's alone: {others:?}");
    chain_is_whole(&run.trace, &WHOLE)?;
    let packages = packages(&run.trace)?;
    let names = |all: &mut dyn Iterator<Item = String>| all.collect::<Vec<_>>();
    let (ours, theirs) = (
        names(&mut packages.iter().map(|p| p.name.clone())),
        names(&mut go.iter().map(|l| l.package.clone())),
    );
    ensure!(ours == theirs, "packages {ours:?}, Go says {theirs:?}");
    ensure!(ours.iter().any(|name| name == "fixtures/initchain/thin.v2"), "{ours:?}");
    let runtime_main = time_of(&run.trace, "runtime.main")?;
    let mut wrong = Vec::new();
    for (package, line) in packages.iter().zip(&go) {
        // Go reads its clock before our first timestamp and after our last one, so the duration it prints, to
        // its precision, is never less than ours. How much greater it is depends on the machine.
        if package.duration_ns >= line.clock.0 + line.clock.1 {
            wrong.push(format!("{}: {} ns, Go says {:?}", package.name, package.duration_ns, line.clock));
        }
        // Go counts from a moment after runtime.main began.
        if package.start_ns - runtime_main < line.at.0 {
            wrong.push(format!("{} starts {} ns after", package.name, package.start_ns - runtime_main));
        }
    }
    none("times", &wrong)?;
    known_times(&packages, &go)?;
    functions(&run.trace)?;
    runtime_first(&run.trace)?;
    depths(built, &packages)
}

/// The sleeps show in both durations.
fn known_times(packages: &[Package], go: &[Line]) -> Result<()> {
    let (package, line) = packages
        .iter()
        .zip(go)
        .find(|(package, _)| package.name == "fixtures/initchain/slow")
        .context("no package slow")?;
    ensure!(package.duration_ns >= 35_000_000, "slow took {} ns", package.duration_ns);
    ensure!(line.clock.0 >= 35_000_000, "Go says that slow took {:?}", line.clock);
    Ok(())
}

/// Each function of the package slow has its own sleep and line.
fn functions(trace: &Value) -> Result<()> {
    let all = trace["packages"].as_array().context("no packages")?;
    let slow = all.iter().find(|p| p["package"] == "fixtures/initchain/slow").context("no package slow")?;
    let functions = slow["functions"].as_array().context("no functions")?;
    let wanted = [("init", 7, 20_000_000), ("init.0", 9, 5_000_000), ("init.1", 11, 10_000_000)];
    ensure!(functions.len() == wanted.len(), "{functions:?}");
    for (function, (name, line, sleeps)) in functions.iter().zip(wanted) {
        let right = function["function"] == format!("fixtures/initchain/slow.{name}")
            && function["line"] == line
            && function["file"].as_str().is_some_and(|file| file.ends_with("initchain/slow/slow.go"))
            && function["duration_ns"].as_u64().is_some_and(|took| took >= sleeps);
        ensure!(right, "not {name} at line {line} with {sleeps} ns: {function}");
    }
    Ok(())
}

/// The runtime's packages come first and are marked as such.
fn runtime_first(trace: &Value) -> Result<()> {
    let all = trace["packages"].as_array().context("no packages")?;
    let own: Vec<&Value> = all.iter().take_while(|p| p["runtime"] == true).map(|p| &p["package"]).collect();
    ensure!(own.last().is_some_and(|last| *last == "runtime"), "the runtime's are {own:?}");
    ensure!(all.iter().skip(own.len()).all(|p| p["runtime"] == false), "{all:?}");
    Ok(())
}

/// main calls thin.Count and reads slow.Value. The latter is known from the symbol table, or from Go 1.19's
/// init tasks.
fn depths(built: &Built, packages: &[Package]) -> Result<()> {
    let depth = |name: &str| packages.iter().find(|p| p.name == name).and_then(|p| p.depth);
    ensure!(depth("main") == Some(0), "depth of main {:?}", depth("main"));
    ensure!(depth("fixtures/initchain/thin.v2") == Some(1), "{:?}", depth("fixtures/initchain/thin.v2"));
    let knows_variables = !built.release.has_init_task_list() || built.flavour.name != "stripped";
    let wanted = knows_variables.then_some(1);
    ensure!(depth("fixtures/initchain/slow") == wanted, "{:?}", depth("fixtures/initchain/slow"));
    Ok(())
}

fn cgo(built: &Built) -> Result<()> {
    let run = traced(&built.path, &["recovered"], &[("GODEBUG", "inittrace=1")], "")?;
    ensure!(run.output.status == 0, "status {}: {}", run.output.status, run.output.stderr);
    let go: Vec<String> = inittrace(&run.output.stderr)?.into_iter().map(|line| line.package).collect();
    let ours: Vec<String> = packages(&run.trace)?.into_iter().map(|package| package.name).collect();
    ensure!(ours == go && !go.is_empty(), "packages {ours:?}, Go says {go:?}");
    time_of(&run.trace, "main.main")?;
    // Its panics occur after main.main began: they are not part of the initialization.
    ensure!(!run.output.stderr.contains("RECOVERED"), "{}", run.output.stderr);
    Ok(())
}

fn stopped<'a>(run: &'a Traced, wanted: &[(&str, Value)]) -> Result<&'a Value> {
    let stopped = &run.trace["stopped"];
    for (key, value) in wanted {
        ensure!(stopped[key] == *value, "stopped.{key} is not {value}: {stopped}");
    }
    ensure!(run.trace["total_ns"].is_null(), "total_ns {}", run.trace["total_ns"]);
    Ok(stopped)
}

fn panics(built: &Built) -> Result<()> {
    let bare = run::bare(&Program::new(&built.path, &[]))?;
    let run = traced(&built.path, &[], &[], "")?;
    ensure!(run.output.status == 2 && run.output.stdout == bare.stdout, "{:?}", run.output);
    let at = stopped(
        &run,
        &[
            ("how", "died".into()),
            ("code", 2.into()),
            ("package", "fixtures/initpanic/bad".into()),
            ("function", "fixtures/initpanic/bad.init.1".into()),
            ("line", 6.into()),
            ("message", "nothing configured".into()),
            ("variable", Value::Null),
        ],
    )?;
    ensure!(at["file"].as_str().is_some_and(|file| file.ends_with("initpanic/bad/bad.go")), "{at}");
    for words in ["goroutine 1 [running]", "initialization of package fixtures/initpanic/bad"] {
        ensure!(run.output.stderr.contains(words), "{words:?} is not in {}", run.output.stderr);
    }
    let last = run.trace["packages"].as_array().and_then(|all| all.last()).context("no packages")?;
    ensure!(last["duration_ns"].is_null(), "{last}");
    Ok(())
}

fn variable(built: &Built) -> Result<()> {
    let run = traced(&built.path, &[], &[], "")?;
    // The names of variables are only in the symbol table.
    let variable =
        if built.flavour.name == "stripped" { Value::Null } else { "fixtures/initvar/bad.Size".into() };
    let at = stopped(
        &run,
        &[
            ("how", "died".into()),
            ("package", "fixtures/initvar/bad".into()),
            ("function", "fixtures/initvar/bad.init".into()),
            ("variable", variable),
            ("line", 7.into()),
        ],
    )?;
    ensure!(at["file"].as_str().is_some_and(|file| file.ends_with("initvar/bad/bad.go")), "{at}");
    ensure!(run.output.status == 2, "status {}", run.output.status);
    Ok(())
}

/// With an event ring that is much too small, the trace states that records were lost.
fn lost(built: &Built) -> Result<()> {
    let ring = ("PANICWATCH_EVENT_RING_BYTES", "4096");
    let run = traced(&built.path, &["one"], &[ring], "")?;
    let missing = run.trace["missing"].as_array().cloned().unwrap_or_default();
    let told = |what: &str| missing.iter().find(|missing| missing["what"] == what);
    let reason = told("packages").and_then(|missing| missing["reason"].as_str()).unwrap_or_default();
    ensure!(reason.ends_with("lost: the event ring was full"), "{missing:?}");
    let whole = traced(&built.path, &["one"], &[], "")?;
    ensure!(
        !whole.trace["missing"].to_string().contains("lost: the event ring"),
        "{}",
        whole.trace["missing"]
    );
    let count = |run: &Traced| run.trace["packages"].as_array().map_or(0, Vec::len);
    ensure!(count(&run) < count(&whole), "{} packages of {}", count(&run), count(&whole));
    Ok(())
}

/// SIGTERM sent to panicwatch reaches the program, which waits inside an init function.
fn killed(built: &Built) -> Result<()> {
    let dir = TempDir::new()?;
    let file = dir.path().join("trace.json");
    let mut command = Command::new(PANICWATCH);
    command.args(["init-trace", "--format", "json", "-o"]).arg(&file).arg("--");
    command.arg(&built.path).arg("stop").stdin(Stdio::piped());
    let mut running = Running::start_as_is(command)?;
    running.wait_for("waiting")?;
    run::signal(running.child.id(), libc::SIGTERM)?;
    let output = running.finish()?;
    let trace = serde_json::from_str(&fs::read_to_string(&file)?)?;
    ensure!(output.status == 143, "status {}: {}", output.status, output.stderr);
    let run = Traced { output, trace };
    let function = "main.init.1";
    let wanted = [("how", "killed".into()), ("code", 15.into()), ("function", function.into())];
    stopped(&run, &wanted).map(drop)
}

/// The first Go program that a script starts is traced, the next one is not, and the script's exit status is
/// passed on.
fn script(built: &Built) -> Result<()> {
    let dir = TempDir::new()?;
    let script = dir.path().join("script");
    let program = built.path.display();
    fs::write(
        &script,
        format!("#!/bin/sh\n'{program}' one </dev/null\n'{program}' two </dev/null\nexit 5\n"),
    )?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let run = traced(&script, &[], &[], "")?;
    ensure!(run.output.status == 5, "status {}: {}", run.output.status, run.output.stderr);
    ensure!(run.output.stdout == "one|\ntwo|\n", "{:?}", run.output.stdout);
    ensure!(run.output.stderr.contains("is not a Go program"), "{:?}", run.output.stderr);
    ensure!(run.trace["program"]["exe"] == built.path.display().to_string(), "{}", run.trace["program"]);
    chain_is_whole(&run.trace, &WHOLE)
}

/// The text goes to standard error, without colors; Perfetto's format requires a file.
fn formats(built: &Built) -> Result<()> {
    let mut command = Command::new(PANICWATCH);
    command.args(["init-trace", "--slowest", "--"]).arg(&built.path);
    let output = with_input(command, "")?;
    ensure!(output.status == 3, "status {}: {}", output.status, output.stderr);
    for words in ["INITIALIZATION of initchain", "fixtures/initchain/slow", "slow.init.0", "slow.go:9"] {
        ensure!(output.stderr.contains(words), "{words:?} is not in {}", output.stderr);
    }
    ensure!(!output.stderr.contains('\x1b'), "colours where there is no terminal: {:?}", output.stderr);

    let mut command = Command::new(PANICWATCH);
    command.args(["init-trace", "--format", "perfetto", "--"]).arg(&built.path);
    let output = with_input(command, "")?;
    ensure!(output.status == 2 && output.stderr.contains("-o FILE"), "{output:?}");

    let dir = TempDir::new()?;
    let file = dir.path().join("trace");
    let mut command = Command::new(PANICWATCH);
    command.args(["init-trace", "--format", "perfetto", "-o"]).arg(&file).arg("--").arg(&built.path);
    let output = with_input(command, "")?;
    ensure!(output.status == 3, "status {}: {}", output.status, output.stderr);
    let bytes = fs::read(&file)?;
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    ensure!(holds("fixtures/initchain/slow.init.1") && holds("runtime.rt0_go"), "{} bytes", bytes.len());
    Ok(())
}

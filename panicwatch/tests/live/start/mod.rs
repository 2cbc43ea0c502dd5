//! Ways users start programs: Go code that starts without notice, programs that outlive their starter, and
//! reports that cannot be written.

mod late;

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::FileTypeExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
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
    run::{self, PANICWATCH, Running},
    toolchain::{self, Toolchain},
};

pub(crate) use late::host;

type Test = fn(&Toolchain) -> Result<()>;

/// Name, a program that must be on PATH, test.
const TESTS: &[(&str, &str, Test)] = &[
    ("arguments and signals are inherited", "sh", inherits),
    ("without --", "sh", without_dashes),
    ("full disk", "sh", full_disk),
    ("full standard error", "sh", full_stderr),
    ("full disk, attach", "sh", full_disk_attach),
    ("full disk, trace and init-trace", "sh", full_disk_traces),
    ("left running", "sh", left_running),
    ("waits for what is left running", "sh", waits),
    ("killed with panicwatch", "sh", killed_with_us),
    ("mounted later", "mount", late::mounted_later),
    ("mounted in another namespace", "unshare", late::mounted_elsewhere),
    ("in memory", "python3", late::in_memory),
    ("exec from another thread", "sh", late::exec_thread),
    ("exec from another thread, attached", "sh", late::exec_thread_attached),
    ("library of a C host", "gcc", late::library),
    ("library loaded later", "gcc", late::library_later),
    ("library, attached", "gcc", late::library_attached),
    ("through the loader", "gcc", late::through_loader),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = vec![cell("start", "any", "pipes and devices", pipes_and_devices)];
    for (version, toolchain) in toolchain::all() {
        if !need::full() && version != "1.24" && version != "1.27" {
            continue;
        }
        for (name, needed, test) in TESTS {
            let toolchain = toolchain.clone();
            trials.push(cell("start", &version, name, move || watched(*test, needed, toolchain.clone())));
        }
    }
    trials
}

fn watched(test: Test, needed: &str, toolchain: std::result::Result<Toolchain, String>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    if !need::on_path(needed) {
        return Ok(End::Skipped(format!("{needed} is not installed")));
    }
    match toolchain {
        Ok(toolchain) => test(&toolchain).map(|()| End::Passed),
        Err(reason) => Ok(End::Skipped(reason)),
    }
}

fn fixture(dir: &str, toolchain: &Toolchain) -> Result<PathBuf> {
    fixtures::build(dir, DEFAULT, &Ok(toolchain.clone()))?
        .map(|(_, path)| path)
        .map_err(|reason| anyhow::anyhow!("not built: {reason}"))
}

/// Returns the command `panicwatch COMMAND -o FILE OPTIONS…`.
fn panicwatch(command: &str, file: &Path, options: &[&str]) -> Command {
    let mut panicwatch = Command::new(PANICWATCH);
    panicwatch.arg(command).arg("-o").arg(file).args(options);
    panicwatch
}

fn messages(incidents: &[Incident]) -> Vec<&str> {
    incidents.iter().map(|incident| incident.message.as_deref().unwrap_or("?")).collect()
}

/// Returns the reason that the incident has for an uncovered process start.
pub(crate) fn start_up(incident: &Incident) -> Option<&str> {
    incident.missing.iter().find(|missing| missing.what == "start-up").map(|missing| missing.reason.as_str())
}

/// Checks the incidents of a `ticker` that was watched until its end: from the first panic seen to its last,
/// none is missing or duplicated. If the first one seen is not the ticker's first, every incident must report
/// that the start was not covered.
pub(crate) fn ticks(incidents: &[Incident], stdout: &str) -> Result<()> {
    let total: u64 =
        stdout.rsplit(' ').next().unwrap_or_default().trim().parse().context(stdout.to_owned())?;
    let counts: Vec<u64> = incidents.iter().filter_map(|i| i.message.as_deref()?.parse().ok()).collect();
    ensure!(counts.len() == incidents.len(), "not only its panics: {:?}", messages(incidents));
    ensure!(counts.windows(2).all(|w| w[1] == w[0] + 1), "a gap or a double: {counts:?}");
    ensure!(counts.last() == Some(&(total - 1)), "{total} panics, seen are {counts:?}");
    let late = incidents.iter().filter(|incident| start_up(incident).is_some()).count();
    ensure!(late == 0 || late == incidents.len(), "{late} of {} incidents are late", incidents.len());
    ensure!(counts[0] == 0 || late > 0, "the first is {}, and no incident says why", counts[0]);
    Ok(())
}

/// Arguments that are not valid UTF-8, and ignored and blocked signals, reach the program as they do without
/// panicwatch.
fn inherits(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("inherited", toolchain)?;
    let bad = OsStr::from_bytes(b"caf\xe9.txt");
    // panicwatch handles HUP and USR1; Rust's runtime changes PIPE.
    let under = |options: &[&str], program: &[&OsStr]| {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' HUP PIPE USR1; exec \"$@\"", "sh"]).args(options).args(program);
        // An empty pre_exec makes the standard library fork: with posix_spawn, the C library would ignore
        // signal 32 in the child. SAFETY: the closure does nothing.
        unsafe { command.pre_exec(|| Ok(())) };
        run::finish(command)
    };
    let dir = TempDir::new()?;
    let file = dir.path().join("incidents").display().to_string();
    let commands = [
        &[PANICWATCH, "run", "-o", &file, "--"][..],
        &[PANICWATCH, "run", "-o", &file],
        &[PANICWATCH, "init-trace", "-o", &file, "--"],
    ];
    // A Go program handles most signals: grep shows the dispositions that it inherited.
    let grep = ["grep", "^Sig[IB]", "/proc/self/status"].map(OsStr::new);
    let bare = under(&[], &grep)?;
    // The process that started the tests may ignore further signals.
    let ignored = bare.stdout.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).context("no SigIgn")?;
    let ignored = u64::from_str_radix(ignored, 16)?;
    ensure!(ignored & 0x1201 == 0x1201, "HUP, USR1 and PIPE: {bare:?}");
    let (path, option) = (path.as_os_str(), OsStr::new("-x"));
    let program = [path, option, bad];
    let alone = under(&[], &program)?;
    ensure!(alone.stdout.contains("caf\\xe9"), "{alone:?}");
    for command in commands {
        let output = under(command, &grep)?;
        ensure!(output.stdout == bare.stdout, "{command:?}: {output:?} is not {bare:?}");
        let output = under(command, &program)?;
        ensure!(
            (output.status, &output.stdout) == (alone.status, &alone.stdout),
            "{output:?} is not {alone:?}"
        );
    }
    under(commands[0], &program)?;
    let incidents = run::incidents(Path::new(&file))?;
    ensure!(messages(&incidents) == ["caf\u{fffd}.txt"], "{:?}", messages(&incidents));
    let args = incidents[0].process.args.clone().unwrap_or_default();
    ensure!(args.last().map(String::as_str) == Some("caf\u{fffd}.txt"), "{args:?}");
    Ok(())
}

/// Options after PROGRAM belong to the program, options before it to panicwatch.
fn without_dashes(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("inherited", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    for dashes in [&[][..], &["--"]] {
        let file = dir.path().join("incidents");
        let mut command = panicwatch("run", &file, dashes);
        command.args([&path, "-o", "x", "--wait", "--", "--help"]);
        let output = run::finish(command)?;
        ensure!(output.stdout.contains(r#"["-o" "x" "--wait" "--" "--help"]"#), "{output:?}");
        ensure!(messages(&run::incidents(&file)?) == ["--help"], "{output:?}");
    }
    Ok(())
}

/// The program keeps running and being watched, and its exit status is the command's.
fn full_disk(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("ticker", toolchain)?.display().to_string();
    let output = run::finish(with(panicwatch("run", Path::new("/dev/full"), &["--"]), &[&path, "200ms"]))?;
    lost(&output, count(&output.stdout)?)?;
    let path = fixture("early", toolchain)?.display().to_string();
    let output = run::finish(with(panicwatch("run", Path::new("/dev/full"), &["--"]), &[&path]))?;
    ensure!(output.status == 2 && output.stderr.contains("1 incident could not be written"), "{output:?}");
    Ok(())
}

fn with(mut command: Command, args: &[&str]) -> Command {
    command.args(args);
    command
}

/// Returns the number of panics that a `ticker` printed at its end.
fn count(stdout: &str) -> Result<u64> {
    stdout.rsplit(' ').next().unwrap_or_default().trim().parse().context(stdout.to_owned())
}

/// Checks for status 0, one sentence about the first failure, and the number of lost incidents at the end.
fn lost(output: &crate::compare::runs::Output, number: u64) -> Result<()> {
    ensure!(output.status == 0, "{output:?}");
    let said = output.stderr.matches("No space left on device").count();
    ensure!(said == 1, "said {said} times: {:?}", output.stderr);
    ensure!(
        output.stderr.contains(&format!("{number} incidents could not be written")),
        "{number}: {output:?}"
    );
    Ok(())
}

fn full_stderr(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("ticker", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    let out = dir.path().join("out");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" run -- \"$1\" 200ms >\"$2\" 2>/dev/full", PANICWATCH, &path]).arg(&out);
    let output = run::finish(command)?;
    ensure!(output.status == 0, "{output:?}");
    let text = fs::read_to_string(&out)?;
    ensure!(text.contains("done "), "{text:?}");
    Ok(())
}

fn full_disk_attach(toolchain: &Toolchain) -> Result<()> {
    let mut ticker = Running::start(with(Command::new(fixture("ticker", toolchain)?), &["1500ms"]))?;
    ticker.wait_for("ready")?;
    let pid = ticker.child.id().to_string();
    let output = run::finish(panicwatch("attach", Path::new("/dev/full"), &["--pid", &pid]))?;
    ensure!(output.status == 1, "what it was for is lost: {output:?}");
    ensure!(output.stderr.matches("No space left on device").count() == 1, "{output:?}");
    ensure!(output.stderr.contains(" incidents could not be written"), "{output:?}");
    ensure!(ticker.finish()?.status == 0, "it ends without a signal");
    Ok(())
}

fn full_disk_traces(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("ticker", toolchain)?.display().to_string();
    let full = Path::new("/dev/full");
    let trace = with(panicwatch("trace", full, &["main.tick", "--"]), &[&path, "300ms"]);
    let output = run::finish(trace)?;
    let number = count(&output.stdout).with_context(|| output.stderr.clone())?;
    ensure!(output.status == 0 && output.stderr.contains("No space left on device"), "{output:?}");
    ensure!(output.stderr.contains(&format!("{number} calls")), "counted to the end, {number}: {output:?}");
    for format in ["text", "json", "perfetto"] {
        let command = with(panicwatch("init-trace", full, &["--format", format, "--"]), &[&path, "100ms"]);
        let output = run::finish(command)?;
        ensure!(output.status == 0 && output.stdout.contains("done "), "{output:?}");
        ensure!(output.stderr.matches("No space left on device").count() == 1, "{output:?}");
    }
    Ok(())
}

/// A program that starts another one in the background and exits first.
fn left_running(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("ticker", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    let script = "\"$0\" 5s >/dev/null & echo $!; exit 3";
    let file = dir.path().join("incidents");
    let output = run::finish(with(panicwatch("run", &file, &["--"]), &["sh", "-c", script, &path]))?;
    let pid = output.stdout.trim();
    let named = output.stderr.contains(&format!("(pid {pid})"))
        && output.stderr.contains(&format!("panicwatch attach --pid {pid}"));
    // This test started the process, which may have ended already.
    let _ = run::signal(pid.parse()?, libc::SIGKILL);
    ensure!(output.status == 3 && named, "{output:?}");
    Ok(())
}

fn waits(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("ticker", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    let file = dir.path().join("incidents");
    let script = "\"$0\" 1s & exit 3";
    let output =
        run::finish(with(panicwatch("run", &file, &["--wait", "--"]), &["sh", "-c", script, &path]))?;
    ensure!(output.status == 3 && !output.stderr.contains("attach --pid"), "{output:?}");
    ticks(&run::incidents(&file)?, &output.stdout)
}

/// `--kill-on-exit` ends the program when panicwatch is killed; a test in `exec` checks that the program
/// continues without it.
fn killed_with_us(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("ticker", toolchain)?;
    let dir = TempDir::new()?;
    let mut command = panicwatch("run", &dir.path().join("incidents"), &["--kill-on-exit", "--"]);
    command.arg(&path).arg("60s");
    let mut running = Running::start(command)?;
    running.wait_for("ready")?;
    let target = process::running(&path, running.child.id())?;
    run::signal(running.child.id(), libc::SIGKILL)?;
    running.finish()?;
    let mut tries = 0..2000;
    while process::state(target).is_some_and(|state| state != 'Z') {
        ensure!(tries.next().is_some(), "the program still runs: {:?}", process::state(target));
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// One sentence instead of blocking forever.
fn pipes_and_devices() -> Verdict {
    let dir = TempDir::new()?;
    let pipe = dir.path().join("pipe");
    ensure!(Command::new("mkfifo").arg(&pipe).status()?.success(), "mkfifo");
    ensure!(fs::metadata(&pipe)?.file_type().is_fifo(), "a FIFO");
    let pipe = pipe.display().to_string();
    for target in [&*pipe, "/dev/zero"] {
        for command in [
            &["attach", "--exe", target][..],
            &["trace", "main.*", "--exe", target],
            &["show", target],
            &["inspect", target],
            &["symbolize", target, "0x1000"],
            &["run", "--", target],
            &["run", "--dry-run", target],
        ] {
            let output = run::finish(with(Command::new(PANICWATCH), command))?;
            ensure!(output.status == 1 && output.stdout.is_empty(), "{command:?}: {output:?}");
            ensure!(output.stderr.trim_end().lines().count() == 1, "{command:?}: {output:?}");
            ensure!(output.stderr.contains(target), "{command:?}: {output:?}");
        }
    }
    Ok(End::Passed)
}

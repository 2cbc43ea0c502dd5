//! Breakpoints in watched programs: none is left behind whenever panicwatch is killed, and a debugger keeps
//! its own.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    matrix::{self, Built},
    need,
    run::{self, DEADLINE, PANICWATCH, Running},
};

const TABLE: &[matrix::Row] = &[
    ("killed at any moment", "ticker", killed, false),
    ("helper killed", "ticker", helper_killed, false),
    ("helper of attach and trace killed", "ticker", helper_killed_beside, false),
    ("stale record", "ticker", stale_record, false),
    ("debugger at a panic site", "calls", debugger_at_gopanic, false),
    ("debugger at a traced function", "calls", debugger_at_function, false),
];

/// Releases whose programs are killed and debugged; the kernel behaves the same for all.
const VERSIONS: [&str; 2] = ["1.24", "1.27"];

/// Returns every test of the group.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = matrix::trials("breakpoints", TABLE, &[]);
    trials.retain(|trial| need::full() || trial.name().split("::").any(|part| VERSIONS.contains(&part)));
    trials
}

/// A running program with its own copy of the executable, and a directory for the probe-site records of
/// panicwatch.
struct Target {
    running: Running,
    path: PathBuf,
    folder: TempDir,
}

impl Target {
    /// Starts a program that panics every few milliseconds.
    fn panicking(built: &Built) -> Result<Target> {
        Target::start(built, &["60s"])
    }

    /// Starts a program that waits for a line on its standard input.
    fn waiting(built: &Built) -> Result<Target> {
        Target::start(built, &["20", "wait"])
    }

    fn start(built: &Built, args: &[&str]) -> Result<Target> {
        let folder = TempDir::new()?;
        let path = folder.path().join("target");
        fs::copy(&built.path, &path)?;
        let mut command = Command::new(&path);
        command.args(args).stdin(Stdio::piped());
        let mut running = Running::start_as_is(command)?;
        running.wait_for("ready")?;
        Ok(Target { running, path, folder })
    }

    fn pid(&self) -> u32 {
        self.running.child.id()
    }

    fn records(&self) -> PathBuf {
        self.folder.path().join("records")
    }

    fn panicwatch(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PANICWATCH);
        command.args(args).env("PANICWATCH_RECORDS", self.records());
        command
    }

    /// Returns how many bytes of its code in memory differ from the file.
    fn changed(&self) -> Result<usize> {
        let pid = self.pid();
        let (file, memory) = (fs::read(&self.path)?, File::open(format!("/proc/{pid}/mem"))?);
        let inode = fs::metadata(&self.path)?.ino().to_string();
        let mut changed = 0;
        for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.get(4) != Some(&inode.as_str()) || !words[1].contains('x') {
                continue;
            }
            let (start, end) = words[0].split_once('-').context("a range")?;
            let number = |text: &str| u64::from_str_radix(text, 16);
            let (start, end, offset) = (number(start)?, number(end)?, number(words[2])? as usize);
            let mut code = vec![0; (end - start) as usize];
            memory.read_exact_at(&mut code, start)?;
            let same = file.get(offset..).context("the file is shorter")?;
            changed += code.iter().zip(same).filter(|(here, there)| here != there).count();
        }
        Ok(changed)
    }

    /// Returns the record of probe sites, and its entry for this program's file.
    fn recorded(&self) -> Result<Option<(Value, Value)>> {
        let inode = fs::metadata(&self.path)?.ino();
        let Ok(entries) = fs::read_dir(self.records()) else { return Ok(None) };
        for entry in entries {
            // Records may be removed meanwhile.
            let Ok(bytes) = fs::read(entry?.path()) else { continue };
            let Ok(content) = serde_json::from_slice::<Value>(&bytes) else { continue };
            let files = content["files"].as_array().context("no files")?;
            if let Some(sites) = files.iter().find(|sites| sites["ino"] == inode).cloned() {
                return Ok(Some((content, sites)));
            }
        }
        Ok(None)
    }

    /// Waits until no byte is changed: another test's daemon may watch the whole host meanwhile.
    fn is_clean(&self, when: &str) -> Result<()> {
        until(&format!("that no byte of its code is changed {when}"), || Ok(self.changed()? == 0))
    }

    /// Reads the byte at an address of the program's memory.
    fn byte(&self, address: u64) -> Result<u8> {
        let mut byte = [0];
        File::open(format!("/proc/{}/mem", self.pid()))?.read_exact_at(&mut byte, address)?;
        Ok(byte[0])
    }

    /// Checks that the program is still alive after it had time to panic and recover.
    fn lives(&mut self) -> Result<()> {
        thread::sleep(Duration::from_millis(50));
        ensure!(self.running.child.try_wait()?.is_none(), "it died: {}", self.running.stderr()?);
        Ok(())
    }
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !done()? {
        ensure!(began.elapsed() < DEADLINE, "{what} did not happen");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Returns the helper process of the panicwatch process `of`, if it has one.
fn helper(of: u32) -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        let title = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        parent == Some(of.to_string().as_str()) && title == b"panicwatch: probes\0"
    })
}

fn ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

/// SIGKILL as soon as the first breakpoint is placed, after attaching, and while detaching.
fn killed(built: &Built) -> Result<()> {
    let mut target = Target::panicking(built)?;
    let pid = target.pid().to_string();
    for round in 0_u64..6 {
        let mut command = target.panicwatch(&["trace", "--count", "*", "--pid", &pid]);
        command.stdout(Stdio::null());
        let mut tracing = Running::start(command)?;
        let of = tracing.child.id();
        until("attaching", || Ok(target.recorded()?.is_some()))?;
        let helper = helper(of).context("it has no helper")?;
        if round % 3 > 0 {
            tracing.wait_for_stderr("press Ctrl-C to stop")?;
        }
        if round % 3 == 2 {
            run::signal(of, libc::SIGINT)?;
        }
        thread::sleep(Duration::from_millis(round * 5));
        tracing.child.kill()?;
        tracing.child.wait()?;
        until("the helper's end", || Ok(ended(helper)))?;
        target.is_clean(&format!("after kill {round}"))?;
    }
    ensure!(fs::read_dir(target.records())?.next().is_none(), "a record was left");
    target.lives()
}

/// `run` reports the killed helper and still ends as its program does; the kernel detaches the probes.
fn helper_killed(built: &Built) -> Result<()> {
    let folder = TempDir::new()?;
    let mut command = Command::new(PANICWATCH);
    command.args(["run", "--"]).arg(&built.path).arg("3s").env("PANICWATCH_RECORDS", folder.path());
    let mut running = Running::start(command)?;
    running.wait_for("ready")?;
    let helper = helper(running.child.id()).context("it has no helper")?;
    run::signal(helper, libc::SIGKILL)?;
    let output = running.finish()?;
    ensure!(output.status == 0 && output.stdout.contains("done"), "{output:?}");
    ensure!(output.stderr.contains("the process that holds the probes was killed"), "{}", output.stderr);
    Ok(())
}

/// `attach` and `trace` of a running program end with an error when their helper is killed.
fn helper_killed_beside(built: &Built) -> Result<()> {
    for args in [["attach"].as_slice(), &["trace", "main.main"]] {
        let mut target = Target::panicking(built)?;
        let pid = target.pid().to_string();
        let mut command = target.panicwatch(&[args, &["--pid", &pid]].concat());
        command.stdout(Stdio::null());
        let mut panicwatch = Running::start(command)?;
        panicwatch.wait_for_stderr("press Ctrl-C to stop")?;
        let helper = helper(panicwatch.child.id()).context("it has no helper")?;
        run::signal(helper, libc::SIGKILL)?;
        let output = panicwatch.finish()?;
        ensure!(output.status == 1, "{args:?}: status {}: {}", output.status, output.stderr);
        ensure!(output.stderr.contains("the process that holds the probes was killed"), "{}", output.stderr);
        target.lives()?;
    }
    Ok(())
}

/// Both processes are killed: the next command that checks for stale records detaches what they left behind.
fn stale_record(built: &Built) -> Result<()> {
    let mut target = Target::panicking(built)?;
    let pid = target.pid().to_string();
    let mut tracing = Running::start(target.panicwatch(&["trace", "--count", "main.*", "--pid", &pid]))?;
    tracing.wait_for_stderr("press Ctrl-C to stop")?;
    let helper = helper(tracing.child.id()).context("it has no helper")?;
    let (content, sites) = target.recorded()?.context("no record")?;
    ensure!(content["owner"]["pid"] == tracing.child.id() && content["helper"]["pid"] == helper, "{content}");
    ensure!(sites["offsets"].as_array().is_some_and(|offsets| offsets.len() >= 2), "{content}");
    // No other instance touches the record of a live instance.
    run::finish(target.panicwatch(&["doctor"]))?;
    ensure!(target.recorded()?.is_some() && target.changed()? > 0, "doctor detached a living instance");
    run::signal(helper, libc::SIGKILL)?;
    tracing.child.kill()?;
    tracing.child.wait()?;
    until("the helper's end", || Ok(ended(helper)))?;
    ensure!(target.recorded()?.is_some(), "the helper was killed and cannot have removed its record");
    let doctor = run::finish(target.panicwatch(&["doctor", "--format", "json"]))?;
    let report: Value = serde_json::from_str(&doctor.stdout)?;
    let checks = report["checks"].as_array().context("no checks")?;
    let check = checks.iter().find(|check| check["name"] == "leaked probes").context("no such check")?;
    ensure!(check["ok"] == true, "{check}");
    ensure!(target.recorded()?.is_none(), "the record was left");
    target.is_clean("after doctor")?;
    target.lives()
}

/// Runs panicwatch on the target's executable and returns its standard output.
fn told(target: &Target, args: &[&str]) -> Result<String> {
    let mut command = target.panicwatch(args);
    command.arg(&target.path);
    Ok(run::finish(command)?.stdout)
}

const INT3: u8 = 0xcc;

/// A running gdb, and the address of its breakpoint.
struct Debugger {
    running: Running,
    address: u64,
}

/// Starts gdb with a breakpoint `offset` bytes after the start of `function`. The program does not hit it
/// yet: it waits.
fn gdb(target: &Target, function: &str, offset: &str) -> Result<Debugger> {
    let script = target.folder.path().join("gdb");
    let place = format!("break *((long)&'{function}'{offset})");
    // gdb continues after each hit.
    let lines = format!("{place}\ncommands\nsilent\ncontinue\nend\ncontinue\n");
    let signals = "set pagination off\nset language c\nhandle all nostop noprint pass\n";
    fs::write(&script, format!("{signals}{lines}"))?;
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-p", &target.pid().to_string(), "-x"]).arg(&script);
    let mut running = Running::start(command)?;
    running.wait_for("Breakpoint 1 at 0x")?;
    let said = running.stdout()?;
    let digits = said
        .split("Breakpoint 1 at 0x")
        .nth(1)
        .and_then(|rest| rest.split(|c: char| !c.is_ascii_hexdigit()).next());
    let address = u64::from_str_radix(digits.context("no address")?, 16)?;
    // gdb inserts the breakpoint when the program continues.
    until("gdb's breakpoint", || Ok(target.byte(address)? == INT3))?;
    Ok(Debugger { running, address })
}

/// Checks that the debugger's breakpoint survives panicwatch, and that the program then hits it and ends as
/// usual.
fn undisturbed(mut target: Target, mut gdb: Debugger) -> Result<()> {
    ensure!(target.byte(gdb.address)? == INT3, "gdb's breakpoint is gone");
    drop(target.running.child.stdin.take());
    let status = run::wait(&mut target.running.child, DEADLINE)?;
    ensure!(status.success(), "it ended with {status}: {}", target.running.stderr()?);
    let gdb = gdb.running.finish()?;
    ensure!(gdb.stdout.contains("exited normally"), "gdb: {gdb:?}");
    Ok(())
}

fn has_gdb() -> Result<()> {
    ensure!(need::on_path("gdb"), "gdb is not installed");
    Ok(())
}

fn debugger_at_gopanic(built: &Built) -> Result<()> {
    has_gdb()?;
    let target = Target::waiting(built)?;
    let facts: Value = serde_json::from_str(&told(&target, &["inspect", "--format", "json"])?)?;
    let probes = facts["probes"].as_array().context("no probes")?;
    let of_gopanic = |probe: &&Value| probe["symbol"] == "runtime.gopanic" && probe["placed"] == true;
    let offset = probes.iter().find(of_gopanic).and_then(|probe| probe["offset"].as_u64());
    let gdb = gdb(&target, "runtime.gopanic", &format!("+{}", offset.context("no offset")?))?;
    let output = run::finish(target.panicwatch(&["attach", "--pid", &target.pid().to_string()]))?;
    ensure!(output.status == 3, "status {}: {}", output.status, output.stderr);
    for word in ["runtime.gopanic", "gdb (process ", "has a breakpoint there"] {
        ensure!(output.stderr.contains(word), "{word:?} is not in {}", output.stderr);
    }
    undisturbed(target, gdb)
}

fn debugger_at_function(built: &Built) -> Result<()> {
    has_gdb()?;
    let target = Target::waiting(built)?;
    // A line such as "main.leaf  +0x6 emulated": the tracer's probe site.
    let dry = told(&target, &["trace", "main.leaf", "--dry-run", "--exe"])?;
    let offset = dry.split_whitespace().find(|word| word.starts_with('+')).context(dry.clone())?;
    let gdb = gdb(&target, "main.leaf", offset)?;
    let pid = target.pid().to_string();
    let mut tracing = Running::start(target.panicwatch(&["trace", "main.*", "--pid", &pid]))?;
    tracing.wait_for_stderr("press Ctrl-C to stop")?;
    tracing.wait_for_stderr("main.leaf is traced only in part: gdb (process ")?;
    run::signal(tracing.child.id(), libc::SIGINT)?;
    tracing.finish()?;
    undisturbed(target, gdb)
}

//! A process that gets the process ID of one that has just ended: its incidents must be attributed to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Context, End,
    daemon::Daemon,
    programs::{self, PATIENCE},
};

/// The kernel assigns the next process the first free ID above this one.
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
const PANICS: usize = 5;

pub(super) fn reuse(context: &Context) -> Result<End> {
    if !Path::new(LAST_PID).exists() {
        return Ok(End::Skipped(format!("this kernel has no {LAST_PID} (CONFIG_CHECKPOINT_RESTORE)")));
    }
    let book = programs::book(context)?;
    let copy = |name: &str| -> Result<PathBuf> {
        let path = context.scratch.join(name);
        fs::copy(&book, &path)?;
        Ok(path)
    };
    let (first, second) = (copy("reuse-first")?, copy("reuse-second")?);
    let daemon = Daemon::start(context)?;
    for program in [&first, &second] {
        attach(&daemon, program)?;
    }
    let wanted = context.size(5, 50);
    let (mut reused, mut tries) = (Vec::new(), 0);
    while reused.len() < wanted && tries < wanted * 20 {
        tries += 1;
        let pid = run(&first, "0s")?;
        fs::write(LAST_PID, (pid - 1).to_string())?;
        // Another process on the host may have taken the ID.
        if run(&second, "0s")? == pid {
            reused.push(pid);
        }
    }
    ensure!(!reused.is_empty(), "no process ID was reused in {tries} tries");
    for pid in &reused {
        for program in [&first, &second] {
            expect(&daemon, *pid, program)?;
        }
    }
    daemon.stop()?;
    Ok(End::Passed(format!("{} process IDs reused, each process has its {PANICS} incidents", reused.len())))
}

/// Runs a copy until the daemon reports its panics: the daemon attaches to a binary some time after its first
/// exec.
fn attach(daemon: &Daemon, program: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pid = run(program, "1s")?;
        thread::sleep(Duration::from_secs(1));
        if found(daemon, pid, program)?.0 == PANICS {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no probes in {}: {}", program.display(), daemon.stderr());
    }
}

/// Runs a copy of the book program until it ends; returns its process ID.
fn run(program: &Path, begin: &str) -> Result<u32> {
    let mut command = Command::new(program);
    command.args(["-goroutines", "1", "-panics", &PANICS.to_string(), "-begin", begin]).stdout(Stdio::null());
    let mut child = command.spawn()?;
    let status = child.wait()?;
    ensure!(status.code() == Some(7), "the program ended with {status}");
    Ok(child.id())
}

/// Waits until the daemon has stored all incidents of this process.
fn expect(daemon: &Daemon, pid: u32, program: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (found, all) = found(daemon, pid, program)?;
        if found == PANICS {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{found} of {PANICS} incidents of process {pid}, {}; there are {all:?}; the daemon: {}",
            program.display(),
            daemon.stderr()
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// The number of stored incidents of this process and program, and the programs of all with this process ID.
fn found(daemon: &Daemon, pid: u32, program: &Path) -> Result<(usize, Vec<String>)> {
    let answer = daemon.get(&format!("/api/v1/incidents?limit=500&pid={pid}"))?;
    let body = answer.split_once("\r\n\r\n").context("an HTTP answer")?.1;
    let answer: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
    let incidents = answer["incidents"].as_array().context("incidents")?;
    let exes = incidents.iter().map(|i| i["process"]["exe"].as_str().unwrap_or_default().to_owned());
    let all: Vec<String> = exes.collect();
    Ok((all.iter().filter(|exe| **exe == program.display().to_string()).count(), all))
}

//! New binaries whose first process ends before the daemon can read it: the next process of each is watched.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::host::{Daemon, Host, until};

const BINARIES: usize = 60;

/// Runs `program` to its end with `name` as its argv[0]: it panics twice, and dies of the second panic.
fn run(program: &Path, name: &str, dir: &Path) -> Result<()> {
    let mut command = Command::new(name);
    command.args(["1", "0s", "die"]).current_dir(dir).env("PATH", dir);
    let ended = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    ended.map(drop).with_context(|| format!("running {}", program.display()))
}

pub(super) fn binaries(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    host.everything();
    let names: Vec<String> = (0..BINARIES).map(|n| format!("short{n:02}")).collect();
    let programs: Vec<PathBuf> = names.iter().map(|name| host.program(name, built)).collect::<Result<_>>()?;
    let daemon = host.start()?;
    let dir = host.dir.path();
    for (n, (program, name)) in programs.iter().zip(&names).enumerate() {
        // Started by path, and as a shell does: by name, found on PATH.
        let path = program.to_string_lossy();
        run(program, if n % 2 == 0 { &path } else { name }, dir)?;
    }
    until("all binaries to have probes", || {
        let probes = daemon.json("/api/v1/probes")?;
        let paths: Vec<&str> =
            probes["binaries"].as_array().into_iter().flatten().filter_map(|b| b["path"].as_str()).collect();
        Ok(programs.iter().all(|program| paths.iter().any(|path| program == Path::new(path))).then_some(()))
    })?;
    let late = unread(&daemon, "it ended before its probes were attached")?;
    ensure!(late > 0.0, "no first run is counted");
    for program in &programs {
        run(program, &program.to_string_lossy(), dir)?;
    }
    let daemon = counts_what_it_cannot_read(daemon, &programs[0], dir)?;
    let seen = || {
        let incidents = daemon.incidents()?;
        let exes: BTreeSet<&str> =
            incidents.iter().filter_map(|incident| incident.process.exe.as_deref()).collect();
        let unseen = programs.iter().find(|program| !exes.contains(&*program.to_string_lossy()));
        Ok(unseen.is_none().then_some(()))
    };
    until("the second run of each to be seen", seen)
}

fn counts_what_it_cannot_read(daemon: Daemon, program: &Path, dir: &Path) -> Result<Daemon> {
    let counted = || {
        run(program, "./short00", dir)?;
        let n = unread(&daemon, "its path is not known")?;
        Ok((n > 0.0).then_some(()))
    };
    until("a program that was started as ./short00 to be counted", counted)?;
    Ok(daemon)
}

/// Returns the number of programs that the daemon has counted with this reason.
fn unread(daemon: &Daemon, reason: &str) -> Result<f64> {
    let (_, text) = daemon.get("/metrics")?;
    let row = format!("panicwatch_unread_programs_total{{reason=\"{reason}\"}} ");
    let number = text.lines().find_map(|line| line.strip_prefix(&row)?.parse().ok());
    number.with_context(|| format!("no {row}"))
}

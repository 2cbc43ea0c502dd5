//! The daemon on real programs, compared with the books that these programs keep themselves.

mod collector;
mod confined;
mod diagnostics;
mod disk;
mod host;
mod short;
mod soak;
mod together;

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use panicwatch::incident::Outcome;
use tempfile::TempDir;

use crate::{
    fixtures, gate,
    gobuild::DEFAULT,
    ledger::{End, Verdict, cell},
    need, run, start,
    toolchain::{self, Toolchain},
};
use host::{Host, until};

type Test = fn(&Path) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("finds what runs and what starts", finds),
    ("replaced and deleted binaries", replaced),
    ("selects", selects),
    ("holds new binaries", holds),
    ("stopped while it holds", stopped),
    ("dies at once", dies_at_once),
    ("short-lived new binaries", short::binaries),
    ("killed and started again", killed),
    ("stops in order", stops),
    ("reloads", reloads),
    ("overwritten binaries", overwritten),
    ("two mounts of an image", mounts),
    ("confined", confined::confined),
    ("diagnostics", diagnostics::diagnostics),
    ("full disk", disk::full),
    ("adds up", soak::adds_up),
    ("all together", together::all),
];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, toolchain) in toolchain::all() {
        let wanted = match version.as_str() {
            "1.27" => TESTS,
            "1.19" => &TESTS[..1],
            _ if need::full() => TESTS,
            _ => continue,
        };
        for (name, test) in wanted {
            let toolchain = toolchain.clone();
            trials.push(cell("daemon", &version, name, move || watched(*test, &toolchain)));
        }
        if version == "1.27" {
            trials.push(cell("daemon", &version, "Go library of a C host", move || library(&toolchain)));
        }
    }
    trials
}

/// A process that is not a Go program until it loads a Go library.
fn library(toolchain: &std::result::Result<Toolchain, String>) -> Verdict {
    let toolchain = match toolchain {
        Ok(toolchain) => toolchain,
        Err(reason) => return Ok(End::Skipped(reason.clone())),
    };
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    if !need::on_path("gcc") {
        return Ok(End::Skipped("gcc is not installed".to_owned()));
    }
    let dir = TempDir::new()?;
    let (library, built) = start::host(toolchain, dir.path())?;
    let mut host = Host::new("")?;
    let program = host.program("host", Path::new(&built))?;
    let mut daemon = host.start()?;
    let go = dir.path().join("go");
    let mut command = Command::new(&program);
    command.env("LIBRARY", &library).env("GO", &go);
    let mut running = run::Running::start(command)?;
    let pid = running.child.id();
    until("the process among those that are watched", || {
        let answer = daemon.json("/api/v1/processes")?;
        let all = answer["processes"].as_array().context("processes")?;
        Ok(all.iter().any(|it| it["pid"] == pid && it["watched"] == true).then_some(()))
    })?;
    fs::write(&go, "")?;
    ensure!(running.finish()?.status == 134, "it dies of its panic");
    let incidents = until("six panics", || {
        let incidents = daemon.incidents()?;
        Ok((incidents.len() == 6).then_some(incidents))
    })?;
    let fatal = incidents.iter().filter(|incident| incident.outcome == Outcome::Fatal).count();
    ensure!(fatal == 1, "{fatal} are fatal");
    for incident in &incidents {
        ensure!(incident.process.exe.as_deref() == program.to_str(), "{:?}", incident.process);
    }
    daemon.stop()?;
    Ok(End::Passed)
}

fn watched(test: Test, toolchain: &std::result::Result<Toolchain, String>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    match fixtures::build("shop", DEFAULT, toolchain)? {
        Ok((_, path)) => test(&path).map(|()| End::Passed),
        Err(reason) => Ok(End::Skipped(reason)),
    }
}

/// Finds processes that run before the daemon starts, that start while it runs, and one that exits at once.
fn finds(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let program = host.program("shop", built)?;
    let before = host.run(&program, &["400", "20ms", "die"])?;
    before.wait_for("ready")?;
    let mut daemon = host.start()?;
    let (at_start, _) = before.books()?;
    let after = host.run(&program, &["20", "5ms", "die"])?;
    let at_once = host.run(&program, &["0", "0s", "die"])?;
    let pids = (before.child.id(), after.child.id(), at_once.child.id());
    ensure!(after.finish()? == (2, (20, 1)), "the program ends as it would alone");
    ensure!(at_once.finish()? == (2, (0, 1)), "the program ends as it would alone");
    let (status, (all, _)) = before.finish()?;
    ensure!(status == 2 && all == 400, "the program ends as it would alone");
    let incidents = until("three deaths", || {
        let incidents = daemon.incidents()?;
        let deaths = incidents.iter().filter(|incident| incident.outcome == Outcome::Fatal).count();
        Ok((deaths == 3).then_some(incidents))
    })?;
    let of = |pid| incidents.iter().filter(|incident| incident.process.pid == pid).count() as u64;
    ensure!(of(pids.1) == 21 && of(pids.2) == 1, "{} and {}", of(pids.1), of(pids.2));
    // The probes are attached before the daemon reports ready, and the books were read after that.
    ensure!(of(pids.0) > 400 - at_start && of(pids.0) <= 401, "{} of {}", of(pids.0), 401 - at_start);
    for incident in &incidents {
        ensure!(incident.process.args.as_ref().is_some_and(|args| args.len() == 4), "{:?}", incident.process);
        ensure!(incident.process.exe.as_deref() == program.to_str(), "{:?}", incident.process);
        ensure!(incident.timeline.is_none(), "a list is without timelines");
    }
    // Recovered panics may exceed the rate of timelines; a death always has one.
    let death = incidents.iter().find(|incident| incident.outcome == Outcome::Fatal).context("a death")?;
    let whole = daemon.json(&format!("/api/v1/incidents/{}", death.id))?;
    ensure!(whole["timeline"].is_object(), "the whole has one");
    daemon.stop()
}

/// A new build under the old name, and a binary that is deleted while it runs.
fn replaced(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let program = host.program("shop", built)?;
    let mut daemon = host.start()?;
    let old = host.run(&program, &["60", "10ms", "exit"])?;
    old.wait_for("recovered 3")?;
    host.program("shop", built)?;
    let new = host.run(&program, &["60", "10ms", "exit"])?;
    new.wait_for("recovered 3")?;
    fs::remove_file(&program)?;
    ensure!(old.finish()?.0 == 0 && new.finish()?.0 == 0, "they end as they would alone");
    // The first panics of a new file may precede its probes: at most those of 150 ms per file.
    let sums = until("the sums", || {
        let recovered = daemon.metrics()?.get("recovered").copied().unwrap_or(0);
        Ok((recovered >= 90).then_some(recovered))
    })?;
    ensure!(sums <= 120, "{sums} panics");
    // Attached probes would keep the deleted files' disk space in use.
    until("probes to leave deleted binaries", || {
        let probes = daemon.json("/api/v1/probes")?;
        Ok(probes["binaries"].as_array().is_some_and(Vec::is_empty).then_some(()))
    })?;
    daemon.stop()
}

/// One of two processes of the same binary is excluded, and so is the only process of another binary.
fn selects(built: &Path) -> Result<()> {
    let mut host = Host::new("[[watch.exclude]]\ncommand = [\" noise$\"]\n")?;
    let (program, other) = (host.program("shop", built)?, host.program("other", built)?);
    let mut daemon = host.start()?;
    let wanted = host.run(&program, &["200", "20ms", "exit"])?;
    let its_pid = wanted.child.id();
    until("the process that is watched", || {
        let answer = daemon.json("/api/v1/processes")?;
        let all = answer["processes"].as_array().context("processes")?;
        Ok(all.iter().any(|it| it["pid"] == its_pid && it["watched"] == true).then_some(()))
    })?;
    let (before, _) = wanted.books()?;
    let unwanted = host.run(&program, &["40", "20ms", "die", "noise"])?;
    let as_well = host.run(&other, &["40", "20ms", "die", "noise"])?;
    let pid = unwanted.child.id();
    let listed = until("the process that is left out", || {
        let answer = daemon.json("/api/v1/processes")?;
        let found =
            answer["processes"].as_array().and_then(|all| all.iter().find(|p| p["pid"] == pid).cloned());
        Ok(found)
    })?;
    ensure!(listed["watched"] == false, "{listed}");
    ensure!(listed["reason"].as_str().is_some_and(|reason| reason.contains("exclude")), "{listed}");
    for shop in [unwanted, as_well] {
        ensure!(shop.finish()? == (2, (40, 1)), "it ends as it would alone");
    }
    let (_, (all, _)) = wanted.finish()?;
    let probes = daemon.json("/api/v1/probes")?;
    let paths = probes["binaries"].as_array().context("binaries")?;
    ensure!(paths.iter().all(|binary| binary["path"] != other.to_str().unwrap_or_default()), "{probes}");
    let least = usize::try_from(all - before)?;
    let incidents =
        until("its panics", || Ok(Some(daemon.incidents()?).filter(|found| found.len() >= least)))?;
    ensure!(incidents.iter().all(|it| it.process.pid == its_pid), "somebody else's are told");
    daemon.stop()
}

/// The first process of a new binary, which exits within a millisecond.
fn holds(built: &Path) -> Result<()> {
    let mut host = Host::holding()?;
    let mut daemon = host.start()?;
    for n in 0..3 {
        let program = host.program(&format!("new{n}"), built)?;
        ensure!(
            host.run(&program, &["1", "0s", "die"])?.finish()? == (2, (1, 1)),
            "it ends as it would alone"
        );
    }
    daemon.wait_for_sums(3, 3)?;
    // An exec that waits for a daemon continues when the daemon is killed.
    daemon.kill()?;
    let program = host.program("last", built)?;
    ensure!(host.run(&program, &["1", "0s", "die"])?.finish()? == (2, (1, 1)), "it ends as it would alone");
    Ok(())
}

/// SIGSTOP of a daemon that holds new binaries: execs of known and of new files continue.
fn stopped(built: &Path) -> Result<()> {
    let mut host = Host::holding()?;
    let daemon = host.start()?;
    let pid = daemon.running.child.id();
    let _guard = gate::Guard::of(pid);
    run::signal(pid, libc::SIGSTOP)?;
    let go_on = gate::execs_go_on("the daemon is stopped").and_then(|()| {
        let program = host.program("unheld", built)?;
        host.run(&program, &["1", "0s", "die"])?.finish()
    });
    run::signal(pid, libc::SIGCONT)?;
    ensure!(go_on? == (2, (1, 1)), "it ends as it would alone");
    let released = || {
        let (_, text) = daemon.get("/metrics")?;
        let released = "panicwatch_execs_released_total{reason=\"unresponsive\"} ";
        Ok(text.lines().find_map(|line| line.strip_prefix(released)?.parse::<u64>().ok()).filter(|n| *n > 0))
    };
    until("the exec to be counted as released", released)?;
    // The daemon responds again, and holds execs again.
    let program = host.program("held", built)?;
    ensure!(host.run(&program, &["1", "0s", "die"])?.finish()? == (2, (1, 1)), "it ends as it would alone");
    let held =
        || Ok(daemon.incidents()?.iter().any(|incident| incident.outcome == Outcome::Fatal).then_some(()));
    until("the death of a program that was held", held)
}

/// Processes that end before the daemon can read them in /proc, of a binary whose probes are attached.
fn dies_at_once(built: &Path) -> Result<()> {
    // Several at once keep process discovery busy.
    const ROUNDS: u64 = 25;
    const AT_ONCE: u64 = 6;
    let mut host = Host::new("")?;
    let program = host.program("shop", built)?;
    let daemon = host.start()?;
    let first = host.run(&program, &["400", "5ms", "die"])?;
    until("the binary to be armed", || Ok((!daemon.incidents()?.is_empty()).then_some(())))?;
    ensure!(first.finish()?.0 == 2, "it ends as it would alone");
    let settled = || {
        let sums = daemon.metrics()?;
        thread::sleep(Duration::from_secs(1));
        Ok((sums == daemon.metrics()?).then_some(sums))
    };
    let before = until("the first one's panics to be counted", settled)?;
    let of = |outcome: &str| before.get(outcome).copied().unwrap_or(0);
    for _ in 0..ROUNDS {
        let running: Result<Vec<_>> = (0..AT_ONCE).map(|_| host.run(&program, &["1", "0s", "die"])).collect();
        for one in running? {
            ensure!(one.finish()? == (2, (1, 1)), "it ends as it would alone");
        }
    }
    let all = ROUNDS * AT_ONCE;
    daemon.wait_for_sums(of("recovered") + of("counted") + all, of("fatal") + all)
}

/// The daemon is killed midway: stored incidents are kept, the counts continue, and the gap is reported.
fn killed(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let program = host.program("shop", built)?;
    let mut daemon = host.start()?;
    let first = host.run(&program, &["30", "5ms", "exit"])?;
    first.wait_for("recovered 1")?;
    let long = host.run(&program, &["2000", "10ms", "exit"])?;
    let (_, (recovered, _)) = first.finish()?;
    until("some incidents", || Ok((daemon.incidents()?.len() as u64 > recovered).then_some(())))?;
    let before = daemon.incidents()?;
    daemon.kill()?;
    let (unseen, _) = long.books()?;
    until("some that nobody sees", || Ok((long.books()?.0 > unseen + 5).then_some(())))?;
    let mut daemon = host.start()?;
    let (seen_again, _) = long.books()?;
    let gaps = daemon.json("/api/v1/gaps")?;
    ensure!(gaps["gaps"].as_array().is_some_and(|gaps| gaps.len() == 1), "{gaps}");
    until("some after it", || Ok((long.books()?.0 > seen_again + 20).then_some(())))?;
    run::signal(long.child.id(), libc::SIGKILL)?;
    let (_, (all, _)) = long.finish()?;
    let after = until("the books' last", || {
        let incidents = daemon.incidents()?;
        Ok((incidents.len() as u64 >= before.len() as u64 + all - seen_again - 1).then_some(incidents))
    })?;
    for incident in &before {
        ensure!(after.iter().any(|later| later == incident), "lost: {}", incident.id);
    }
    until("as many to be counted as are stored", || {
        let counted: u64 = daemon.metrics()?.values().sum();
        Ok((counted == daemon.incidents()?.len() as u64).then_some(()))
    })?;
    daemon.stop()
}

/// A panic in progress when the daemon is stopped is reported as far as it was seen.
fn stops(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let program = host.program("shop", built)?;
    let mut daemon = host.start()?;
    let shop = host.run(&program, &["200", "2ms", "hang"])?;
    shop.wait_for("hangs")?;
    let (recovered, _) = shop.books()?;
    daemon.stop()?;
    ensure!(shop.books()?.0 == recovered, "nothing happened meanwhile");
    let mut daemon = host.start()?;
    let incidents = daemon.incidents()?;
    let newest = incidents.first().context("an incident")?;
    ensure!(
        newest.outcome == Outcome::Unknown && newest.message.as_deref() == Some("never over"),
        "{newest:?}"
    );
    daemon.stop()
}

/// Changes the selection while programs run; a rejected configuration file changes nothing.
fn reloads(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let program = host.program("shop", built)?;
    let mut daemon = host.start()?;
    let shop = host.run(&program, &["3000", "5ms", "exit"])?;
    until("an incident", || Ok((!daemon.incidents()?.is_empty()).then_some(())))?;
    host.configure("[nonsense]\n")?;
    run::signal(daemon.running.child.id(), libc::SIGHUP)?;
    daemon.running.wait_for_stderr("the configuration was not reloaded")?;
    host.configure("[[watch.exclude]]\nexe = [\"*/shop\"]\n")?;
    run::signal(daemon.running.child.id(), libc::SIGHUP)?;
    daemon.running.wait_for_stderr("the configuration was reloaded")?;
    until("the process to be left out", || {
        let answer = daemon.json("/api/v1/processes")?;
        let all = answer["processes"].as_array().context("processes")?;
        Ok(all.iter().any(|process| process["watched"] == false).then_some(()))
    })?;
    thread::sleep(Duration::from_millis(100));
    let then = daemon.incidents()?.len();
    let books = shop.books()?.0;
    until("more panics", || Ok((shop.books()?.0 > books + 20).then_some(())))?;
    thread::sleep(Duration::from_millis(100));
    let now = daemon.incidents()?.len();
    ensure!(now == then, "{} incidents of a process that is left out", now - then);
    host.configure("")?;
    run::signal(daemon.running.child.id(), libc::SIGHUP)?;
    until("incidents again", || Ok((daemon.incidents()?.len() > now).then_some(())))?;
    drop(shop);
    daemon.stop()
}

/// A file is copied over a binary that no process runs any longer: pages vanish from the daemon's mapping of
/// it.
fn overwritten(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let program = host.program("shop", built)?;
    let mut daemon = host.start()?;
    let shop = host.run(&program, &["20", "5ms", "die"])?;
    ensure!(shop.finish()?.0 == 2, "it ends as it would alone");
    until("its death", || Ok(daemon.metrics()?.contains_key("fatal").then_some(())))?;
    host::overwrite(&program, b"#!/bin/sh\nexit 3\n")?;
    ensure!(host.run(&program, &[])?.finish()?.0 == 3, "the script runs");
    let (status, _) = daemon.get("/api/v1/probes")?;
    ensure!(status == 200, "it answers: {status}");
    let fresh = host.program("again", built)?;
    let shop = host.run(&fresh, &["20", "5ms", "exit"])?;
    shop.finish()?;
    until("panics of another", || {
        Ok(daemon.incidents()?.iter().any(|i| i.process.exe.as_deref() == fresh.to_str()).then_some(()))
    })?;
    daemon.stop()
}

/// Two containers of one image: the same file in two mounts. Each panic is reported once, for its own
/// process.
fn mounts(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let image = TempDir::new()?;
    fs::create_dir(image.path().join("empty"))?;
    fs::create_dir(image.path().join("lower"))?;
    fs::copy(built, image.path().join("lower/shop"))?;
    let layers = format!("lowerdir={0}/lower:{0}/empty", image.path().display());
    let _mounts: Vec<Mount> = ["one", "two"]
        .into_iter()
        .map(|name| Mount::overlay(&host.dir.path().join(name), &layers))
        .collect::<Result<_>>()?;
    let mut daemon = host.start()?;
    // The first runs make the daemon attach probes to both files before anything is counted.
    for name in ["one", "two"] {
        host.run(&host.dir.path().join(name).join("shop"), &["30", "20ms", "exit"])?.finish()?;
    }
    let probed = until("both to have probes", || {
        let probes = daemon.json("/api/v1/probes")?;
        Ok(probes["binaries"].as_array().filter(|binaries| binaries.len() == 2).map(Vec::len))
    })?;
    ensure!(probed == 2, "{probed} binaries");
    for name in ["one", "two", "one"] {
        let program = host.dir.path().join(name).join("shop");
        let shop = host.run(&program, &["20", "2ms", "die"])?;
        let pid = shop.child.id();
        ensure!(shop.finish()? == (2, (20, 1)), "it ends as it would alone");
        let found = until("its panics", || {
            let found =
                daemon.incidents()?.into_iter().filter(|it| it.process.pid == pid).collect::<Vec<_>>();
            Ok((found.len() >= 21).then_some(found))
        })?;
        // A panic that is seen twice would appear as a chain of two.
        let once =
            |it: &panicwatch::incident::Incident| it.panics.len() == 1 && it.panics[0].defers.len() <= 1;
        ensure!(found.iter().all(once), "panics are told twice: {:?}", found[0].panics);
        ensure!(found.len() == 21, "{} incidents of 21 panics", found.len());
        ensure!(
            found.iter().all(|it| it.process.exe.as_deref() == program.to_str()),
            "{:?}",
            found[0].process
        );
    }
    daemon.stop()
}

/// A mount point; dropping the value unmounts it.
struct Mount(std::path::PathBuf);

impl Mount {
    fn overlay(at: &Path, layers: &str) -> Result<Mount> {
        fs::create_dir(at)?;
        let status =
            Command::new("mount").args(["-t", "overlay", "-o", layers, "overlay"]).arg(at).status()?;
        ensure!(status.success(), "an overlay cannot be mounted: {status}");
        Ok(Mount(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazy unmount: the daemon of a failed test may still use it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

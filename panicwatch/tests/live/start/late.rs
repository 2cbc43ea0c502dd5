//! Go code that starts before probes are attached to its file: on file systems mounted later, in memory, in
//! libraries, and after an exec from another thread.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use panicwatch::incident::{Incident, Outcome};
use tempfile::TempDir;

use super::{fixture, messages, panicwatch, start_up, ticks, with};
use crate::{
    gobuild::{self, Flavour},
    run::{self, PANICWATCH, Running},
    toolchain::Toolchain,
};

/// Runs a shell script under panicwatch, with the ticker as $1 and a directory as $2.
fn script(toolchain: &Toolchain, starter: &[&str], text: &str) -> Result<()> {
    let path = fixture("ticker", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    let (file, place) = (dir.path().join("incidents"), dir.path().join("mounted"));
    fs::create_dir(&place)?;
    let place = place.display().to_string();
    let command = with(panicwatch("run", &file, &["--"]), starter);
    let output = run::finish(with(command, &["sh", "-ec", text, "sh", &path, &place]))?;
    ensure!(output.status == 0, "{output:?}");
    let incidents = run::incidents(&file)?;
    ticks(&incidents, &output.stdout).with_context(|| output.stderr.clone())?;
    let told = output.stderr.contains("started before its probes were attached");
    let late = incidents.first().is_some_and(|incident| start_up(incident).is_some());
    ensure!(told == late && !output.stderr.contains("not a Go program"), "late: {late}, {:?}", output.stderr);
    Ok(())
}

pub(super) fn mounted_later(toolchain: &Toolchain) -> Result<()> {
    script(toolchain, &[], "mount -t tmpfs none $2; cp $1 $2/app; $2/app 1s; umount -l $2")
}

pub(super) fn mounted_elsewhere(toolchain: &Toolchain) -> Result<()> {
    script(toolchain, &["unshare", "-m"], "mount -t tmpfs none $2; cp $1 $2/app; exec $2/app 1s")
}

/// The mount of memfds cannot be marked: the process is watched from a later moment on, and the incidents
/// report that.
pub(super) fn in_memory(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("ticker", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    let file = dir.path().join("incidents");
    let text = "import os,sys\nfd=os.memfd_create('app')\nos.write(fd,open(sys.argv[1],'rb').read())\n\
                os.execve(fd,['app','1s'],os.environ)";
    let output = run::finish(with(panicwatch("run", &file, &["--"]), &["python3", "-c", text, &path]))?;
    ensure!(output.status == 0, "{output:?}");
    let incidents = run::incidents(&file)?;
    ticks(&incidents, &output.stdout)?;
    let reason = incidents.first().and_then(start_up).context("it says that its start was not covered")?;
    ensure!(reason.contains("the exec gate does not cover its file system"), "{reason}");
    ensure!(output.stderr.contains("memfd:app"), "{output:?}");
    Ok(())
}

/// The exit of the thread group leader is not the exit of the process.
pub(super) fn exec_thread(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("execthread", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    let file = dir.path().join("incidents");
    for _ in 0..10 {
        let output = run::finish(with(panicwatch("run", &file, &["--"]), &[&path, "0s"]))?;
        ensure!(output.status == 0, "{output:?}");
        let incidents = run::incidents(&file)?;
        let alphas = (0..13).map(|n| format!("alpha {n}"));
        ensure!(alphas.eq(messages(&incidents)), "{:?} {}", messages(&incidents), output.stderr);
        ensure!(incidents.iter().all(|incident| start_up(incident).is_none()), "{:?}", incidents[0].missing);
    }
    Ok(())
}

pub(super) fn exec_thread_attached(toolchain: &Toolchain) -> Result<()> {
    let path = fixture("execthread", toolchain)?;
    let dir = TempDir::new()?;
    let file = dir.path().join("incidents");
    for _ in 0..3 {
        let mut program = Running::start(with(Command::new(&path), &["1500ms"]))?;
        program.wait_for("ready")?;
        let pid = program.child.id().to_string();
        let output = run::finish(panicwatch("attach", &file, &["--pid", &pid]))?;
        ensure!(output.status == 0 && program.finish()?.status == 0, "{output:?}");
        let incidents = run::incidents(&file)?;
        ensure!(incidents.len() == 13, "{:?} {}", messages(&incidents), output.stderr);
    }
    Ok(())
}

const LIBRARY: Flavour = Flavour { name: "c-shared", flags: &["-buildmode=c-shared"] };

/// Builds a Go library and a C program that loads it; returns both paths.
pub(crate) fn host(toolchain: &Toolchain, dir: &Path) -> Result<(String, String)> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/go/clibrary");
    let library = gobuild::build(toolchain, &source, LIBRARY, &[("CGO_ENABLED", "1")])?;
    let host = dir.join("host");
    let mut gcc = Command::new("gcc");
    gcc.args(["-x", "c"]).arg(source.join("host.txt")).arg("-o").arg(&host).arg("-ldl");
    let built = gcc.output().context("gcc")?;
    ensure!(built.status.success(), "gcc: {}", String::from_utf8_lossy(&built.stderr));
    // A copy: other tests use the same library at the same time.
    let copy = dir.join("library.so");
    fs::copy(&library, &copy)?;
    Ok((copy.display().to_string(), host.display().to_string()))
}

fn library_panics(incidents: &[Incident], stderr: &str) -> Result<()> {
    let wanted = ["odd 1", "odd 3", "odd 5", "odd 7", "odd 9", "odd 11"];
    ensure!(messages(incidents) == wanted, "{:?} {stderr}", messages(incidents));
    ensure!(incidents[5].outcome == Outcome::Fatal, "{:?}", incidents[5].outcome);
    let site = incidents[0].panics[0].site.as_ref();
    ensure!(site.is_some_and(|site| site.function == "main.check"), "{site:?}");
    Ok(())
}

/// A library named on the command line is covered from its first instruction.
pub(super) fn library(toolchain: &Toolchain) -> Result<()> {
    let dir = TempDir::new()?;
    let (library, host) = host(toolchain, dir.path())?;
    let file = dir.path().join("incidents");
    let output = run::finish(with(panicwatch("run", &file, &["--"]), &[&host, &library]))?;
    ensure!(output.status == 134, "{output:?}");
    let incidents = run::incidents(&file)?;
    library_panics(&incidents, &output.stderr)?;
    ensure!(incidents.iter().all(|incident| start_up(incident).is_none()), "{:?}", incidents[0].missing);
    ensure!(!output.stderr.contains("panicwatch:"), "nothing is to be said: {}", output.stderr);
    Ok(())
}

/// A library found among the process's mappings some time after it was loaded.
pub(super) fn library_later(toolchain: &Toolchain) -> Result<()> {
    let dir = TempDir::new()?;
    let (library, host) = host(toolchain, dir.path())?;
    let file = dir.path().join("incidents");
    let mut command = with(panicwatch("run", &file, &["--"]), &[&host]);
    command.env("LIBRARY", &library).env("WAIT", "5000");
    let output = run::finish(command)?;
    ensure!(output.status == 134, "{output:?}");
    let incidents = run::incidents(&file)?;
    library_panics(&incidents, &output.stderr)?;
    let reason = start_up(&incidents[0]).context("it was loaded before it was found")?;
    ensure!(reason.contains(&library), "{reason}");
    ensure!(output.stderr.contains(&library), "{output:?}");
    Ok(())
}

pub(super) fn library_attached(toolchain: &Toolchain) -> Result<()> {
    let dir = TempDir::new()?;
    let (library, host) = host(toolchain, dir.path())?;
    let mut sleep = Running::start(with(Command::new("sleep"), &["30"]))?;
    let pid = sleep.child.id().to_string();
    let output = run::finish(with(Command::new(PANICWATCH), &["attach", "--pid", &pid]))?;
    ensure!(output.status == 1 && output.stderr.contains("attach --exe FILE"), "{output:?}");
    run::signal(sleep.child.id(), libc::SIGTERM)?;
    sleep.finish()?;
    let mut command = with(Command::new(&host), &[&library]);
    command.env("WAIT", "3000");
    let mut running = Running::start(command)?;
    running.wait_for("loaded")?;
    let file = dir.path().join("incidents");
    let pid = running.child.id().to_string();
    let output = run::finish(panicwatch("attach", &file, &["--pid", &pid]))?;
    ensure!(output.status == 0 && output.stderr.contains(&format!("watching {library}")), "{output:?}");
    ensure!(running.finish()?.status == 134, "it dies of its panic");
    library_panics(&run::incidents(&file)?, &output.stderr)
}

/// A program started through the dynamic loader is not its process's executable.
pub(super) fn through_loader(toolchain: &Toolchain) -> Result<()> {
    // Path fixed by the x86-64 ABI. https://man7.org/linux/man-pages/man8/ld.so.8.html
    let loader = "/lib64/ld-linux-x86-64.so.2";
    let path = fixture("callback", toolchain)?.display().to_string();
    let dir = TempDir::new()?;
    let file = dir.path().join("incidents");
    let output = run::finish(with(panicwatch("run", &file, &["--"]), &[loader, &path, "panic"]))?;
    ensure!(output.status == 2 && !output.stderr.contains("not a Go program"), "{output:?}");
    let incidents = run::incidents(&file)?;
    ensure!(incidents.last().is_some_and(|last| last.outcome == Outcome::Fatal), "{output:?}");
    Ok(())
}

//! A full disk under the store: everything else keeps working, and a stop reports which incidents it loses.

use std::{collections::BTreeSet, fs, io::Write as _, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use panicwatch::incident::Outcome;

use super::host::{Daemon, Host, until};
use crate::run;

/// A small tmpfs; dropping the value unmounts it.
struct Small<'a>(&'a Path);

impl<'a> Small<'a> {
    fn mount(at: &'a Path) -> Result<Small<'a>> {
        fs::create_dir(at)?;
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "none"]).arg(at).status()?;
        ensure!(status.success(), "a tmpfs cannot be mounted: {status}");
        Ok(Small(at))
    }

    /// Writes until the file system is full.
    fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.0.join("filler"))?;
        while file.write_all(&[0; 4096]).is_ok() {}
        Ok(())
    }
}

impl Drop for Small<'_> {
    fn drop(&mut self) {
        // Lazy unmount: the daemon of a failed test may still use it.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Returns the numbers of recovered and of fatal panics in the metrics.
fn sums(daemon: &Daemon) -> Result<(u64, u64)> {
    let sums = daemon.metrics()?;
    let of = |outcome: &str| sums.get(outcome).copied().unwrap_or(0);
    Ok((of("recovered") + of("counted"), of("fatal")))
}

pub(super) fn full(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let dir = host.dir.path().to_owned();
    let state = dir.join("state");
    let small = Small::mount(&state)?;
    let (jsonl, hooked) = (dir.join("all.jsonl"), dir.join("hooked"));
    let hook = format!(
        "[[hook]]\nname = \"file\"\noutcome = [\"fatal\"]\n\
         command = [\"/bin/sh\", \"-c\", \"echo $PANICWATCH_URL $PANICWATCH_HOST >> {}\"]\n",
        hooked.display()
    );
    host.configure(&format!(
        "external_url = \"http://box\"\n[jsonl]\npath = \"{}\"\n{hook}",
        jsonl.display()
    ))?;
    let program = host.program("shop", built)?;
    let mut daemon = host.start()?;
    // The first panics of a new binary may precede its probes.
    host.run(&program, &["100", "5ms", "die"])?.finish()?;
    until("its death", || Ok(daemon.metrics()?.contains_key("fatal").then_some(())))?;
    let (mut recovered, mut fatal) = sums(&daemon)?;
    small.fill()?;
    // The store's file may still have free pages.
    until("the disk to be full", || {
        host.run(&program, &["20", "2ms", "die"])?.finish()?;
        (recovered, fatal) = (recovered + 20, fatal + 1);
        Ok((daemon.get("/readyz")?.0 == 503).then_some(()))
    })?;
    host.run(&program, &["5", "2ms", "die"])?.finish()?;
    (recovered, fatal) = (recovered + 5, fatal + 1);
    until("all to be counted", || Ok((sums(&daemon)? == (recovered, fatal)).then_some(())))?;
    let (_, metrics) = daemon.get("/metrics")?;
    ensure!(metrics.contains("\npanicwatch_ready 0\n"), "it agrees with /readyz");
    ensure!(
        metrics.contains(&format!("\npanicwatch_deaths_total{{binary=\"shop\"}} {fatal}\n")),
        "{metrics}"
    );
    let deaths = until("the lines", || {
        let deaths = run::incidents(&jsonl)?.into_iter().filter(|it| it.outcome == Outcome::Fatal);
        Ok(Some(deaths.collect::<Vec<_>>()).filter(|deaths| deaths.len() == fatal as usize))
    })?;
    let name = Command::new("uname").arg("-n").output()?.stdout;
    let name = String::from_utf8(name)?.trim().to_owned();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let mut expected = BTreeSet::new();
    for death in &deaths {
        let host = death.host.as_ref().context("a host")?;
        ensure!(host.name.as_ref() == Some(&name) && host.boot_id.as_ref() == Some(&boot_id), "{host:?}");
        expected.insert(format!("http://box/#/incidents/{} {name}", death.id));
    }
    until("the hook to be called for each death", || {
        let called = fs::read_to_string(&hooked).unwrap_or_default();
        Ok((called.lines().map(str::to_owned).collect::<BTreeSet<_>>() == expected).then_some(()))
    })?;
    let newest = &deaths.iter().map(|death| &death.id).max().context("a death")?;
    ensure!(daemon.json(&format!("/api/v1/incidents/{newest}"))?["id"] == newest.as_str(), "the API has it");
    run::signal(daemon.running.child.id(), libc::SIGTERM)?;
    let output = daemon.running.finish()?;
    ensure!(output.status == 1, "a stop that loses incidents fails: {}", output.status);
    let line =
        output.stderr.lines().find(|line| line.contains(newest.as_str()) && line.contains("could not be"));
    ensure!(line.is_some_and(|line| line.contains("it is in the JSON lines")), "{}", output.stderr);
    Ok(())
}

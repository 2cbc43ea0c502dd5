//! Many binaries and processes that panic at random, with the daemon killed midway: all counts must add up.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use panicwatch::incident::{Incident, Outcome};

use super::{
    collector::Collector,
    host::{Daemon, Entry, Host, Shop, until},
};
use crate::{need, run};

/// Returns the number of binaries, of concurrent processes, the longest pause between two panics of one
/// process, and the duration of the test.
fn size() -> (usize, usize, &'static str, Duration) {
    if need::full() {
        (40, 400, "8s", Duration::from_secs(600))
    } else {
        (6, 24, "1s", Duration::from_secs(12))
    }
}

/// Processes of many binaries come and go, the disk is full for a while, and the daemon and the collector are
/// killed midway. Outside the reported gap, metrics, groups, store, JSON lines and OTLP have exactly the
/// panics in the programs' books.
pub(super) fn adds_up(built: &Path) -> Result<()> {
    let (binaries, processes, pause, time) = size();
    let mut collector = Collector::start()?;
    let mut host = Host::holding()?;
    let disk = Disk::mount(&host.dir.path().join("state"))?;
    let jsonl = host.dir.path().join("incidents.jsonl");
    let otlp =
        collector.as_ref().map_or(String::new(), |it| format!("[otlp]\nendpoint = \"{}\"\n", it.url()));
    host.everything();
    host.configure(&format!(
        "{otlp}[jsonl]\npath = \"{}\"\ntimeline = false\nmax_bytes = \"0B\"\n",
        jsonl.display()
    ))?;
    let mut daemon = host.start()?;
    let programs: Result<Vec<_>> = (0..binaries).map(|n| host.program(&format!("shop{n}"), built)).collect();
    let programs = programs?;
    let mut street = Street { running: Vec::new(), books: Vec::new(), started: 0 };
    let start = Instant::now();
    let (mut killed, mut filled) = (false, false);
    while start.elapsed() < time || !street.running.is_empty() {
        street.look()?;
        while street.running.len() < processes && start.elapsed() < time {
            street.open(&host, &programs, pause)?;
        }
        if !filled && start.elapsed() > time / 4 {
            filled = true;
            disk.fill()?;
            until("the daemon to say that the disk is full", || {
                Ok((daemon.get("/readyz")?.0 == 503).then_some(()))
            })?;
            thread::sleep(time / 20);
            disk.free()?;
        }
        if !killed && start.elapsed() > time / 2 {
            killed = true;
            daemon.kill()?;
            if let Some(collector) = &mut collector {
                collector.restart()?;
            }
            daemon = host.start()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    judge(&street.books, &daemon, &jsonl, collector.as_ref())?;
    at_rest(&daemon)?;
    daemon.stop()
}

/// A small tmpfs for the store; dropping the value unmounts it.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path) -> Result<Disk> {
        fs::create_dir(at)?;
        // The incidents of ten minutes must fit.
        let size = if need::full() { "size=4g" } else { "size=600m" };
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(at).status()?;
        ensure!(status.success(), "a file system in memory cannot be mounted: {status}");
        Ok(Disk(at.to_owned()))
    }

    fn stuffing(&self) -> PathBuf {
        self.0.join("stuffing")
    }

    fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.stuffing())?;
        let block = vec![7; 1 << 20];
        while file.write_all(&block).is_ok() {}
        let small = [7; 512];
        while file.write_all(&small).is_ok() {}
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(fs::remove_file(self.stuffing())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy unmount: the daemon of a failed test may still use it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Running programs, and the books of those that have ended.
struct Street {
    running: Vec<Shop>,
    books: Vec<Entry>,
    started: usize,
}

impl Street {
    fn open(&mut self, host: &Host, programs: &[PathBuf], pause: &str) -> Result<()> {
        self.started += 1;
        let end = if self.started.is_multiple_of(3) { "die" } else { "exit" };
        self.running.push(host.run(&programs[self.started % programs.len()], &["8", pause, end])?);
        Ok(())
    }

    fn look(&mut self) -> Result<()> {
        let mut still = Vec::new();
        for mut shop in self.running.drain(..) {
            if shop.child.try_wait()?.is_some() {
                self.books.extend(shop.entries()?);
            } else {
                still.push(shop);
            }
        }
        self.running = still;
        Ok(())
    }
}

fn judge(books: &[Entry], daemon: &Daemon, jsonl: &Path, collector: Option<&Collector>) -> Result<()> {
    let gaps = daemon.json("/api/v1/gaps")?;
    let gap = &gaps["gaps"][0];
    let time = |key: &str| -> Result<i64> {
        let time: Timestamp = gap[key].as_str().context("a gap")?.parse()?;
        Ok(i64::try_from(time.as_nanosecond())?)
    };
    let (from, to) = (time("from")?, time("to")?);
    let outside = |unix_ns: i64| unix_ns < from || unix_ns > to;
    let wanted =
        |died: bool| books.iter().filter(|entry| entry.died == died && outside(entry.unix_ns)).count();
    let (recovered, died) = (wanted(false), wanted(true));
    ensure!(recovered > 0 && died > 0, "{recovered} recovered, {died} died");
    let found = |incidents: &[Incident]| -> Result<(usize, usize)> {
        let mut sums = (0, 0);
        for incident in incidents {
            let time: Timestamp = incident.time.parse()?;
            if outside(i64::try_from(time.as_nanosecond())?) {
                match incident.outcome {
                    Outcome::Recovered => sums.0 += 1,
                    Outcome::Fatal => sums.1 += 1,
                    other => anyhow::bail!("outside the gap {} is {other:?}", incident.id),
                }
            }
        }
        Ok(sums)
    };
    let stored = until("the store to have what the books have", || {
        let stored = daemon.incidents()?;
        Ok((found(&stored)? == (recovered, died)).then_some(stored))
    })
    .with_context(|| {
        format!(
            "{:?} stored, {:?} in the books",
            daemon.incidents().and_then(|all| found(&all)),
            (recovered, died)
        )
    })?;
    let metrics: u64 = daemon.metrics()?.values().sum();
    let groups: u64 = daemon.groups()?.values().sum();
    ensure!(
        (metrics, groups) == (stored.len() as u64, stored.len() as u64),
        "{metrics} and {groups} are counted, {} stored",
        stored.len()
    );
    let ids: BTreeSet<&str> = stored.iter().map(|incident| incident.id.as_str()).collect();
    until("the JSON lines to have all", || {
        Ok((fs::read_to_string(jsonl)?.lines().count() >= ids.len()).then_some(()))
    })?;
    let lines = run::incidents(jsonl)?;
    let written: BTreeSet<&str> = lines.iter().map(|incident| incident.id.as_str()).collect();
    ensure!(
        lines.len() == written.len() && written == ids,
        "{} lines of {} incidents, {} stored",
        lines.len(),
        written.len(),
        ids.len()
    );
    if let Some(collector) = collector {
        collector.has_each(&ids)?;
    }
    Ok(())
}

/// Prints what the daemon uses at rest and checks it against a limit far above the expected value.
fn at_rest(daemon: &Daemon) -> Result<()> {
    let own = daemon.json("/api/v1/status")?["own"].clone();
    let memory = own["memory_bytes"].as_u64().unwrap_or(u64::MAX);
    ensure!(memory < 200 << 20, "{memory} bytes");
    ensure!(own["lost"].as_array().is_some_and(Vec::is_empty), "lost: {}", own["lost"]);
    #[expect(clippy::print_stdout, reason = "a measurement, for whoever looks")]
    {
        println!("the daemon at rest: {} MiB, {} s of CPU so far", memory >> 20, own["cpu_seconds"]);
    }
    Ok(())
}

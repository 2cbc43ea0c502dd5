//! Many binaries and processes that panic at random, with the daemon killed in the middle: everything must add up.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::host::{Daemon, Host, Shop, until};
use crate::need;

/// Binaries, processes at once, and for how long.
fn size() -> (usize, usize, Duration) {
    if need::full() { (40, 400, Duration::from_secs(600)) } else { (6, 24, Duration::from_secs(8)) }
}

/// Processes of many binaries come and go; the sums of metrics and groups are those of their books.
pub(super) fn adds_up(built: &Path) -> Result<()> {
    let (binaries, processes, time) = size();
    let mut host = Host::holding()?;
    let mut daemon = host.start()?;
    let programs: Result<Vec<_>> = (0..binaries).map(|n| host.program(&format!("shop{n}"), built)).collect();
    let programs = programs?;
    let (mut recovered, mut died) = (0, 0);
    let mut running: Vec<Shop> = Vec::new();
    let start = Instant::now();
    let mut n = 0;
    while start.elapsed() < time || !running.is_empty() {
        let mut still = Vec::new();
        for mut shop in running {
            if shop.child.try_wait()?.is_some() {
                let (_, books) = shop.finish()?;
                (recovered, died) = (recovered + books.0, died + books.1);
            } else {
                still.push(shop);
            }
        }
        running = still;
        while running.len() < processes && start.elapsed() < time {
            n += 1;
            let end = if n % 3 == 0 { "die" } else { "exit" };
            running.push(host.run(&programs[n % programs.len()], &["8", "1s", end])?);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    ensure!(recovered > 0 && died > 0, "{recovered} recovered, {died} died");
    daemon.wait_for_sums(recovered, died)?;
    let stored = daemon.incidents()?.len() as u64;
    ensure!(stored == recovered + died, "{stored} stored, {recovered} recovered and {died} died");
    at_rest(&daemon)?;
    daemon.stop()
}

/// What it uses when nothing happens: told, and bounded far above what it should be.
fn at_rest(daemon: &Daemon) -> Result<()> {
    let own = until("the status", || Ok(Some(daemon.json("/api/v1/status")?["own"].clone())))?;
    let memory = own["memory_bytes"].as_u64().unwrap_or(u64::MAX);
    ensure!(memory < 200 << 20, "{memory} bytes");
    ensure!(own["lost"].as_array().is_some_and(Vec::is_empty), "lost: {}", own["lost"]);
    Ok(())
}

//! Diagnostics of the eBPF programs in the daemon's log.

use std::path::Path;

use anyhow::{Result, ensure};

use super::host::{Host, until};

/// At level debug a capture that reaches its time limit is logged with its process, at most once a second; at
/// level info it is only counted.
pub(super) fn diagnostics(built: &Path) -> Result<()> {
    for (level, logged) in [("debug", true), ("info", false)] {
        let recorder = "[recorder]\nmax_capture_time = \"1us\"\n";
        let mut host = Host::new(&format!("{recorder}[log]\nlevel = \"{level}\"\n"))?;
        let program = host.program("shop", built)?;
        // Started before the daemon, so that its probes are attached when the daemon reports ready.
        let dies = host.run(&program, &["200", "20ms", "die"])?;
        dies.wait_for("ready")?;
        let pid = dies.child.id();
        let mut daemon = host.start()?;
        ensure!(dies.finish()?.0 == 2, "it dies of its panic");
        let line = format!("eBPF: process {pid}, thread ");
        let count = |text: &str| text.lines().filter(|text| text.contains(&line)).count();
        if logged {
            let text =
                until("the diagnostic", || Ok(daemon.running.stderr().ok().filter(|text| count(text) > 0)))?;
            ensure!(text.contains("reached its time limit after"), "{text}");
        }
        daemon.stop()?;
        let text = daemon.running.stderr()?;
        ensure!(text.contains("times, a capture reached its time limit"), "{text}");
        ensure!(if logged { count(&text) < 50 } else { count(&text) == 0 }, "{} lines: {text}", count(&text));
    }
    Ok(())
}

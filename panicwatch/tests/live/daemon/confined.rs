//! Confinement of the running daemon and of its hooks.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::host::{Host, until};

/// Every thread of the daemon has the seccomp filter and only the listed capabilities, and so does a hook.
pub(super) fn confined(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let result = host.dir.path().join("hook");
    let script = format!(
        "cat > /dev/null; (grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status; unshare -m true; echo unshare $?) > {0}.new 2>&1; mv {0}.new {0}",
        result.display()
    );
    host.configure(&format!("[[hook]]\nname = \"look\"\ncommand = [\"sh\", \"-c\", {script:?}]\n"))?;
    let program = host.program("shop", built)?;
    // Started before the daemon, so that its probes are attached when the daemon reports ready.
    let dies = host.run(&program, &["400", "20ms", "die"])?;
    dies.wait_for("ready")?;
    let mut daemon = host.start()?;
    let pid = daemon.running.child.id();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let status = fs::read_to_string(task?.path().join("status"))?;
        is_confined(&status)?;
    }
    ensure!(dies.finish()?.0 == 2, "it dies of its panic");
    let hook = until("the hook", || Ok(fs::read_to_string(&result).ok()))?;
    is_confined(&hook)?;
    ensure!(hook.contains("unshare 1"), "a hook may unshare: {hook}");
    daemon.stop()
}

fn is_confined(status: &str) -> Result<()> {
    let value = |name: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim).with_context(|| format!("no {name} in {status}"))
    };
    ensure!(value("Seccomp")? == "2", "no filter: {status}");
    ensure!(value("NoNewPrivs")? == "1", "new privileges: {status}");
    let needed = panicwatch::host::privileges::NEEDED;
    let allowed = needed.iter().fold(0_u64, |mask, (capability, _)| mask | capability.bitmask());
    let bounding = u64::from_str_radix(value("CapBnd")?, 16)?;
    ensure!(bounding & !allowed == 0, "other capabilities: {status}");
    Ok(())
}

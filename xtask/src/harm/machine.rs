//! Tests that would harm the host, in a virtual machine: FUSE servers with the exec gate, a clock that jumps,
//! CPU hotplug.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::{Context, End, Scenario, programs};
use crate::{paths, shell, vm};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario { name: "virtual machine", run: machine }];

/// Kernel series of the virtual machine.
const KERNEL: &str = "6.12";
/// Number of results that xtask/harm/machine.sh prints.
const RESULTS: usize = 4;

fn machine(context: &Context) -> Result<End> {
    if context.quick {
        return Ok(End::Skipped("an emulated machine takes minutes: run the whole campaign".into()));
    }
    let fuse = programs::build(context, "xtask/harm/fuse", "fuse", &[])?;
    let book = programs::book(context)?;
    let script = paths::root().join("xtask/harm/machine.sh");
    // The script knows it by this name.
    let panicwatch = context.scratch.join("panicwatch");
    fs::copy(&context.panicwatch, &panicwatch)?;
    let files: [&Path; 4] = [&panicwatch, &fuse, &book, &script];
    let mut run: Command = vm::harm(KERNEL, &files, "sh ./machine.sh")?;
    let output =
        shell::capture(&mut run).context("an exec that is blocked ends with the machine's time-out")?;
    let results: Vec<&str> = output.lines().filter(|line| line.contains(": ")).collect();
    ensure!(!output.contains("failed") && results.len() == RESULTS, "{output}");
    Ok(End::Passed(format!("Linux {KERNEL}: {}", results.join("; "))))
}

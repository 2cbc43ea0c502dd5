//! `--dry-run`: the probe plan, printed.

use std::{fs::File, io::Write, os::fd::AsRawFd, path::Path};

use super::common::Exit;
use crate::{
    gobin::GoBinary,
    probe::plan::{ProbePlan, init_plan, plan},
};

/// Prints the plan for the opened binary; with `init` also what `init-trace` adds.
pub(super) fn print(file: &File, path: &Path, init: bool) -> Result<(), Exit> {
    let bin = GoBinary::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let plan = if init { plan(&bin).and(&init_plan(&bin)) } else { plan(&bin) };
    let text = format!("{}: {}\n{}", path.display(), bin.version(), render(&plan));
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn render(plan: &ProbePlan) -> String {
    let mut text = String::new();
    for site in &plan.sites {
        text += &format!(
            "  {:<22} {} at {}+{:#x} ({:#x}, file offset {:#x}): {}\n{:25}{}\n",
            site.name,
            site.price.as_str(),
            site.symbol,
            site.offset,
            site.address,
            site.file_offset,
            site.instruction,
            "",
            site.why
        );
    }
    for left in &plan.left_out {
        text += &format!(
            "  {:<22} not placed, {}: {}; lost: {}\n",
            left.name, left.symbol, left.reason, left.lost
        );
    }
    text
}

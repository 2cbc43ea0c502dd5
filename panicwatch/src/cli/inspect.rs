//! `panicwatch inspect`: describes a binary, and the probes that can be placed in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, ValueEnum};

use super::common::{Exit, pid, print, stdout_style, unreadable};
use crate::{
    gobin::{self, SharedBytes, dwarf},
    host::procfs,
    inspect::{self, Inspection, process},
    plan,
};

/// Describe a Go binary and the probes that can be placed in it
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    target: Target,
    /// Output format
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct Target {
    /// The binary to describe
    #[arg(value_name = "BINARY")]
    binary: Option<PathBuf>,
    /// Describe what this process runs, even if the file was deleted or replaced, and where it is mapped
    #[arg(long, value_name = "PID", value_parser = pid())]
    pid: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Describes the binary; status 0 also for a Go program that cannot be watched.
///
/// # Errors
/// Status 1 when it is not a Go program or cannot be read, 3 for another user's process.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let inspection = match (&args.target.binary, args.target.pid) {
        (_, Some(pid)) => of_process(pid)?,
        (Some(path), None) => of_file(path)?,
        (None, None) => return Err(anyhow!("give a binary or --pid").into()),
    };
    match args.format {
        Format::Text => print(&inspect::text(&inspection, &stdout_style()))?,
        Format::Json => print(&(inspect::json(&inspection)? + "\n"))?,
    }
    Ok(0)
}

fn of_file(path: &Path) -> anyhow::Result<Inspection> {
    let bytes = map(path, path)?;
    let name = path.to_string_lossy();
    inspect::inspect(bytes, &name, |_| None).with_context(|| name.clone().into_owned())
}

fn of_process(pid: u32) -> Result<Inspection, Exit> {
    let exe = procfs::executable(pid).map_err(|error| unreadable(pid, error))?;
    let bytes = map(&exe.link, &exe.shown)?;
    let name = exe.shown.to_string_lossy();
    let mut failed = None;
    let inspection = inspect::inspect(bytes, &name, |bin| match process::facts(pid, &exe, bin) {
        Ok(facts) => Some(facts),
        Err(error) => {
            failed = Some(error);
            None
        }
    });
    match failed {
        Some(error) => Err(unreadable(pid, error)),
        None => Ok(inspection.with_context(|| format!("process {pid}, {name}"))?),
    }
}

/// Maps the file at `path`; errors name it `shown`.
fn map(path: &Path, shown: &Path) -> anyhow::Result<SharedBytes> {
    gobin::map(path).map_err(|error| match error {
        gobin::Error::Io { source, .. } => gobin::Error::Io { path: shown.to_owned(), source }.into(),
        other => other.into(),
    })
}

/// Implements `--dry-run` of other commands: prints the probe plan they would use for the opened binary.
pub(super) fn dry_run(file: &std::fs::File, shown: &Path, init: bool) -> Result<(), Exit> {
    use std::os::fd::AsRawFd as _;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let bytes = map(&path, shown)?;
    let name = shown.to_string_lossy();
    let bin = dwarf::open_bytes(bytes).with_context(|| name.clone().into_owned())?;
    let plan = if init { plan::plan(&bin).and(&plan::init_plan(&bin)) } else { plan::plan(&bin) };
    let probes = inspect::probes(&plan);
    Ok(print(&inspect::plan(&name, &bin.version().raw, &probes, &stdout_style()))?)
}

//! `cargo xtask bench`: measures panicwatch's overhead and that of alternative tools.
//!
//! The benchmarks are in panicwatch/benches; each prints its figures as ratios within one run.

use std::process::Command;

use anyhow::Result;

use crate::{paths, setup, shell};

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this benchmark (symbols, recorder, panics, trace)
    name: Option<String>,
    /// What the benchmark itself is told, behind `--`
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the benchmarks.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::run()?;
    let mut cargo = Command::new(paths::cargo());
    cargo.current_dir(paths::root()).args(["bench", "--package", "panicwatch"]);
    match &args.name {
        Some(name) => cargo.args(["--bench", name]),
        None => cargo.arg("--benches"),
    };
    shell::run(cargo.arg("--").args(&args.arguments))
}

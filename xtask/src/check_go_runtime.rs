//! `cargo xtask check-go-runtime`: checks the table of offsets against the DWARF of every Go toolchain.
//!
//! The comparison is a test of panicwatch; this task runs it and shows the table that it prints.

use std::process::Command;

use anyhow::Result;

use crate::{paths, setup, shell};

/// Runs the test target `check_go_runtime`.
pub(crate) fn run() -> Result<()> {
    setup::run()?;
    let mut cargo = Command::new(paths::cargo());
    cargo.current_dir(paths::root()).args(["test", "--package", "panicwatch", "--test", "check_go_runtime"]);
    // One thread: the rows are printed in the order of the versions.
    shell::run(cargo.args(["--", "--nocapture", "--test-threads=1"]))
}

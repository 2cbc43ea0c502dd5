//! `cargo xtask service`: tests the systemd unit under a real systemd, in a virtual machine.

use anyhow::Result;

use crate::{build, paths, setup, shell, vm};

/// Options of `cargo xtask service`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The virtual machine's kernel: a series or an image, as vm-run takes it
    #[arg(long, default_value = "6.1")]
    kernel: String,
}

/// Runs the test.
pub(crate) fn run(args: &Args) -> Result<()> {
    shell::headline("Set-up");
    setup::run()?;
    shell::headline("Building panicwatch and a program that panics");
    let panicwatch = build::panicwatch()?;
    let program = build::go("xtask/vm/service", "service-prog")?;
    shell::headline("The unit under systemd");
    let deploy = paths::root().join("deploy");
    let files = [
        panicwatch,
        program,
        deploy.join("panicwatch.toml"),
        deploy.join("systemd/panicwatch.service"),
        paths::root().join("xtask/vm/service/check.sh"),
    ];
    shell::run(&mut vm::systemd(&args.kernel, &files, "bash /test/check.sh")?)
}

//! `cargo xtask demo`: watches a small Go server until it dies, and shows the report.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{build, host, setup, shell, vm};

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run in a virtual machine even where it could run here
    #[arg(long)]
    vm: bool,
    /// The virtual machine's kernel: a series or an image, as vm-run takes it
    #[arg(long, default_value = "6.12")]
    kernel: String,
}

/// Runs the demo.
pub(crate) fn run(args: &Args) -> Result<()> {
    shell::headline("Set-up");
    setup::run()?;

    shell::headline("Building panicwatch");
    let panicwatch = build::panicwatch()?;

    shell::headline("Building the server");
    let server = build::go("xtask/demo/server", "orders")?;

    let mut watch = match command(args, &panicwatch, &server)? {
        Some(command) => command,
        None => bail!("the demo needs root for BPF, and that was declined"),
    };
    shell::headline(&shell::show(&watch));
    let status = watch.status().context("cannot run panicwatch")?;
    shell::say(&format!("\nThe server's exit status came through panicwatch: {status}"));
    // A Go program that dies of a panic exits with status 2, and panicwatch exits with the same status.
    if status.code() != Some(2) {
        bail!("a Go program dead of a panic exits with status 2");
    }
    Ok(())
}

/// Returns the command that runs panicwatch on the server: directly, through sudo, or in a virtual machine.
/// `None`: the user declined sudo.
fn command(args: &Args, panicwatch: &Path, server: &Path) -> Result<Option<Command>> {
    let why_not_here = if args.vm { Some("asked for".to_owned()) } else { host::why_no_probes() };
    if let Some(why) = why_not_here {
        return in_vm(args, panicwatch, server, &why).map(Some);
    }
    let mut command = if host::is_root() {
        Command::new(panicwatch)
    } else if host::has_sudo() && shell::can_ask() {
        let question = format!(
            "Placing probes needs root. Run {} through sudo (and nothing else)?",
            panicwatch.display()
        );
        if !shell::agreed(&question) {
            return Ok(None);
        }
        let mut sudo = Command::new("sudo");
        sudo.arg(panicwatch);
        sudo
    } else {
        return in_vm(args, panicwatch, server, "not root, and nobody to ask for sudo").map(Some);
    };
    command.args(["run", "--"]).arg(server);
    Ok(Some(command))
}

fn in_vm(args: &Args, panicwatch: &Path, server: &Path, why: &str) -> Result<Command> {
    shell::say(&format!("{why}: running in a virtual machine (Linux {})", args.kernel));
    // The guest's console is a terminal even if ours is not.
    let plain = if shell::is_terminal() { "" } else { "NO_COLOR=1 " };
    let line = format!("{plain}'{}' run -- '{}'", panicwatch.display(), server.display());
    vm::program(&args.kernel, &[panicwatch, server], &line)
        .with_context(|| format!("the demo cannot run here ({why}), nor in a virtual machine"))
}

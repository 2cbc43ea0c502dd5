//! `cargo xtask test`: all checks and tests, in one command with one summary.
//!
//! Setup, format, clippy, house rules, every test, a minute of fuzzing, and the quick set of harm. cargo
//! never runs as root: the test programs are built first, and only the privileged one is run through sudo or
//! in a virtual machine.

mod binaries;
mod harm;
mod live;
mod output;
mod tally;

use std::process::Command;

use anyhow::{Result, bail};

use self::tally::Tally;
use crate::{fuzz, paths, setup, shell, tidy};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests whose name contains this
    filter: Option<String>,
    /// Run the live tests in a virtual machine even where they could run here
    #[arg(long)]
    vm: bool,
    /// Where to run the live tests in a virtual machine: a kernel series or an image, as vm-run takes it
    #[arg(long, default_value = "6.12")]
    kernel: String,
}

/// Runs all checks and tests; returns an error if any failed.
pub(crate) fn run(args: &Args) -> Result<()> {
    shell::headline("Set-up");
    setup::run()?;

    let mut tally = Tally::default();
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(paths::cargo());
        command.current_dir(paths::root()).args(arguments);
        shell::run(&mut command)
    };
    check(&mut tally, "cargo fmt --check", || cargo(&["fmt", "--all", "--check"]));
    check(&mut tally, "cargo clippy", || {
        cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
    });
    check(&mut tally, "panicwatch/fuzz: format and clippy", fuzz::check);
    check(&mut tally, "cargo xtask tidy", tidy::run);
    check(&mut tally, "cargo doc", || cargo(&["doc", "--no-deps", "--quiet"]));

    shell::headline("Building the tests");
    let binaries = match binaries::build() {
        Err(error) => {
            tally.fail("building the tests", &format!("{error:#}"));
            Vec::new()
        }
        Ok(binaries) => {
            for binary in binaries.iter().filter(|binary| !binary.is_live()) {
                binaries::run(binary, args.filter.as_deref(), &mut tally);
            }
            binaries::run_doc_tests(args.filter.as_deref(), &mut tally);
            live::run(&binaries, args, &mut tally);
            binaries
        }
    };
    fuzz_targets(args.filter.as_deref(), &mut tally);
    if !binaries.is_empty() {
        harm::run(&binaries, args.filter.as_deref(), &mut tally);
    }

    shell::headline("Summary");
    tally.print();
    if tally.failed() > 0 {
        bail!("{} failed", tally.failed());
    }
    Ok(())
}

/// Runs each fuzz target for its share of a minute, counted as one test named `fuzz NAME`.
fn fuzz_targets(filter: Option<&str>, tally: &mut Tally) {
    let named = |target: &String| filter.is_none_or(|filter| format!("fuzz {target}").contains(filter));
    let targets = match fuzz::targets() {
        Ok(all) => all.into_iter().filter(named).collect::<Vec<_>>(),
        Err(error) => return tally.fail("fuzz", &format!("{error:#}")),
    };
    if targets.is_empty() {
        return;
    }
    shell::headline("Fuzzing");
    if let Some(why) = fuzz::why_not() {
        targets.iter().for_each(|target| tally.skip(&format!("fuzz {target}"), &why));
        return;
    }
    let fuzzer = match fuzz::Fuzzer::build() {
        Ok(fuzzer) => fuzzer,
        Err(error) => return tally.fail("building the fuzz targets", &format!("{error:#}")),
    };
    let share = (fuzz::SECONDS / targets.len() as u64).max(1);
    for target in &targets {
        match fuzzer.fuzz(target, share) {
            Ok(()) => tally.pass(1),
            Err(error) => tally.fail(&format!("fuzz {target}"), &format!("{error:#}")),
        }
    }
}

/// Runs a check that is not a test program, counted as one test.
fn check(tally: &mut Tally, name: &str, run: impl FnOnce() -> Result<()>) {
    shell::headline(name);
    match run() {
        Ok(()) => tally.pass(1),
        Err(error) => {
            shell::complain(&format!("{error:#}"));
            tally.fail(name, &format!("{error:#}"));
        }
    }
}

//! Development tasks: `cargo xtask <task>`, one module each.
//!
//! The tasks depend on the repository and the machine, but not on panicwatch's own crates, so xtask builds
//! before them.

mod bench;
mod build;
mod check_go_runtime;
mod demo;
mod fuzz;
mod harm;
mod host;
mod paths;
mod service;
mod setup;
mod shell;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// panicwatch's development tasks
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building and testing need: a Rust for BPF, bpf-linker, Go toolchains
    Setup,
    /// Set up, check the format, clippy and tidy, run every test, print a summary
    Test(test::Args),
    /// Set up, build, and watch a small Go server die
    Demo(demo::Args),
    /// Run the unit under a real systemd, in a virtual machine
    Service(service::Args),
    /// Run the decoders on damaged input under libFuzzer
    Fuzz(fuzz::Args),
    /// Try to hurt watched programs and the host, and count what happens
    Harm(harm::Args),
    /// Check the house rules that no compiler knows
    Tidy,
    /// Measure what panicwatch costs, beside what one would use instead
    Bench(bench::Args),
    /// Compare the table of Go runtime offsets with every Go toolchain at hand
    CheckGoRuntime,
}

fn main() -> ExitCode {
    let result = match Args::parse().task {
        Task::Setup => setup::run(),
        Task::Test(args) => test::run(&args),
        Task::Demo(args) => demo::run(&args),
        Task::Service(args) => service::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
        Task::Harm(args) => harm::run(&args),
        Task::Tidy => tidy::run(),
        Task::Bench(args) => bench::run(&args),
        Task::CheckGoRuntime => check_go_runtime::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            shell::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

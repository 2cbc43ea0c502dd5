//! `cargo xtask harm`: tries to hurt watched programs and the host, and counts what happens.
//!
//! Each group is a table of scenarios. A scenario runs a real Go program with and without panicwatch under one
//! condition and compares what the program did, and panicwatch's incidents with the program's own count.
//! Random choices come from a seed that is printed; `--seed` repeats them.

mod conditions;
mod daemon;
mod figures;
mod input;
mod kills;
mod machine;
mod programs;
mod random;
mod reuse;
mod suites;
mod sums;
mod tools;

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::{build, host, setup, shell};
use figures::Figures;
use random::Random;

/// Options of `cargo xtask harm`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the five-minute set that CI runs
    #[arg(long)]
    quick: bool,
    /// Run only this group, or this scenario of it (GROUP::SCENARIO)
    #[arg(long)]
    only: Option<String>,
    /// Seed of the random choices
    #[arg(long)]
    seed: Option<u64>,
    /// The panicwatch to run; it is built optimised otherwise
    #[arg(long)]
    panicwatch: Option<PathBuf>,
}

/// What scenarios share.
pub(crate) struct Context {
    /// The command under test.
    panicwatch: PathBuf,
    quick: bool,
    seed: u64,
    only: Option<String>,
    /// Scratch files of this run.
    scratch: PathBuf,
}

impl Context {
    /// A generator for the scenario `name`: the same seed gives it the same numbers, whatever else runs.
    fn random(&self, name: &str) -> Random {
        Random::new(self.seed, name)
    }

    /// `quick` in the quick set, `whole` otherwise.
    fn size<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }

    fn wants(&self, group: &str, scenario: &str) -> bool {
        self.only.as_ref().is_none_or(|only| *only == group || *only == format!("{group}::{scenario}"))
    }
}

/// How a scenario ended: its figures in one line, or why it could not run here.
pub(crate) enum End {
    Passed(String),
    Skipped(String),
}

/// One scenario of a group.
pub(crate) struct Scenario {
    name: &'static str,
    run: fn(&Context) -> Result<End>,
}

/// Groups in the order they run: name and scenarios.
const GROUPS: &[(&str, &[Scenario])] = &[
    ("suites", suites::SCENARIOS),
    ("conditions", conditions::SCENARIOS),
    ("tools", tools::SCENARIOS),
    ("input", input::SCENARIOS),
    ("kills", kills::SCENARIOS),
    ("machine", machine::SCENARIOS),
];

/// Runs the campaign.
pub(crate) fn run(args: &Args) -> Result<()> {
    if !host::is_root() {
        bail!("panicwatch and the tools beside it load eBPF programs: run this as root");
    }
    let panicwatch = match &args.panicwatch {
        Some(path) => std::path::absolute(path)?,
        None => {
            setup::run()?;
            build::panicwatch()?
        }
    };
    let seed = args.seed.unwrap_or_else(random::fresh_seed);
    let scratch = std::env::temp_dir().join(format!("panicwatch-harm-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let context = Context { panicwatch, quick: args.quick, seed, only: args.only.clone(), scratch };
    shell::say(&format!("seed {seed}; repeat with --seed {seed}"));
    let figures = run_groups(&context);
    drop(std::fs::remove_dir_all(&context.scratch));
    if args.only.is_none() && !args.quick {
        figures.write(seed)?;
    }
    figures.verdict()
}

fn run_groups(context: &Context) -> Figures {
    let mut figures = Figures::default();
    for (group, scenarios) in GROUPS {
        let wanted = scenarios.iter().filter(|scenario| context.wants(group, scenario.name));
        for (at, scenario) in wanted.enumerate() {
            if at == 0 {
                shell::headline(group);
            }
            let end = (scenario.run)(context);
            figures.add(group, scenario.name, end);
        }
    }
    figures
}

//! `cargo xtask harm`: tries to harm watched programs and the host, and counts the results.
//!
//! Each group is a table of scenarios. A scenario runs a real Go program with and without panicwatch under
//! one condition. It compares what the program did, and compares panicwatch's incidents with the program's
//! own count. Random choices derive from a seed that is printed; `--seed` repeats them.

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
    /// Run the set of about five minutes that is part of the tests
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

/// Data shared by all scenarios.
pub(crate) struct Context {
    /// The command under test.
    panicwatch: PathBuf,
    quick: bool,
    seed: u64,
    /// Folder for the temporary files of this run, removed at its end.
    scratch: PathBuf,
}

impl Drop for Context {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.scratch));
    }
}

impl Context {
    fn create(panicwatch: PathBuf, quick: bool, seed: u64) -> Result<Context> {
        let scratch = std::env::temp_dir().join(format!("panicwatch-harm-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        Ok(Context { panicwatch, quick, seed, scratch })
    }

    /// Returns a generator for the scenario `name`: the same seed yields the same numbers, whatever other
    /// scenarios run.
    fn random(&self, name: &str) -> Random {
        Random::new(self.seed, name)
    }

    /// Returns `quick` in the quick set, `whole` otherwise.
    fn size<T>(&self, quick: T, whole: T) -> T {
        if self.quick { quick } else { whole }
    }
}

/// Result of a scenario: its figures in one line, or why it could not run here.
pub(crate) enum End {
    Passed(String),
    Skipped(String),
}

/// One scenario of a group.
pub(crate) struct Scenario {
    name: &'static str,
    run: fn(&Context) -> Result<End>,
}

/// Groups in execution order: name and scenarios.
const GROUPS: &[(&str, &[Scenario])] = &[
    ("suites", suites::SCENARIOS),
    ("conditions", conditions::SCENARIOS),
    ("tools", tools::SCENARIOS),
    ("input", input::SCENARIOS),
    ("kills", kills::SCENARIOS),
    ("machine", machine::SCENARIOS),
];

/// Runs the selected scenarios; fails if any of them failed.
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
    let context = Context::create(panicwatch, args.quick, seed)?;
    shell::say(&format!("seed {seed}; repeat with --seed {seed}"));
    let mut figures = Figures::default();
    let wanted = |group: &str, scenario: &str| match &args.only {
        Some(only) => only == group || *only == format!("{group}::{scenario}"),
        None => true,
    };
    run_groups(&context, wanted, |name, end| figures.add(name, end));
    drop(context);
    if !args.quick {
        figures.write(seed)?;
    }
    figures.verdict()
}

/// Reports whether the name of a scenario, `harm GROUP::SCENARIO`, contains `filter`.
pub(crate) fn has_quick(filter: Option<&str>) -> bool {
    GROUPS.iter().any(|(group, all)| all.iter().any(|scenario| is_named(filter, group, scenario.name)))
}

fn is_named(filter: Option<&str>, group: &str, scenario: &str) -> bool {
    filter.is_none_or(|filter| format!("harm {group}::{scenario}").contains(filter))
}

/// Runs the scenarios of the quick set whose name contains `filter`; passes the name and the result of each
/// to `each`.
pub(crate) fn quick(
    panicwatch: PathBuf,
    filter: Option<&str>,
    mut each: impl FnMut(&str, Result<End>),
) -> Result<()> {
    let seed = random::fresh_seed();
    let context = Context::create(panicwatch, true, seed)?;
    shell::say(&format!("seed {seed}; repeat with cargo xtask harm --quick --seed {seed}"));
    let wanted = |group: &str, scenario: &str| is_named(filter, group, scenario);
    run_groups(&context, wanted, |name, end| each(&format!("harm {name}"), end));
    Ok(())
}

fn run_groups(
    context: &Context,
    wanted: impl Fn(&str, &str) -> bool,
    mut each: impl FnMut(&str, Result<End>),
) {
    for (group, scenarios) in GROUPS {
        for scenario in scenarios.iter().filter(|scenario| wanted(group, scenario.name)) {
            each(&format!("{group}::{}", scenario.name), (scenario.run)(context));
        }
    }
}

//! Tables of tests on fixtures, each run for every Go release and, where it matters, every build flavour.

use std::path::PathBuf;

use anyhow::Result;
use libtest_mimic::Trial;
use panicwatch::go::release::Release;

use crate::{
    fixtures,
    gobuild::{DEFAULT, FLAVOURS, Flavour},
    ledger::{End, Verdict, cell},
    need,
    toolchain::{self, Toolchain},
};

/// A test of a built fixture.
pub(crate) type Test = fn(&Built) -> Result<()>;

/// Name, fixture, test, and whether every build flavour is tested.
pub(crate) type Row = (&'static str, &'static str, Test, bool);

/// A fixture built with one release and flavour.
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) flavour: Flavour,
    pub(crate) release: Release,
}

/// Returns the cells of `table`. Rows that ask for it are built in every flavour for the releases in `all`;
/// with PANICWATCH_TEST_FULL=1, every row is for every release.
pub(crate) fn trials(group: &'static str, table: &'static [Row], all: &[&str]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, toolchain) in toolchain::all() {
        for &(name, fixture, test, builds) in table {
            let every = need::full() || builds && all.contains(&version.as_str());
            for &flavour in if every { &FLAVOURS[..] } else { &[DEFAULT] } {
                let name = match flavour {
                    DEFAULT => name.to_owned(),
                    other => format!("{name} ({})", other.name),
                };
                let toolchain = toolchain.clone();
                trials.push(cell(group, &version, &name, move || {
                    judge(fixture, flavour, test, toolchain.clone())
                }));
            }
        }
    }
    trials
}

fn judge(fixture: &str, flavour: Flavour, test: Test, toolchain: Result<Toolchain, String>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    match fixtures::build(fixture, flavour, &toolchain)? {
        Ok((toolchain, path)) => test(&Built { path, flavour, release: toolchain.release })?,
        Err(reason) => return Ok(End::Skipped(reason)),
    }
    Ok(End::Passed)
}

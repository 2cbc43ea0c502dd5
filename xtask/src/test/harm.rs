//! The quick set of `cargo xtask harm`: each scenario counts as one test.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::{binaries::Binary, tally::Tally};
use crate::{
    harm::{self, End},
    host, shell,
};

/// Runs the scenarios if this is root on a kernel with uprobes: they load BPF programs, mount file systems
/// and limit memory.
pub(super) fn run(binaries: &[Binary], filter: Option<&str>, tally: &mut Tally) {
    if !harm::has_quick(filter) {
        return;
    }
    shell::headline("harm --quick");
    let why_not = host::why_no_probes().or_else(|| (!host::is_root()).then(|| "not root".to_owned()));
    if let Some(why) = why_not {
        return tally.skip("harm", &why);
    }
    let each = |name: &str, end: Result<End>| match end {
        Ok(End::Passed(figures)) => {
            shell::say(&format!("{name}: {figures}"));
            tally.pass(1);
        }
        Ok(End::Skipped(why)) => tally.skip(name, &why),
        Err(error) => {
            shell::complain(&format!("{name}: {error:#}"));
            tally.fail(name, &format!("{error:#}"));
        }
    };
    if let Err(error) = panicwatch(binaries).and_then(|command| harm::quick(command, filter, each)) {
        tally.fail("harm", &format!("{error:#}"));
    }
}

/// Returns the command that the live tests run.
fn panicwatch(binaries: &[Binary]) -> Result<PathBuf> {
    let live = binaries.iter().find(|binary| binary.is_live()).context("there is no test target `live`")?;
    let folder = live.executable.parent().and_then(|deps| deps.parent()).context("no target directory")?;
    Ok(folder.join("panicwatch"))
}

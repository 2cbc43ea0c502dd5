//! Perfetto's own descriptors of its trace format, which a test reads our traces with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::wheel;

pub(super) const VERSION: &str = "0.59.1";

fn place(cache: &Path) -> PathBuf {
    cache.join("tools")
}

/// Whether it is there.
pub(super) fn is_there(cache: &Path) -> bool {
    place(cache).join("perfetto/protos/perfetto/trace/perfetto_trace_pb2.py").is_file()
}

/// Fetches and unpacks it.
pub(super) fn install(cache: &Path) -> Result<()> {
    let Some(python) = wheel::python() else {
        bail!("the package perfetto is fetched with pip: install Python 3 with pip, then run setup again");
    };
    let scratch = place(cache).join(format!(".partial-perfetto-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let result =
        wheel::fetch(python, &format!("perfetto=={VERSION}"), "perfetto", &scratch).and_then(|unpacked| {
            let target = place(cache).join("perfetto");
            drop(fs::remove_dir_all(&target));
            fs::rename(unpacked.join("perfetto"), &target)
                .with_context(|| format!("cannot create {}", target.display()))
        });
    drop(fs::remove_dir_all(&scratch));
    result
}

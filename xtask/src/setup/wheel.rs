//! PyPI packages that are unpacked and not installed; pip checks a wheel's hash against the index.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// Returns a Python that has pip.
pub(super) fn python() -> Option<&'static str> {
    ["python3", "/usr/bin/python3"]
        .into_iter()
        .find(|python| shell::capture(Command::new(python).args(["-m", "pip", "--version"])).is_ok())
}

/// Downloads the wheel of `requirement` into `scratch` and unpacks its folder `folder` there; returns the
/// parent folder of the unpacked folder.
pub(super) fn fetch(python: &str, requirement: &str, folder: &str, scratch: &Path) -> Result<PathBuf> {
    shell::run(
        Command::new(python)
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"])
            .arg(scratch)
            .arg(requirement),
    )?;
    let wheel = fs::read_dir(scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    let unpacked = scratch.join("unpacked");
    shell::run(
        Command::new(python)
            .args(["-c", include_str!("unpack_wheel.py")])
            .arg(wheel)
            .arg(folder)
            .arg(&unpacked),
    )?;
    Ok(unpacked)
}

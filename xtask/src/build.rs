//! Builds what tasks run: the optimized command, and Go programs of this repository.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{paths, setup, shell};

/// Builds the optimized `panicwatch`; returns its path.
pub(crate) fn panicwatch() -> Result<PathBuf> {
    let mut cargo = Command::new(paths::cargo());
    cargo.current_dir(paths::root()).args([
        "build",
        "--release",
        "--package",
        "panicwatch",
        "--bin",
        "panicwatch",
    ]);
    shell::run(&mut cargo)?;
    Ok(target_dir()?.join("release/panicwatch"))
}

/// Builds the Go program in `folder`, a path relative to the repository's root, with the newest installed Go;
/// returns the path of the executable `name`.
pub(crate) fn go(folder: &str, name: &str) -> Result<PathBuf> {
    let cache = paths::cache()?;
    let version = setup::GO_VERSIONS.last().context("no Go version")?;
    let goroot = setup::go_root(&cache, version);
    let program = target_dir()?.join("demo").join(name);
    let mut go = Command::new(goroot.join("bin/go"));
    go.current_dir(paths::root().join(folder))
        // -trimpath: the report shows paths of the module, not of this machine.
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        // Offline, and independent of the user's Go settings.
        .env("GOROOT", &goroot)
        .env("GO111MODULE", "on")
        .env("GOPROXY", "off")
        .env("GOWORK", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .env("GOCACHE", cache.join("gocache"));
    shell::run(&mut go)?;
    Ok(program)
}

/// Returns cargo's target directory.
fn target_dir() -> Result<PathBuf> {
    let mut cargo = Command::new(paths::cargo());
    cargo.current_dir(paths::root()).args(["metadata", "--format-version=1", "--no-deps"]);
    let metadata: serde_json::Value = serde_json::from_str(&shell::capture(&mut cargo)?)?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}

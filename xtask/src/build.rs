//! Building what tasks run: the optimised command, and Go programs of our own.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{paths, setup, shell};

/// The optimised `panicwatch`.
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

/// The Go program in `folder`, a path from the repository's root, built by the newest Go there is; it is called `name`.
pub(crate) fn go(folder: &str, name: &str) -> Result<PathBuf> {
    let cache = paths::cache()?;
    let version = setup::GO_VERSIONS.last().context("no Go version")?;
    let goroot = setup::go_root(&cache, version);
    let program = target_dir()?.join("demo").join(name);
    let mut go = Command::new(goroot.join("bin/go"));
    go.current_dir(paths::root().join(folder))
        // -trimpath: paths in the report are the module's, not this machine's.
        .args(["build", "-trimpath", "-buildvcs=false", "-o"])
        .arg(&program)
        .arg(".")
        // Offline, and with nothing of the person's own Go settings.
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

/// Where cargo puts what it builds.
fn target_dir() -> Result<PathBuf> {
    let mut cargo = Command::new(paths::cargo());
    cargo.current_dir(paths::root()).args(["metadata", "--format-version=1", "--no-deps"]);
    let metadata: serde_json::Value = serde_json::from_str(&shell::capture(&mut cargo)?)?;
    let directory =
        metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(directory))
}

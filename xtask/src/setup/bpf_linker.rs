//! Installs bpf-linker, compiled against the LLVM of the compiler whose bitcode it reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{host, paths, shell};

/// Version 0.13.0 supports LLVM 22.
pub(super) const VERSION: &str = "0.13.0";

/// The LLVM of Debian's rustc. With any other LLVM, linking fails ("Invalid record") or silently corrupts
/// BTF.
const LLVM: &str = "/usr/lib/llvm-22";

/// Returns the installation root; the build script looks there first.
pub(super) fn root(cache: &Path) -> PathBuf {
    cache.join("tools")
}

/// Reports whether the right version is installed. On systems other than Debian 12, the one on PATH is
/// sufficient.
pub(super) fn is_there(cache: &Path) -> bool {
    let ours = root(cache).join("bin/bpf-linker");
    let version = shell::capture(Command::new(ours).arg("--version"));
    version.is_ok_and(|text| text.split_whitespace().any(|word| word == VERSION))
        || !host::is_debian_12() && paths::on_path("bpf-linker").is_some()
}

/// Compiles and installs bpf-linker.
pub(super) fn install(cache: &Path) -> Result<()> {
    let root = root(cache);
    std::fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let mut cargo = Command::new(paths::cargo());
    // Settings of the build that called us must not affect this one.
    for name in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "RUSTC_WRAPPER"]
    {
        cargo.env_remove(name);
    }
    cargo
        .current_dir(&root)
        .args(["install", "bpf-linker", "--locked", "--force", "--version", VERSION])
        .args(["--no-default-features", "--features", "llvm-22", "--root"])
        .arg(&root)
        .env("LLVM_PREFIX", LLVM)
        .env("LLVM_SYS_221_PREFIX", LLVM);
    shell::run(&mut cargo)
}

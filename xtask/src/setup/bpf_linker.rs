//! bpf-linker, compiled against the LLVM of the compiler whose bitcode it reads.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{host, paths, shell};

/// 0.13.0 knows LLVM 22.
pub(super) const VERSION: &str = "0.13.0";

/// With another LLVM than Debian's rustc has, linking fails ("Invalid record") or damages BTF unseen.
const LLVM: &str = "/usr/lib/llvm-22";

/// The root it is installed into; the build script looks there first.
pub(super) fn root(cache: &Path) -> PathBuf {
    cache.join("tools")
}

/// Whether the right version is there. On other systems than Debian 12 the one on PATH does.
pub(super) fn is_there(cache: &Path) -> bool {
    let ours = root(cache).join("bin/bpf-linker");
    let version = shell::capture(Command::new(ours).arg("--version"));
    version.is_ok_and(|text| text.split_whitespace().any(|word| word == VERSION))
        || !host::is_debian_12() && paths::on_path("bpf-linker").is_some()
}

/// Compiles and installs it.
pub(super) fn install(cache: &Path) -> Result<()> {
    let root = root(cache);
    std::fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let mut cargo = Command::new(paths::cargo());
    // The settings of the build that called us are not for this one.
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

//! Paths of the repository, and of the cache that `setup` fills and the build script reads.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Returns the workspace's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Returns the cache: `$PANICWATCH_HOME`, else `~/.cache/panicwatch`. It holds only downloaded tools, which
/// can be fetched again.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(home) = env::var_os("PANICWATCH_HOME").filter(|value| !value.is_empty()) {
        return std::path::absolute(PathBuf::from(home)).context("PANICWATCH_HOME");
    }
    let home = env::var_os("HOME").context("HOME is not set: set it, or PANICWATCH_HOME")?;
    Ok(PathBuf::from(home).join(".cache/panicwatch"))
}

/// Returns the cargo that runs this task.
pub(crate) fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Returns the program with this name on PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

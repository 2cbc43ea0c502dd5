//! Finds the Go releases installed on this machine.

use std::{env, path::PathBuf};

/// An installed Go release that the suite covers.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// Name in test names, such as `1.24`.
    pub(crate) name: String,
    /// Minor version, such as 24.
    pub(crate) minor: u32,
    /// GOROOT of the toolchain.
    pub(crate) root: PathBuf,
}

/// Minor versions that the suite covers. Go 1.20 is not one of them: it had no release line of its own to
/// keep.
const MINORS: [u32; 8] = [19, 21, 22, 23, 24, 25, 26, 27];

/// Returns every covered release: its toolchain, or a sentence that says why it is missing.
pub(crate) fn all() -> Vec<(String, Result<Toolchain, String>)> {
    MINORS.iter().map(|&minor| (format!("1.{minor}"), find(minor))).collect()
}

/// Returns the directory of toolchains and build caches.
pub(crate) fn home() -> PathBuf {
    env::var_os("PANICWATCH_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/panicwatch")
    })
}

fn find(minor: u32) -> Result<Toolchain, String> {
    let name = format!("1.{minor}");
    let root = kept(minor)
        .or_else(|| Some(PathBuf::from(format!("/usr/lib/go-{name}"))).filter(|r| r.join("bin/go").exists()))
        .ok_or_else(|| {
            format!("Go {name} is neither under {} nor in /usr/lib/go-{name}", home().join("go").display())
        })?;
    Ok(Toolchain { name, minor, root })
}

/// Returns the newest patch release under the home directory.
fn kept(minor: u32) -> Option<PathBuf> {
    let prefix = format!("1.{minor}.");
    let mut found: Vec<(u32, PathBuf)> = home()
        .join("go")
        .read_dir()
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let patch = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((patch, entry.path().join("go")))
        })
        .filter(|(_, root)| root.join("bin/go").exists())
        .collect();
    found.sort();
    found.pop().map(|(_, root)| root)
}

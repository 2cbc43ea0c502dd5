//! Finds the Go releases installed on this machine.

use std::{env, path::PathBuf};

use panicwatch::go::release::Release;

/// An installed Go release that the suite covers.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// Name in test names, such as `1.24`.
    pub(crate) name: String,
    /// Its minor release.
    pub(crate) release: Release,
    /// GOROOT of the toolchain.
    pub(crate) root: PathBuf,
}

/// Returns every supported release: its toolchain, or a sentence that says why it is missing.
pub(crate) fn all() -> Vec<(String, Result<Toolchain, String>)> {
    Release::SUPPORTED.map(|release| (format!("1.{}", release.minor()), find(release))).into()
}

/// Returns the directory of toolchains and build caches.
pub(crate) fn home() -> PathBuf {
    env::var_os("PANICWATCH_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache/panicwatch")
    })
}

fn find(release: Release) -> Result<Toolchain, String> {
    let name = format!("1.{}", release.minor());
    let root = kept(release)
        .or_else(|| Some(PathBuf::from(format!("/usr/lib/go-{name}"))).filter(|r| r.join("bin/go").exists()))
        .ok_or_else(|| {
            format!("Go {name} is neither under {} nor in /usr/lib/go-{name}", home().join("go").display())
        })?;
    Ok(Toolchain { name, release, root })
}

/// Returns the newest patch release under the home directory.
fn kept(release: Release) -> Option<PathBuf> {
    let prefix = format!("1.{}.", release.minor());
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

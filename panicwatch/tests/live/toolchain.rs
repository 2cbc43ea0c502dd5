//! Which Go releases are on this machine.

use std::{env, path::PathBuf};

/// A Go release the suite knows, and where to look for it.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// `1.24`: the name used in test names.
    pub(crate) name: String,
    /// 24.
    pub(crate) minor: u32,
    /// GOROOT.
    pub(crate) root: PathBuf,
}

/// Minor versions the suite covers; 1.20 had no release line of its own to keep.
const MINORS: [u32; 8] = [19, 21, 22, 23, 24, 25, 26, 27];

/// Every release covered: a toolchain, or the sentence why it is not here.
pub(crate) fn all() -> Vec<(String, Result<Toolchain, String>)> {
    MINORS.iter().map(|&minor| (format!("1.{minor}"), find(minor))).collect()
}

/// Where toolchains and build caches are kept.
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

/// The newest patch release kept under the home directory.
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

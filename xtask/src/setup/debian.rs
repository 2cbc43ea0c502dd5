//! A Go program that nobody here wrote, for the live tests: unpacked from its Debian package, not installed.
//!
//! An installed server would be started as a service, now and at every boot. nats-server is the smallest of the
//! servers that the tests know (3.6 MB), and needs nothing but libc; the others are tested where they are installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// The package.
pub(super) const PACKAGE: &str = "nats-server";
/// The program in it.
const PROGRAM: &str = "usr/sbin/nats-server";

/// Where it is unpacked.
pub(super) fn root(cache: &Path) -> PathBuf {
    cache.join("debian").join(PACKAGE)
}

/// Whether it is there, or installed.
pub(super) fn is_there(cache: &Path) -> bool {
    root(cache).join(PROGRAM).is_file() || Path::new("/").join(PROGRAM).is_file()
}

/// Fetches and unpacks it. It appears under its name only when it is whole.
pub(super) fn install(cache: &Path) -> Result<()> {
    let place = root(cache);
    let scratch = place.with_extension(format!("partial-{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let result = unpack_into(&scratch).and_then(|()| {
        fs::rename(scratch.join("unpacked"), &place)
            .with_context(|| format!("cannot create {}", place.display()))
    });
    drop(fs::remove_dir_all(&scratch));
    result
}

fn unpack_into(scratch: &Path) -> Result<()> {
    shell::run(Command::new("apt-get").args(["-q", "download", PACKAGE]).current_dir(scratch))?;
    let package = fs::read_dir(scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    shell::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(scratch.join("unpacked")))
}

//! Go programs that nobody here wrote, for the tests: unpacked from their Debian packages, not installed.
//!
//! An installed server would be started as a service, now and at every boot. nats-server is run by the live tests;
//! the others are large programs to read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// A package and the program in it.
pub(super) struct Package {
    pub(super) name: &'static str,
    program: &'static str,
    /// What it is for, and the size of the download.
    pub(super) why: &'static str,
}

const PACKAGES: [Package; 4] = [
    Package { name: "nats-server", program: "usr/sbin/nats-server", why: "a small server to watch, 4 MB" },
    Package { name: "prometheus", program: "usr/bin/prometheus", why: "a large program to read, 20 MB" },
    Package { name: "hugo", program: "usr/bin/hugo", why: "a large program to read, 12 MB" },
    Package { name: "docker.io", program: "usr/sbin/dockerd", why: "a very large program to read, 36 MB" },
];

/// Those that are neither unpacked nor installed.
pub(super) fn missing(cache: &Path) -> Vec<&'static Package> {
    let is_there = |package: &Package| {
        root(cache).join(package.name).join(package.program).is_file()
            || Path::new("/").join(package.program).is_file()
    };
    PACKAGES.iter().filter(|package| !is_there(package)).collect()
}

/// Where they are unpacked, each in a folder of its own.
pub(super) fn root(cache: &Path) -> PathBuf {
    cache.join("debian")
}

/// Fetches and unpacks one. It appears under its name only when it is whole.
pub(super) fn install(cache: &Path, package: &Package) -> Result<()> {
    let place = root(cache).join(package.name);
    let scratch = root(cache).join(format!("partial-{}-{}", package.name, std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let result = unpack_into(&scratch, package.name).and_then(|()| {
        fs::rename(scratch.join("unpacked"), &place)
            .with_context(|| format!("cannot create {}", place.display()))
    });
    drop(fs::remove_dir_all(&scratch));
    result
}

fn unpack_into(scratch: &Path, package: &str) -> Result<()> {
    shell::run(Command::new("apt-get").args(["-q", "download", package]).current_dir(scratch))?;
    let package = fs::read_dir(scratch)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get downloaded no package")?;
    shell::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(scratch.join("unpacked")))
}

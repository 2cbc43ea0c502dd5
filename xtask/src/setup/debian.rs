//! Third-party programs for tests and benchmarks, unpacked from their Debian packages and not installed.
//!
//! An installed server would be started as a service, immediately and at every boot. The live tests run
//! nats-server, a benchmark runs wrk; the others are large Go programs that tests parse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;

/// A package and the program in it.
pub(super) struct Package {
    pub(super) name: &'static str,
    program: &'static str,
    /// A library that the program needs and Debian does not install automatically, and the file in that
    /// library's package.
    library: Option<(&'static str, &'static str)>,
    /// Purpose of the program, and size of the download.
    pub(super) why: &'static str,
}

const PACKAGES: [Package; 6] = [
    package("nats-server", "usr/sbin/nats-server", "a small server to watch, 4 MB"),
    package("prometheus", "usr/bin/prometheus", "a large program to read, 20 MB"),
    Package {
        library: Some(("libsass1", "usr/lib/x86_64-linux-gnu/libsass.so.1")),
        ..package("hugo", "usr/bin/hugo", "a large program to read and to watch, 13 MB")
    },
    package("docker.io", "usr/sbin/dockerd", "a very large program to read, 36 MB"),
    Package {
        library: Some(("libluajit-5.1-2", "usr/lib/x86_64-linux-gnu/libluajit-5.1.so.2")),
        ..package("wrk", "usr/bin/wrk", "puts load on the benchmark's server, 0.5 MB")
    },
    package("delve", "usr/bin/dlv", "a debugger, to measure its trace beside ours, 5 MB"),
];

const fn package(name: &'static str, program: &'static str, why: &'static str) -> Package {
    Package { name, program, library: None, why }
}

/// Returns the packages that are neither unpacked nor installed.
pub(super) fn missing(cache: &Path) -> Vec<&'static Package> {
    let is_there = |package: &Package| {
        let folder = root(cache).join(package.name);
        let library = package.library.is_none_or(|(_, file)| folder.join(file).is_file());
        folder.join(package.program).is_file() && library || Path::new("/").join(package.program).is_file()
    };
    PACKAGES.iter().filter(|package| !is_there(package)).collect()
}

/// Returns the folder that has one subfolder for each unpacked package.
pub(super) fn root(cache: &Path) -> PathBuf {
    cache.join("debian")
}

/// Downloads and unpacks a package. Its folder appears only when it is complete.
pub(super) fn install(cache: &Path, package: &Package) -> Result<()> {
    let place = root(cache).join(package.name);
    let scratch = root(cache).join(format!("partial-{}-{}", package.name, std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
    let names = std::iter::once(package.name).chain(package.library.map(|(name, _)| name));
    let unpacked: Result<()> = names.into_iter().try_for_each(|name| unpack_into(&scratch, name));
    let result = unpacked.and_then(|()| {
        if place.exists() {
            fs::remove_dir_all(&place).with_context(|| format!("cannot replace {}", place.display()))?;
        }
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
    shell::run(Command::new("dpkg-deb").arg("-x").arg(&package).arg(scratch.join("unpacked")))?;
    // The next package is searched for in the same folder.
    fs::remove_file(&package).with_context(|| format!("cannot remove {}", package.display()))
}

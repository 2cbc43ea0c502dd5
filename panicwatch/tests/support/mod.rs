//! Builds the Go fixtures with every installed toolchain.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use panicwatch::go::release::{RELEASES, Release};

/// A Go installation.
#[derive(Debug, Clone)]
pub(crate) struct Toolchain {
    /// One of [`RELEASES`].
    pub(crate) release: &'static str,
    /// Path of the go command, in GOROOT/bin.
    pub(crate) go: PathBuf,
}

/// Prints that `what` is skipped because it exists in none of `places`.
pub(crate) fn skip(what: &str, places: &[PathBuf]) {
    #[expect(clippy::print_stdout, reason = "a skip is said aloud")]
    {
        println!("SKIPPED {what}: none of {places:?}");
    }
}

/// Returns the installed toolchains; prints each missing one as skipped.
pub(crate) fn toolchains() -> Vec<Toolchain> {
    RELEASES.into_iter().filter_map(Toolchain::find).collect()
}

/// Returns the directory into which set-up installs.
pub(crate) fn cache() -> PathBuf {
    std::env::var_os("PANICWATCH_HOME").filter(|home| !home.is_empty()).map_or_else(
        || {
            let home = std::env::var_os("HOME").map_or_else(std::env::temp_dir, PathBuf::from);
            home.join(".cache/panicwatch")
        },
        PathBuf::from,
    )
}

impl Toolchain {
    fn find(release: &'static str) -> Option<Self> {
        let root = std::env::var_os("PANICWATCH_GO_ROOT").map_or_else(|| cache().join("go"), PathBuf::from);
        let minor = release.rsplit_once('.').map_or(release, |(minor, _)| minor);
        let places =
            [root.join(release).join("go/bin/go"), PathBuf::from(format!("/usr/lib/go-{minor}/bin/go"))];
        let go = places.iter().find(|p| p.exists()).cloned();
        if go.is_none() {
            skip(&format!("go{release}"), &places);
        }
        Some(Self { release, go: go? })
    }

    /// Returns the minor release, which has the behaviors.
    pub(crate) fn version(&self) -> Release {
        let minor = self.release.split('.').nth(1).and_then(|minor| minor.parse().ok());
        Release::new(minor.expect("a release"))
    }

    /// Returns the go command, offline and with a build cache of its own.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.go);
        command
            .env("GO111MODULE", "off")
            .env("GOTOOLCHAIN", "local")
            .env("GOFLAGS", "")
            .env("GOCACHE", cache().join("gocache"))
            .env_remove("GOROOT");
        command
    }

    /// Builds the package in directory `source` to `out` with additional flags.
    pub(crate) fn build(&self, source: &Path, flags: &[&str], out: &Path) {
        self.build_with(&[], source, flags, out);
    }

    /// Like [`build`](Self::build), with additional environment variables.
    pub(crate) fn build_with(&self, env: &[(&str, &str)], source: &Path, flags: &[&str], out: &Path) {
        let output = self
            .command()
            .envs(env.iter().copied())
            .current_dir(source)
            .arg("build")
            .args(flags)
            .arg("-o")
            .arg(out)
            .arg(".")
            .output()
            .expect("the go command starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "go{} build {flags:?}: {errors}", self.release);
    }
}

/// Returns a fixture's directory.
pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/go").join(name)
}

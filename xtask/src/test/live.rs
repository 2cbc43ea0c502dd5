//! The live tests, in which panicwatch watches real Go programs. They need root and a kernel with uprobes.
//!
//! They run directly if this process is root, through sudo if the user agrees, else in a virtual machine. If
//! none of that is possible, the program runs unprivileged: the tests that need more are skipped and counted.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::binaries::{self, Binary};
use super::tally::Tally;
use crate::{host, paths, shell, vm};

/// Runs the live tests in the best available place.
pub(super) fn run(binaries: &[Binary], args: &super::Args, tally: &mut Tally) {
    let Some(live) = binaries.iter().find(|binary| binary.is_live()) else {
        tally.fail("live tests", "there is no test target `live`");
        return;
    };
    match place(live, args.vm) {
        Place::Here => binaries::run(live, args.filter.as_deref(), tally),
        Place::Sudo => through_sudo(live, args.filter.as_deref(), tally),
        Place::Vm(why) => {
            shell::say(&format!(
                "live tests: {why}: running them in a virtual machine (Linux {})",
                args.kernel
            ));
            let filter = args.filter.as_deref();
            let command = compile(live, filter)
                .and_then(|()| vm::live_tests(&live.executable, &live.directory, &args.kernel, filter));
            match command {
                Ok(command) => binaries::follow(&live.name, command, tally),
                Err(error) => {
                    without_probes(live, &format!("{why}, and no virtual machine: {error:#}"), filter, tally)
                }
            }
        }
        Place::Nowhere(why) => without_probes(live, &why, args.filter.as_deref(), tally),
    }
}

/// Where the live tests can run.
enum Place {
    Here,
    Sudo,
    /// In a virtual machine; the text is why they cannot run here.
    Vm(String),
    Nowhere(String),
}

fn place(live: &Binary, want_vm: bool) -> Place {
    if want_vm {
        return Place::Vm("asked for".to_owned());
    }
    if let Some(why) = host::why_no_probes() {
        return Place::Vm(why);
    }
    if host::is_root() {
        return Place::Here;
    }
    if shell::is_ci() {
        return Place::Nowhere("not root, and in CI nobody can be asked for sudo".to_owned());
    }
    let question = format!(
        "The live tests load BPF programs, which needs root. Run {} through sudo, and nothing else?",
        live.executable.display()
    );
    if host::has_sudo() && shell::agreed(&question) {
        return Place::Sudo;
    }
    Place::Vm("not root".to_owned())
}

fn through_sudo(live: &Binary, filter: Option<&str>, tally: &mut Tally) {
    // Compile unprivileged first: files that root compiles would belong to root in our folders.
    if let Err(error) = compile(live, filter) {
        return tally.fail(&live.name, &format!("{error:#}"));
    }
    let mut sudo = Command::new("sudo");
    sudo.current_dir(&live.directory).arg("env");
    if let Ok(cache) = paths::cache() {
        // root has another home directory.
        sudo.arg(format!("PANICWATCH_HOME={}", cache.display()));
    }
    sudo.arg(format!("CARGO_MANIFEST_DIR={}", live.directory.display())).arg(&live.executable).args(filter);
    binaries::follow(&live.name, sudo, tally);
}

/// Runs the live tests only as far as compiling the Go programs that they watch. With this variable, every
/// test fails where it would run something; these failures are expected.
fn compile(live: &Binary, filter: Option<&str>) -> Result<()> {
    shell::say("compiling the Go programs of the live tests");
    let mut build = Command::new(&live.executable);
    build.current_dir(&live.directory).env("CARGO_MANIFEST_DIR", &live.directory);
    build.env("PANICWATCH_LIVE_BUILD_ONLY", "1").args(filter);
    build.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    build.status().with_context(|| format!("cannot run {}", live.executable.display()))?;
    Ok(())
}

/// Runs the tests that need no probes. The program decides which these are, unless it runs as root: then it
/// assumes that probes can be attached, so every test is counted as skipped instead of being run.
fn without_probes(live: &Binary, why: &str, filter: Option<&str>, tally: &mut Tally) {
    shell::say(&format!("live tests: {why}: running those that place no probes"));
    if !host::is_root() {
        return binaries::run(live, filter, tally);
    }
    let mut list = Command::new(&live.executable);
    list.current_dir(&live.directory).args(["--list", "--format", "terse"]).args(filter);
    match shell::capture(&mut list) {
        Ok(names) => {
            for name in names.lines().filter_map(|line| line.strip_suffix(": test")) {
                tally.skip(&format!("{}: {name}", live.name), why);
            }
        }
        Err(error) => tally.fail(&live.name, &format!("{error:#}")),
    }
}

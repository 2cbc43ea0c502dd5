//! What this machine must have for a test to run; else the sentence a skip prints.

use std::{env, path::Path};

/// Why probes cannot be placed here; `None` when they can.
pub(crate) fn probes() -> Option<String> {
    if build_only() {
        return None;
    }
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    if user != 0 {
        return Some(format!("needs root to place probes, runs as user {user}"));
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("this kernel has no BTF (/sys/kernel/btf/vmlinux)".to_owned());
    }
    None
}

/// True when `program` is found on PATH.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// The whole matrix of builds instead of a selection.
pub(crate) fn full() -> bool {
    env::var("PANICWATCH_TEST_FULL").is_ok_and(|v| v == "1")
}

/// Only compile the Go programs: `cargo xtask test --vm` does so before it takes the suite into a virtual machine.
/// Every test that runs anything fails then, by intention.
pub(crate) fn build_only() -> bool {
    env::var("PANICWATCH_LIVE_BUILD_ONLY").is_ok_and(|v| v == "1")
}

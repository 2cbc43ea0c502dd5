//! Requirements of the tests on this machine; if one is not met, the sentence that the skip prints.

use std::{env, path::Path};

/// Returns why probes cannot be attached here, or `None` if they can.
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

/// Reports whether `program` is on PATH.
pub(crate) fn on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Reports whether to run the whole matrix of builds instead of a selection.
pub(crate) fn full() -> bool {
    env::var("PANICWATCH_TEST_FULL").is_ok_and(|v| v == "1")
}

/// Reports whether to only compile the Go programs: `cargo xtask test --vm` does so before it runs the suite
/// in a virtual machine. Every test that runs a program then fails, by intention.
pub(crate) fn build_only() -> bool {
    env::var("PANICWATCH_LIVE_BUILD_ONLY").is_ok_and(|v| v == "1")
}

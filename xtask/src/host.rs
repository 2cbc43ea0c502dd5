//! What this machine and this user permit: operating system, root, sudo, BPF and uprobes.
//!
//! Reads only files; `panicwatch doctor` checks in more detail.

use std::fs;
use std::path::Path;

use crate::paths;

/// Reports whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // Uid: real, effective, saved, file system.
    status_field("Uid").and_then(|ids| ids.split_whitespace().nth(1).map(|id| id == "0")).unwrap_or(false)
}

/// Reports whether sudo is installed.
pub(crate) fn has_sudo() -> bool {
    paths::on_path("sudo").is_some()
}

/// Reports whether this is Debian 12, the system on which `setup` can install everything.
pub(crate) fn is_debian_12() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let is = |name: &str, value: &str| {
        release.lines().any(|line| {
            line.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('='))
                .is_some_and(|it| it.trim_matches('"') == value)
        })
    };
    is("ID", "debian") && is("VERSION_ID", "12")
}

/// Returns why root cannot load BPF programs and attach uprobes on this machine, if so.
pub(crate) fn why_no_probes() -> Option<String> {
    const BPF: u32 = 39;
    const PERFMON: u32 = 38;
    const SYS_ADMIN: u32 = 21;
    // The capabilities that root has here: our own, or at most those that sudo can grant.
    let field = if is_root() { "CapEff" } else { "CapBnd" };
    let capabilities =
        status_field(field).and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| capabilities >> capability & 1 == 1;
    if !(has(SYS_ADMIN) || has(BPF) && has(PERFMON)) {
        return Some("root lacks CAP_BPF and CAP_PERFMON here (a container without privileges?)".to_owned());
    }
    if !Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists() {
        return Some("this kernel has no BPF (CONFIG_BPF_SYSCALL)".to_owned());
    }
    if !Path::new("/sys/bus/event_source/devices/uprobe").exists() {
        return Some("this kernel has no uprobes (CONFIG_UPROBE_EVENTS), or sysfs is not mounted".to_owned());
    }
    if fs::read_to_string("/sys/kernel/security/lockdown")
        .is_ok_and(|modes| modes.contains("[confidentiality]"))
    {
        return Some(
            "the kernel is locked down (confidentiality), BPF programs may not read memory".to_owned(),
        );
    }
    None
}

fn status_field(name: &str) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
}

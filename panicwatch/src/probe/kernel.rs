//! What this kernel can do and where its fields are: one question per function.

use std::fs;

use panicwatch_common::config::{Config, UNKNOWN};

use super::{btf::Btf, multi};

/// Facts found once at start.
#[derive(Debug, Clone, Copy)]
pub struct KernelFacts {
    /// uprobe_multi links (Linux 6.6).
    pub uprobe_multi: bool,
    /// Offsets for the eBPF programs.
    pub config: Config,
}

impl KernelFacts {
    /// Asks the running kernel.
    pub fn detect() -> KernelFacts {
        let forced_off = std::env::var_os("PANICWATCH_NO_UPROBE_MULTI").is_some();
        KernelFacts { uprobe_multi: !forced_off && multi::supported(), config: config() }
    }
}

/// Field offsets from the kernel's BTF; unknown ones only cost the facts that need them.
fn config() -> Config {
    let bytes = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let btf = Btf::parse(&bytes);
    let offset = |structure: &str, field: &str| {
        btf.as_ref().and_then(|btf| btf.member_offset(structure, field)).unwrap_or(UNKNOWN)
    };
    Config {
        task_mm: offset("task_struct", "mm"),
        task_exit_code: offset("task_struct", "exit_code"),
        mm_arg_start: offset("mm_struct", "arg_start"),
        mm_arg_end: offset("mm_struct", "arg_end"),
        mm_env_start: offset("mm_struct", "env_start"),
        mm_env_end: offset("mm_struct", "env_end"),
        exec_all: 0,
        task_pid: offset("task_struct", "pid"),
        task_tgid: offset("task_struct", "tgid"),
    }
}

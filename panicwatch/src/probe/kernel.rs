//! Detects features and struct layouts of the running kernel.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
};

use panicwatch_common::config::{Config, TaskLayout, UNKNOWN};

use super::{btf::Btf, multi};

/// Features and layouts of the running kernel, detected once at start.
#[derive(Debug, Clone, Copy)]
pub struct KernelFacts {
    /// Whether the kernel has uprobe_multi links (Linux 6.6).
    pub uprobe_multi: bool,
    /// Field offsets for the eBPF programs.
    pub config: Config,
    /// Field offsets of `task_struct`, for the programs at BTF tracepoints.
    pub task: TaskLayout,
    /// BTF type IDs of the tracepoints in [`BTF_TRACEPOINTS`]; `None` where the kernel's BTF does not
    /// describe them.
    pub tracepoints: [Option<u32>; BTF_TRACEPOINTS.len()],
}

/// Tracepoints that are attached as BTF tracepoints if the kernel has them.
pub const BTF_TRACEPOINTS: [&str; 3] = ["sched_switch", "sched_waking", "sched_migrate_task"];

/// Environment variable that makes the scheduler's programs use raw tracepoints, as on kernels without BTF
/// tracepoints.
const NO_BTF_TRACEPOINTS: &str = "PANICWATCH_NO_BTF_TRACEPOINTS";

impl KernelFacts {
    /// Detects the facts of the running kernel.
    pub fn detect() -> KernelFacts {
        let forced_off = std::env::var_os("PANICWATCH_NO_UPROBE_MULTI").is_some();
        let bytes = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
        let btf = Btf::parse(&bytes);
        let config = config(btf.as_ref());
        let id = |name: &str| btf.as_ref().and_then(|btf| btf.tracepoint_id(name));
        let raw_only = std::env::var_os(NO_BTF_TRACEPOINTS).is_some();
        KernelFacts {
            uprobe_multi: !forced_off && multi::supported(),
            config,
            task: TaskLayout {
                pid: config.task_pid,
                tgid: config.task_tgid,
                comm: config.task_comm,
                state: config.task_state,
                switch_has_state: config.switch_has_state,
            },
            tracepoints: BTF_TRACEPOINTS.map(|name| if raw_only { None } else { id(name) }),
        }
    }
}

/// Returns the address of the function that handles the scheduler tick; `None` if samples cannot be taken in
/// ticks. Takes some tens of milliseconds.
pub(super) fn tick() -> Option<u64> {
    if std::env::var_os("PANICWATCH_SAMPLING_CLOCK").is_some() || !ticks() {
        return None;
    }
    let symbols = BufReader::new(File::open("/proc/kallsyms").ok()?);
    // https://github.com/torvalds/linux/blob/v6.12/kernel/time/tick-sched.c tick_nohz_handler,
    // https://github.com/torvalds/linux/blob/v6.1/kernel/time/tick-sched.c tick_sched_timer.
    let mut of_tick = symbols.lines().map_while(Result::ok).filter_map(|line| {
        let mut words = line.split(' ');
        let (address, name) = (words.next()?, words.nth(1)?);
        matches!(name, "tick_nohz_handler" | "tick_sched_timer")
            .then(|| u64::from_str_radix(address, 16).ok())?
    });
    of_tick.next().filter(|address| *address != 0)
}

/// Reports whether every busy CPU has a tick that runs as an hrtimer, which the tracepoint
/// `hrtimer_expire_entry` reports. False without high-resolution timers and with tickless (nohz_full) CPUs.
/// <https://docs.kernel.org/timers/no_hz.html>
fn ticks() -> bool {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    // /proc/timer_list is hidden in many containers; then only the kernel command line is checked.
    let low = text("/proc/timer_list").lines().any(|line| {
        let (name, value) = line.split_once(':').unwrap_or_default();
        name.trim() == ".hres_active" && value.trim() == "0"
    });
    let off = text("/proc/cmdline").split_whitespace().any(|word| word == "highres=off");
    let tickless = text("/sys/devices/system/cpu/nohz_full").contains(|c: char| c.is_ascii_digit());
    !(low || off || tickless)
}

/// Reads field offsets from the kernel's BTF; an unknown offset only disables the data that needs it.
fn config(btf: Option<&Btf<'_>>) -> Config {
    let offset = |structure: &str, field: &str| {
        btf.and_then(|btf| btf.member_offset(structure, field)).unwrap_or(UNKNOWN)
    };
    Config {
        task_mm: offset("task_struct", "mm"),
        task_exit_code: offset("task_struct", "exit_code"),
        task_signal: offset("task_struct", "signal"),
        signal_live: offset("signal_struct", "live"),
        mm_arg_start: offset("mm_struct", "arg_start"),
        mm_arg_end: offset("mm_struct", "arg_end"),
        mm_env_start: offset("mm_struct", "env_start"),
        mm_env_end: offset("mm_struct", "env_end"),
        exec_all: 0,
        task_pid: offset("task_struct", "pid"),
        task_tgid: offset("task_struct", "tgid"),
        task_comm: offset("task_struct", "comm"),
        task_fsbase: match (offset("task_struct", "thread"), offset("thread_struct", "fsbase")) {
            (UNKNOWN, _) | (_, UNKNOWN) => UNKNOWN,
            (thread, fsbase) => thread.saturating_add(fsbase),
        },
        // https://github.com/torvalds/linux/commit/2f064a59a11ff9bc22e52e9678bc601404c7cb34 renamed it.
        task_state: match offset("task_struct", "__state") {
            UNKNOWN => offset("task_struct", "state"),
            known => known,
        },
        // https://github.com/torvalds/linux/commit/fa2c3254d7cfff5f7a916ab928a562d1165f17bb added the
        // argument.
        switch_has_state: u32::from(
            btf.and_then(|btf| btf.tracepoint_args("sched_switch")).is_some_and(|n| n >= 4),
        ),
        slot_mask: 0,
        sample_mask: 0,
        max_captures: 0,
        max_capture_ns: 0,
        hrtimer_function: offset("hrtimer", "function"),
        tick: [0; 2],
    }
}

//! Facts about the machine and its permissions, without any evaluation.

use std::{fs, io};

use super::bpf;
use crate::probe::links::{self, CleanedUp};

/// Result of trying a feature: it works, or the kernel's error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature(pub Result<(), String>);

impl Feature {
    fn tried(result: io::Result<()>) -> Self {
        Self(result.map_err(|e| errno_name(&e)))
    }

    /// Reports whether the feature works.
    pub fn works(&self) -> bool {
        self.0.is_ok()
    }
}

/// Everything that `doctor` evaluates. `None`: could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Architecture as the kernel names it: "x86_64", "aarch64".
    pub architecture: String,
    /// Release of the kernel, from uname.
    pub kernel: String,
    /// Effective user ID of panicwatch.
    pub euid: u32,
    /// Effective capabilities, as a bit set (capability.h).
    pub capabilities: Option<u64>,
    /// The bpf(2) system call.
    pub bpf: Feature,
    /// Loading BPF programs for uprobes.
    pub uprobe_program: Feature,
    /// Ring buffer maps.
    pub ring_buffer: Feature,
    /// bpf_get_attach_cookie.
    pub cookies: Feature,
    /// The uprobe_multi link.
    pub uprobe_multi: Feature,
    /// Type number of the uprobe PMU.
    pub uprobe_pmu: Option<u32>,
    /// Mount point of tracefs with the scheduler's events.
    pub tracefs: Option<String>,
    /// Whether /sys/kernel/btf/vmlinux can be read.
    pub btf: bool,
    /// BPF maps whose values user space can map.
    pub mapped_ring: Feature,
    /// BPF programs at raw tracepoints, for the scheduler's events.
    pub raw_tracepoint: Feature,
    /// A sampling clock for all threads on a CPU.
    pub sampling: Feature,
    /// fanotify with FAN_OPEN_EXEC_PERM.
    pub hold_exec: Feature,
    /// Lockdown mode: "none", "integrity" or "confidentiality".
    pub lockdown: Option<String>,
    /// kernel.unprivileged_bpf_disabled.
    pub unprivileged_bpf_disabled: Option<i32>,
    /// kernel.perf_event_paranoid.
    pub perf_event_paranoid: Option<i32>,
    /// Whether this process is in the initial PID namespace.
    pub initial_pid_namespace: Option<bool>,
    /// Whether /proc/kallsyms shows addresses.
    pub kernel_addresses: bool,
    /// Breakpoints that killed instances of panicwatch had left in programs, and which were removed; or why
    /// they could not be examined.
    pub leaked_probes: Result<CleanedUp, String>,
}

/// PROC_PID_INIT_INO of include/uapi/linux/nsfs.h (formerly include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

impl Facts {
    /// Examines this machine. Loads and unloads a few programs of two or three instructions; one of them is
    /// attached to the tracepoint of process exits for a moment, none of the others is attached.
    pub fn gather() -> Self {
        let (architecture, kernel) = uname();
        Self {
            architecture,
            kernel,
            // SAFETY: geteuid has no preconditions.
            euid: unsafe { libc::geteuid() },
            capabilities: fs::read_to_string("/proc/self/status").ok().as_deref().and_then(effective),
            bpf: Feature::tried(bpf::syscall()),
            uprobe_program: Feature::tried(bpf::uprobe_program()),
            ring_buffer: Feature::tried(bpf::ring_buffer()),
            cookies: Feature::tried(bpf::cookies()),
            uprobe_multi: Feature::tried(bpf::uprobe_multi()),
            uprobe_pmu: number("/sys/bus/event_source/devices/uprobe/type"),
            tracefs: ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
                .into_iter()
                .find(|d| fs::File::open(format!("{d}/events/sched/sched_switch/format")).is_ok())
                .map(str::to_owned),
            btf: fs::File::open("/sys/kernel/btf/vmlinux").is_ok(),
            mapped_ring: Feature::tried(bpf::mapped_ring()),
            raw_tracepoint: Feature::tried(bpf::raw_tracepoint()),
            sampling: Feature::tried(bpf::sampling()),
            hold_exec: Feature::tried(bpf::hold_exec()),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown").ok().as_deref().and_then(chosen),
            unprivileged_bpf_disabled: number("/proc/sys/kernel/unprivileged_bpf_disabled"),
            perf_event_paranoid: number("/proc/sys/kernel/perf_event_paranoid"),
            initial_pid_namespace: fs::read_link("/proc/self/ns/pid")
                .ok()
                .map(|link| link.as_os_str() == INITIAL_PID_NAMESPACE),
            kernel_addresses: kernel_addresses(),
            leaked_probes: Ok(CleanedUp::default()),
        }
    }

    /// Removes the breakpoints that killed instances of panicwatch have left in programs.
    pub fn clean_up(&mut self) {
        self.leaked_probes = links::clean_up().map_err(|error| error.to_string());
    }
}

fn uname() -> (String, String) {
    // SAFETY: utsname consists of byte arrays, for which zero is a valid value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: points to our utsname, which the kernel fills.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return (std::env::consts::ARCH.to_owned(), String::new());
    }
    let text = |field: &[libc::c_char]| {
        let bytes: Vec<u8> = field.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (text(&name.machine), text(&name.release))
}

fn number<T: std::str::FromStr>(path: &str) -> Option<T> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Parses CapEff of /proc/PID/status.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Returns the chosen value of a list: "integrity" of "none [integrity] confidentiality".
fn chosen(list: &str) -> Option<String> {
    let (_, rest) = list.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn kernel_addresses() -> bool {
    use io::BufRead as _;
    let Ok(file) = fs::File::open("/proc/kallsyms") else { return false };
    // The first symbols may have the address 0 (per-CPU ones): one nonzero address among many is enough.
    let lines = io::BufReader::new(file).lines().map_while(Result::ok).take(10_000);
    lines.filter_map(|l| l.split(' ').next().map(str::to_owned)).any(|a| a.bytes().any(|b| b != b'0'))
}

fn errno_name(error: &io::Error) -> String {
    let name = match error.raw_os_error() {
        Some(libc::EPERM) => "EPERM",
        Some(libc::EACCES) => "EACCES",
        Some(libc::EINVAL) => "EINVAL",
        Some(libc::ENOSYS) => "ENOSYS",
        Some(libc::E2BIG) => "E2BIG",
        Some(libc::EOPNOTSUPP) => "EOPNOTSUPP",
        _ => return error.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_texts() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001ffffffffff\n"), Some(0x1ff_ffff_ffff));
        assert_eq!(effective("CapEff:\tzz\n"), None);
        assert_eq!(chosen("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(chosen("none"), None);
    }
}

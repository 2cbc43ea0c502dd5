//! What the machine is and allows, as found: no judgement.

use std::{fs, io};

use super::bpf;
use crate::probe::links::{self, CleanedUp};

/// A feature that was tried: it works, or this is what the kernel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feature(pub Result<(), String>);

impl Feature {
    fn tried(result: io::Result<()>) -> Self {
        Self(result.map_err(|e| errno_name(&e)))
    }

    /// It works.
    pub fn works(&self) -> bool {
        self.0.is_ok()
    }
}

/// Everything `doctor` looks at. `None`: could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// As the kernel names it: "x86_64", "aarch64".
    pub architecture: String,
    /// uname release.
    pub kernel: String,
    /// Effective user id.
    pub euid: u32,
    /// Effective capabilities, as a bit set (capability.h).
    pub capabilities: Option<u64>,
    /// bpf(2) is allowed.
    pub bpf: Feature,
    /// BPF programs for uprobes load.
    pub uprobe_program: Feature,
    /// Ring buffer maps.
    pub ring_buffer: Feature,
    /// bpf_get_attach_cookie.
    pub cookies: Feature,
    /// The uprobe_multi link.
    pub uprobe_multi: Feature,
    /// Type number of the uprobe PMU.
    pub uprobe_pmu: Option<u32>,
    /// Where tracefs is mounted, with the scheduler's events.
    pub tracefs: Option<String>,
    /// /sys/kernel/btf/vmlinux can be read.
    pub btf: bool,
    /// BPF maps whose values are mapped.
    pub mapped_ring: Feature,
    /// BPF programs behind the scheduler's events.
    pub raw_tracepoint: Feature,
    /// A sampling clock for all that runs on a processor.
    pub sampling: Feature,
    /// fanotify with FAN_OPEN_EXEC_PERM.
    pub hold_exec: Feature,
    /// "none", "integrity" or "confidentiality".
    pub lockdown: Option<String>,
    /// kernel.unprivileged_bpf_disabled.
    pub unprivileged_bpf_disabled: Option<i32>,
    /// kernel.perf_event_paranoid.
    pub perf_event_paranoid: Option<i32>,
    /// This process lives in the initial pid namespace.
    pub initial_pid_namespace: Option<bool>,
    /// /proc/kallsyms shows addresses.
    pub kernel_addresses: bool,
    /// What instances of panicwatch that were killed had left in programs, after it was removed; or why it was not looked at.
    pub leaked_probes: Result<CleanedUp, String>,
}

/// PROC_PID_INIT_INO of include/uapi/linux/nsfs.h (before: include/linux/proc_ns.h).
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

impl Facts {
    /// Asks this machine. Loads and drops a few programs of two or three instructions; one of them stands behind the event of a
    /// process's end for a moment, no other is attached.
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

    /// Removes the probes that instances of panicwatch which were killed have left in programs.
    pub fn clean_up(&mut self) {
        self.leaked_probes = links::clean_up().map_err(|error| error.to_string());
    }
}

fn uname() -> (String, String) {
    // SAFETY: utsname is arrays of bytes, for which zero is a value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: points to a utsname of ours, which the kernel fills.
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

/// CapEff of /proc/PID/status.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// "none [integrity] confidentiality" is "integrity".
fn chosen(list: &str) -> Option<String> {
    let (_, rest) = list.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

fn kernel_addresses() -> bool {
    use io::BufRead as _;
    let Ok(file) = fs::File::open("/proc/kallsyms") else { return false };
    // The first symbols of a kernel may lie at 0 (per-CPU ones): any address among many will do.
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

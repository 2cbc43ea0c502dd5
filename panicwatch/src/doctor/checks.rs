//! Turns [`Facts`] into checks, each with its meaning. Does no I/O.

use serde::Serialize;

use super::facts::{Facts, Feature};

// include/uapi/linux/capability.h
const CAP_SYS_PTRACE: u32 = 19;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Remedy when a feature was refused for lack of permission.
const PERMISSION: &str = "run as root, or grant the capabilities above; in a container also allow the system call in \
                          the seccomp profile";

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Name of the feature, capability or setting.
    pub name: &'static str,
    /// Whether the check passed.
    pub ok: bool,
    /// What was found, and how if that is not obvious.
    pub found: String,
    /// What is lost if the check fails.
    pub consequence: &'static str,
    /// What to do if the check fails.
    pub remedy: &'static str,
    /// Whether nothing works if the check fails.
    pub required: bool,
}

/// What panicwatch can do on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Able {
    /// Start a program with every probe attached before its first instruction.
    pub run: bool,
    /// Attach to running processes of the same user.
    pub attach: bool,
    /// Attach to running processes of other users.
    pub attach_others: bool,
    /// Discover programs, and hold the exec of each until its probes are attached.
    pub hold_new_programs: bool,
    /// Record scheduler and kernel events before a panic.
    pub kernel_timeline: bool,
    /// Attach and detach thousands of probes at once.
    pub many_probes: bool,
    /// Resolve kernel addresses with `symbolize --kernel`.
    pub kernel_symbols: bool,
}

/// All checks, and what panicwatch can do as a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    /// The checks, in the order in which to fix failures.
    pub checks: Vec<Check>,
    /// What panicwatch can do on this machine.
    pub able: Able,
}

/// Why no program can be watched on this machine: one sentence with the remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unable(String);

impl Diagnosis {
    /// Returns an error for the first required check that failed, if any.
    pub fn requirements(&self) -> Result<(), Unable> {
        match self.checks.iter().find(|c| c.required && !c.ok) {
            None => Ok(()),
            Some(c) => Err(Unable(format!(
                "programs cannot be watched here, {}: {}; {} (see panicwatch doctor)",
                c.name, c.found, c.remedy
            ))),
        }
    }
}

/// Evaluates the facts.
pub fn diagnose(facts: &Facts) -> Diagnosis {
    let mut checks = permissions(facts);
    checks.extend(kernel(facts));
    checks.extend(surroundings(facts));
    let works = !checks.iter().any(|c| c.required && !c.ok);
    let can = |capability| has(facts, capability);
    let able = Able {
        run: works,
        attach: works,
        attach_others: works && can(CAP_SYS_PTRACE),
        hold_new_programs: works && facts.hold_exec.works(),
        kernel_timeline: works
            && (facts.tracefs.is_some() || facts.btf)
            && facts.mapped_ring.works()
            && !confidential(facts),
        many_probes: works && facts.uprobe_multi.works(),
        kernel_symbols: facts.kernel_addresses,
    };
    Diagnosis { checks, able }
}

/// Reports whether the process has a capability. CAP_SYS_ADMIN implies CAP_BPF and CAP_PERFMON, which it
/// covered alone before Linux 5.8.
fn has(facts: &Facts, capability: u32) -> bool {
    let bit = |c: u32| facts.capabilities.is_some_and(|set| set >> c & 1 == 1);
    bit(capability) || bit(CAP_SYS_ADMIN) && matches!(capability, CAP_BPF | CAP_PERFMON)
}

fn confidential(facts: &Facts) -> bool {
    facts.lockdown.as_deref() == Some("confidentiality")
}

fn permissions(facts: &Facts) -> Vec<Check> {
    let capability = |name, number, required, consequence, remedy| Check {
        name,
        ok: has(facts, number),
        found: match facts.capabilities {
            Some(_) if has(facts, number) => "effective".to_owned(),
            Some(_) => format!("not effective for user {}", facts.euid),
            None => "unknown: /proc/self/status cannot be read".to_owned(),
        },
        consequence,
        remedy,
        required,
    };
    vec![
        Check {
            name: "architecture",
            // Go programs of other architectures are recognized and rejected.
            ok: facts.architecture == "x86_64",
            found: facts.architecture.clone(),
            consequence: "no program can be watched",
            remedy: "use an x86_64 machine",
            required: true,
        },
        capability(
            "CAP_BPF",
            CAP_BPF,
            true,
            "no BPF program can be loaded",
            "run as root, or grant CAP_BPF (in Kubernetes: securityContext.capabilities.add)",
        ),
        capability(
            "CAP_PERFMON",
            CAP_PERFMON,
            true,
            "no probe can be placed",
            "run as root, or grant CAP_PERFMON (in Kubernetes: securityContext.capabilities.add)",
        ),
        capability(
            "CAP_SYS_PTRACE",
            CAP_SYS_PTRACE,
            false,
            "other users' processes cannot be inspected: attach works only for your own processes",
            "run as root, or grant CAP_SYS_PTRACE",
        ),
        capability(
            "CAP_SYS_ADMIN",
            CAP_SYS_ADMIN,
            false,
            "new programs cannot be held before their first instruction (fanotify): run covers the program it starts, \
             but programs started by that one only from some milliseconds after their exec",
            "run as root, or grant CAP_SYS_ADMIN",
        ),
    ]
}

fn feature(
    name: &'static str,
    feature: &Feature,
    required: bool,
    consequence: &'static str,
    remedy: &'static str,
) -> Check {
    let found = match &feature.0 {
        Ok(()) => "works (tried)".to_owned(),
        Err(e) => format!("failed with {e} (tried)"),
    };
    // Without permission to try, it is unknown whether the kernel supports the feature.
    let denied = matches!(feature.0.as_ref().map_err(String::as_str), Err("EPERM" | "EACCES"));
    let remedy = if denied { PERMISSION } else { remedy };
    Check { name, ok: feature.works(), found, consequence, remedy, required }
}

fn kernel(facts: &Facts) -> Vec<Check> {
    let pmu = facts.uprobe_pmu;
    vec![
        Check {
            name: "kernel",
            ok: at_least(&facts.kernel, (5, 15)) != Some(false),
            found: facts.kernel.clone(),
            consequence: "BPF cookies and ring buffers are missing before Linux 5.15",
            remedy: "use Linux 5.15 or later, preferably 6.6 or later",
            // Not required: only the features count, which are tried below.
            required: false,
        },
        feature(
            "bpf system call",
            &facts.bpf,
            true,
            "nothing can be watched",
            "use a kernel with CONFIG_BPF_SYSCALL",
        ),
        feature(
            "uprobe programs",
            &facts.uprobe_program,
            true,
            "no probe can be placed",
            "use a kernel with CONFIG_BPF_EVENTS and CONFIG_UPROBE_EVENTS",
        ),
        feature(
            "ring buffer",
            &facts.ring_buffer,
            true,
            "events cannot be received",
            "use Linux 5.8 or later",
        ),
        feature(
            "BPF cookies",
            &facts.cookies,
            true,
            "probes cannot be told apart",
            "use Linux 5.15 or later",
        ),
        Check {
            name: "uprobes",
            ok: facts.uprobe_multi.works() || pmu.is_some(),
            found: match (facts.uprobe_multi.works(), pmu) {
                (true, _) => "available through the uprobe_multi link".to_owned(),
                (false, Some(n)) => format!("available through perf events (PMU type {n})"),
                (false, None) => "not available: no uprobe_multi link, no uprobe PMU".to_owned(),
            },
            consequence: "no probe can be placed",
            remedy: "use a kernel with CONFIG_UPROBE_EVENTS, and mount /sys",
            required: true,
        },
        feature(
            "uprobe_multi link",
            &facts.uprobe_multi,
            false,
            "each probe is a perf event: placing is slower, and removing 500 takes a minute",
            "use Linux 6.6 or later",
        ),
        Check {
            name: "uprobe PMU",
            ok: pmu.is_some(),
            found: match pmu {
                Some(n) => format!("type {n} (/sys/bus/event_source/devices/uprobe/type)"),
                None => "no /sys/bus/event_source/devices/uprobe/type".to_owned(),
            },
            consequence: "probes need the uprobe_multi link",
            remedy: "use a kernel with CONFIG_UPROBE_EVENTS, and mount /sys",
            required: false,
        },
        feature(
            "mapped BPF maps",
            &facts.mapped_ring,
            false,
            "no timeline: the flight recorder has no rings",
            PERMISSION,
        ),
        feature(
            "raw tracepoints",
            &facts.raw_tracepoint,
            true,
            "starts and exits of processes are not reported: no program can be watched",
            PERMISSION,
        ),
        feature(
            "sampling clock",
            &facts.sampling,
            false,
            "the timeline has no CPU samples on CPUs without a tick (nohz_full, highres=off)",
            "run as root, or grant CAP_PERFMON; in a container also allow perf_event_open in the seccomp profile",
        ),
        feature(
            "fanotify exec events",
            &facts.hold_exec,
            false,
            "run covers the program it starts, but Go programs started by that one only from some milliseconds after \
             their exec",
            "use a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS",
        ),
    ]
}

fn surroundings(facts: &Facts) -> Vec<Check> {
    let setting = |value: Option<i32>| value.map_or("missing".to_owned(), |v| v.to_string());
    let plain = |name, ok, found, consequence, remedy| Check {
        name,
        ok,
        found,
        consequence,
        remedy,
        required: false,
    };
    vec![
        plain(
            "tracefs",
            facts.tracefs.is_some(),
            facts
                .tracefs
                .clone()
                .unwrap_or_else(|| "no sched_switch event under /sys/kernel/tracing".to_owned()),
            "the timeline has no scheduler and kernel events if BTF is missing too",
            "mount -t tracefs tracefs /sys/kernel/tracing",
        ),
        plain(
            "BTF",
            facts.btf,
            if facts.btf { "/sys/kernel/btf/vmlinux" } else { "no /sys/kernel/btf/vmlinux" }.to_owned(),
            "kernel structures are read by tracefs formats only",
            "use a kernel with CONFIG_DEBUG_INFO_BTF",
        ),
        Check {
            name: "pid namespace",
            ok: facts.initial_pid_namespace != Some(false),
            found: match facts.initial_pid_namespace {
                Some(true) => "the initial one".to_owned(),
                Some(false) => "not the initial one".to_owned(),
                None => "unknown: /proc/self/ns/pid cannot be read".to_owned(),
            },
            consequence: "kernel events carry the host's process IDs, which do not exist in this namespace",
            remedy: "in a container share the host's pid namespace (docker --pid=host, Kubernetes hostPID: true)",
            required: true,
        },
        plain(
            "leaked probes",
            facts.leaked_probes.as_ref().is_ok_and(|cleaned_up| !cleaned_up.some_are_left),
            match &facts.leaked_probes {
                Ok(cleaned_up) if cleaned_up.notes.is_empty() => "none".to_owned(),
                Ok(cleaned_up) => cleaned_up.notes.join("; "),
                Err(error) => format!("unknown: {error}"),
            },
            "breakpoints of a panicwatch that was killed slow programs down, and break them when their file is overwritten",
            "as root, run panicwatch doctor again; restart the programs that it names",
        ),
        plain(
            "lockdown",
            !confidential(facts),
            facts
                .lockdown
                .clone()
                .unwrap_or_else(|| "none, or not shown (/sys/kernel/security/lockdown)".to_owned()),
            "kernel tracing is disabled: no scheduler and kernel events",
            "boot with lockdown=integrity or less",
        ),
        plain(
            "unprivileged_bpf_disabled",
            facts.unprivileged_bpf_disabled.is_none_or(|v| v == 0) || has(facts, CAP_BPF),
            setting(facts.unprivileged_bpf_disabled),
            "the bpf system call needs CAP_BPF",
            "run as root, or grant CAP_BPF",
        ),
        plain(
            "perf_event_paranoid",
            facts.perf_event_paranoid.is_some_and(|v| v <= 2) || has(facts, CAP_PERFMON),
            setting(facts.perf_event_paranoid),
            "perf events need CAP_PERFMON: no CPU samples, no perf-event uprobes",
            "run as root, or grant CAP_PERFMON",
        ),
        plain(
            "kernel symbols",
            facts.kernel_addresses,
            if facts.kernel_addresses {
                "/proc/kallsyms shows addresses"
            } else {
                "/proc/kallsyms hides addresses"
            }
            .to_owned(),
            "symbolize --kernel and kernel stacks show addresses only",
            "run as root, or with CAP_SYSLOG and kernel.kptr_restrict at most 1",
        ),
    ]
}

/// Reports whether a release such as "6.18.44-fc" is at least `want`, such as (5, 15); `None` when it is not
/// a version number.
fn at_least(release: &str, want: (u32, u32)) -> Option<bool> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next()?.parse::<u32>().ok();
    Some((next()?, next()?) >= want)
}

#[cfg(test)]
pub(super) mod tests;

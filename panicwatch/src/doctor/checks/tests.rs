//! Tests of each check with made-up facts: finding, consequence and remedy. Does not depend on the machine.

use super::*;
use crate::probe::links::CleanedUp;

pub(in crate::doctor) fn good() -> Facts {
    let works = || Feature(Ok(()));
    Facts {
        architecture: "x86_64".into(),
        kernel: "6.8.0-45-generic".into(),
        euid: 0,
        capabilities: Some(0x1ff_ffff_ffff),
        bpf: works(),
        uprobe_program: works(),
        ring_buffer: works(),
        cookies: works(),
        uprobe_multi: works(),
        uprobe_pmu: Some(8),
        tracefs: Some("/sys/kernel/tracing".into()),
        btf: true,
        mapped_ring: works(),
        raw_tracepoint: works(),
        sampling: works(),
        hold_exec: works(),
        lockdown: Some("none".into()),
        unprivileged_bpf_disabled: Some(2),
        perf_event_paranoid: Some(4),
        initial_pid_namespace: Some(true),
        kernel_addresses: true,
        leaked_probes: Ok(CleanedUp::default()),
    }
}

pub(in crate::doctor) fn unprivileged() -> Facts {
    let refused = || Feature(Err("EPERM".into()));
    Facts {
        euid: 1000,
        capabilities: Some(0),
        bpf: refused(),
        uprobe_program: refused(),
        ring_buffer: refused(),
        cookies: refused(),
        uprobe_multi: refused(),
        mapped_ring: refused(),
        raw_tracepoint: refused(),
        sampling: refused(),
        hold_exec: refused(),
        kernel_addresses: false,
        leaked_probes: Ok(CleanedUp::default()),
        ..good()
    }
}

#[test]
fn a_good_machine_can_all() {
    let d = diagnose(&good());
    assert!(d.checks.iter().all(|c| c.ok), "{d:#?}");
    assert!(d.able.run && d.able.attach && d.able.hold_new_programs && d.able.kernel_timeline);
    assert_eq!(d.requirements(), Ok(()));
}

#[test]
fn an_ordinary_user_is_told_in_one_sentence() {
    let d = diagnose(&unprivileged());
    assert!(!d.able.run && !d.able.attach);
    assert_eq!(
        d.requirements().map_err(|e| e.to_string()),
        Err("programs cannot be watched here, CAP_BPF: not effective for user 1000; run as root, or grant \
             CAP_BPF (in Kubernetes: securityContext.capabilities.add) (see panicwatch doctor)"
            .to_owned())
    );
}

#[test]
fn without_what_the_recorder_needs_there_is_no_timeline() {
    let refused = || Feature(Err("EPERM".into()));
    let d = diagnose(&Facts { mapped_ring: refused(), ..good() });
    assert!(d.able.run && !d.able.kernel_timeline);
    assert!(d.checks.iter().any(|c| !c.ok && c.consequence.contains("timeline")));
    let d = diagnose(&Facts { raw_tracepoint: refused(), ..good() });
    assert!(!d.able.run && !d.able.kernel_timeline && d.requirements().is_err());
    let d = diagnose(&Facts { sampling: refused(), ..good() });
    assert!(d.able.kernel_timeline && d.checks.iter().filter(|c| !c.ok).count() == 1);
}

#[test]
fn old_kernels_lose_only_what_they_lack() {
    let facts = Facts { kernel: "5.15.0".into(), uprobe_multi: Feature(Err("EINVAL".into())), ..good() };
    let d = diagnose(&facts);
    let failed: Vec<_> = d.checks.iter().filter(|c| !c.ok).map(|c| c.name).collect();
    assert_eq!(failed, ["uprobe_multi link"]);
    assert!(d.able.run && !d.able.many_probes);
    let none = diagnose(&Facts { uprobe_pmu: None, ..facts });
    assert!(none.requirements().is_err_and(|e| e.to_string().contains("uprobes: not available")));
}

#[test]
fn another_architecture_is_refused_and_not_recommended() {
    for architecture in ["aarch64", "riscv64"] {
        let d = diagnose(&Facts { architecture: architecture.into(), ..good() });
        assert!(!d.able.run && !d.able.attach, "{architecture}");
        let said = d.requirements().expect_err("refused").to_string();
        assert!(said.contains(&format!("architecture: {architecture}; use an x86_64 machine")), "{said}");
    }
}

#[test]
fn sys_admin_stands_for_the_newer_ones() {
    let facts = Facts { capabilities: Some(1 << CAP_SYS_ADMIN), ..good() };
    let d = diagnose(&facts);
    assert!(d.able.run);
    assert!(d.able.attach, "one's own processes can be read");
    assert!(!d.able.attach_others, "CAP_SYS_PTRACE is its own");
}

#[test]
fn every_check_says_what_and_how() {
    for c in diagnose(&unprivileged()).checks {
        assert!(!c.found.is_empty() && !c.consequence.is_empty() && !c.remedy.is_empty(), "{c:?}");
    }
}

#[test]
fn releases() {
    assert_eq!(at_least("6.18.44-fc", (5, 15)), Some(true));
    assert_eq!(at_least("5.4.0", (5, 15)), Some(false));
    assert_eq!(at_least("", (5, 15)), None);
}

#[test]
fn another_pid_namespace() {
    let mut facts = good();
    facts.initial_pid_namespace = Some(false);
    let d = diagnose(&facts);
    assert!(!d.able.run && !d.able.attach);
    let said = d.requirements().expect_err("refused").to_string();
    assert!(said.contains("pid namespace") && said.contains("hostPID"), "{said}");
    facts.initial_pid_namespace = None;
    assert!(diagnose(&facts).able.run, "not known is no reason to refuse");
}

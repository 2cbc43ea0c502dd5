//! Renders the diagnosis as text and as JSON.

use super::checks::{Able, Diagnosis};
use crate::render::text::{
    Style,
    line::{Line, Page, Tone},
};

/// Column at which findings start.
const COLUMN: usize = 34;
const ROWS: usize = 6;

/// Renders the diagnosis for users: every check with its finding, and consequence and remedy of those that failed.
pub fn text(diagnosis: &Diagnosis, style: &Style) -> String {
    let mut page = Page::new(style);
    for check in &diagnosis.checks {
        let (tone, word) = match (check.ok, check.required) {
            (true, _) => (Tone::Good, "ok"),
            (false, true) => (Tone::Bad, "FAILED"),
            (false, false) => (Tone::Note, "missing"),
        };
        let line = Line::new().own(tone, word).column(8).own(Tone::Plain, check.name).column(COLUMN);
        page.push_wrapped(&line.target(Tone::Plain, &check.found), COLUMN, ROWS);
        if !check.ok {
            for (label, text) in [("lost: ", check.consequence), ("remedy: ", check.remedy)] {
                let line = Line::new().column(10).own(Tone::Dim, label).own(Tone::Plain, text);
                page.push_wrapped(&line, 12, ROWS);
            }
        }
    }
    page.blank();
    for (able, what) in abilities(&diagnosis.able) {
        let (tone, word) = if able { (Tone::Good, "yes") } else { (Tone::Note, "no") };
        page.push(Line::new().own(tone, word).column(8).own(Tone::Plain, what));
    }
    page.finish()
}

fn abilities(able: &Able) -> [(bool, &'static str); 7] {
    let Able { run, attach, attach_others, hold_new_programs, kernel_timeline, many_probes, kernel_symbols } =
        *able;
    [
        (run, "run a program under watch"),
        (attach, "attach to running programs"),
        (attach_others, "attach to other users' programs"),
        (hold_new_programs, "cover what watched programs start, from the first instruction"),
        (kernel_timeline, "scheduler and kernel events before a panic"),
        (many_probes, "thousands of probes at once"),
        (kernel_symbols, "symbols of the kernel"),
    ]
}

/// Renders the diagnosis for programs: `{checks: […], able: {…}}` on one line, without a newline.
pub fn json(diagnosis: &Diagnosis) -> serde_json::Result<String> {
    crate::json::to_string(diagnosis)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::doctor::{
        checks::tests::{good, unprivileged},
        diagnose,
    };

    #[test]
    fn text_of_a_good_machine() {
        expect![[r#"
            ok      architecture              x86_64
            ok      CAP_BPF                   effective
            ok      CAP_PERFMON               effective
            ok      CAP_SYS_PTRACE            effective
            ok      CAP_SYS_ADMIN             effective
            ok      kernel                    6.8.0-45-generic
            ok      bpf system call           works (tried)
            ok      uprobe programs           works (tried)
            ok      ring buffer               works (tried)
            ok      BPF cookies               works (tried)
            ok      uprobes                   available by the uprobe_multi link
            ok      uprobe_multi link         works (tried)
            ok      uprobe PMU                type 8 (/sys/bus/event_source/devices/uprobe/type)
            ok      mapped BPF maps           works (tried)
            ok      raw tracepoints           works (tried)
            ok      sampling clock            works (tried)
            ok      fanotify exec events      works (tried)
            ok      tracefs                   /sys/kernel/tracing
            ok      BTF                       /sys/kernel/btf/vmlinux
            ok      pid namespace             the initial one
            ok      leaked probes             none
            ok      lockdown                  none
            ok      unprivileged_bpf_disabled 2
            ok      perf_event_paranoid       4
            ok      kernel symbols            /proc/kallsyms shows addresses

            yes     run a program under watch
            yes     attach to running programs
            yes     attach to other users' programs
            yes     cover what watched programs start, from the first instruction
            yes     scheduler and kernel events before a panic
            yes     thousands of probes at once
            yes     symbols of the kernel
        "#]]
        .assert_eq(&text(&diagnose(&good()), &Style::new(false, 100)));
    }

    #[test]
    fn text_for_an_ordinary_user() {
        expect![[r#"
            ok      architecture              x86_64
            FAILED  CAP_BPF                   not effective for user 1000
                      lost: no BPF program can be loaded
                      remedy: run as root, or grant CAP_BPF (in Kubernetes:
                        securityContext.capabilities.add)
            FAILED  CAP_PERFMON               not effective for user 1000
                      lost: no probe can be placed
                      remedy: run as root, or grant CAP_PERFMON (in Kubernetes:
                        securityContext.capabilities.add)
            missing CAP_SYS_PTRACE            not effective for user 1000
                      lost: other users' processes cannot be inspected: attach reaches only
                        one's own
                      remedy: run as root, or grant CAP_SYS_PTRACE
            missing CAP_SYS_ADMIN             not effective for user 1000
                      lost: new programs cannot be held before their first instruction
                        (fanotify): run covers the program it starts, not what that one
                        starts
                      remedy: run as root, or grant CAP_SYS_ADMIN
            ok      kernel                    6.8.0-45-generic
            FAILED  bpf system call           refused with EPERM (tried)
                      lost: nothing can be watched
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  uprobe programs           refused with EPERM (tried)
                      lost: no probe can be placed
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  ring buffer               refused with EPERM (tried)
                      lost: events cannot be received
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  BPF cookies               refused with EPERM (tried)
                      lost: probes cannot be told apart
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            ok      uprobes                   available by perf events (PMU type 8)
            missing uprobe_multi link         refused with EPERM (tried)
                      lost: each probe is a perf event: placing is slower, and removing 500
                        takes a minute
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            ok      uprobe PMU                type 8
                                              (/sys/bus/event_source/devices/uprobe/type)
            missing mapped BPF maps           refused with EPERM (tried)
                      lost: there is no timeline: the flight recorder has no rings
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  raw tracepoints           refused with EPERM (tried)
                      lost: neither the beginning nor the end of a process is told: no
                        program can be watched
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            missing sampling clock            refused with EPERM (tried)
                      lost: the timeline has no CPU samples on CPUs without a tick
                        (nohz_full, highres=off)
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            missing fanotify exec events      refused with EPERM (tried)
                      lost: run covers the program it starts, not the Go programs that this
                        one starts
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            ok      tracefs                   /sys/kernel/tracing
            ok      BTF                       /sys/kernel/btf/vmlinux
            ok      pid namespace             the initial one
            ok      leaked probes             none
            ok      lockdown                  none
            missing unprivileged_bpf_disabled 2
                      lost: without CAP_BPF the bpf system call is closed
                      remedy: run as root, or grant CAP_BPF
            missing perf_event_paranoid       4
                      lost: without CAP_PERFMON there are no perf events: no CPU samples, no
                        perf-event uprobes
                      remedy: run as root, or grant CAP_PERFMON
            missing kernel symbols            /proc/kallsyms hides addresses
                      lost: symbolize --kernel and kernel stacks show addresses only
                      remedy: run as root, or with CAP_SYSLOG and kernel.kptr_restrict at
                        most 1

            no      run a program under watch
            no      attach to running programs
            no      attach to other users' programs
            no      cover what watched programs start, from the first instruction
            no      scheduler and kernel events before a panic
            no      thousands of probes at once
            no      symbols of the kernel
        "#]]
        .assert_eq(&text(&diagnose(&unprivileged()), &Style::new(false, 80)));
    }

    #[test]
    fn json_has_the_promised_names() {
        let json: serde_json::Value =
            serde_json::from_str(&json(&diagnose(&unprivileged())).expect("JSON")).expect("JSON");
        let first = &json["checks"][1];
        assert_eq!(first["name"], "CAP_BPF");
        assert_eq!(first["ok"], false);
        assert!(["found", "consequence", "remedy"].iter().all(|k| first[k].is_string()));
        assert_eq!(json["able"]["run"], false);
    }
}

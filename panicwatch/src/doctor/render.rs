//! Renders the diagnosis as text and as JSON.

use super::checks::{Able, Diagnosis};
use crate::render::text::{
    Style,
    line::{Line, Page, Tone},
};

/// Column at which findings start.
const COLUMN: usize = 34;
const ROWS: usize = 6;

/// Renders the diagnosis for users: every check with its finding, and consequence and remedy of those that
/// failed.
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
            for (label, text) in [("consequence: ", check.consequence), ("remedy: ", check.remedy)] {
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
        (run, "run a program and watch it"),
        (attach, "attach to running programs"),
        (attach_others, "attach to other users' programs"),
        (hold_new_programs, "watch programs started by watched programs from their first instruction"),
        (kernel_timeline, "record scheduler and kernel events before a panic"),
        (many_probes, "attach thousands of probes at once"),
        (kernel_symbols, "resolve kernel symbols"),
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
            ok      uprobes                   available through the uprobe_multi link
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

            yes     run a program and watch it
            yes     attach to running programs
            yes     attach to other users' programs
            yes     watch programs started by watched programs from their first instruction
            yes     record scheduler and kernel events before a panic
            yes     attach thousands of probes at once
            yes     resolve kernel symbols
        "#]]
        .assert_eq(&text(&diagnose(&good()), &Style::new(false, 100)));
    }

    #[test]
    fn text_for_an_ordinary_user() {
        expect![[r#"
            ok      architecture              x86_64
            FAILED  CAP_BPF                   not effective for user 1000
                      consequence: no BPF program can be loaded
                      remedy: run as root, or grant CAP_BPF (in Kubernetes:
                        securityContext.capabilities.add)
            FAILED  CAP_PERFMON               not effective for user 1000
                      consequence: no probe can be placed
                      remedy: run as root, or grant CAP_PERFMON (in Kubernetes:
                        securityContext.capabilities.add)
            missing CAP_SYS_PTRACE            not effective for user 1000
                      consequence: other users' processes cannot be inspected: attach works
                        only for your own processes
                      remedy: run as root, or grant CAP_SYS_PTRACE
            missing CAP_SYS_ADMIN             not effective for user 1000
                      consequence: new programs cannot be held before their first
                        instruction (fanotify): run covers the program it starts, but
                        programs started by that one only from some milliseconds after their
                        exec
                      remedy: run as root, or grant CAP_SYS_ADMIN
            ok      kernel                    6.8.0-45-generic
            FAILED  bpf system call           failed with EPERM (tried)
                      consequence: nothing can be watched
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  uprobe programs           failed with EPERM (tried)
                      consequence: no probe can be placed
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  ring buffer               failed with EPERM (tried)
                      consequence: events cannot be received
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  BPF cookies               failed with EPERM (tried)
                      consequence: probes cannot be told apart
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            ok      uprobes                   available through perf events (PMU type 8)
            missing uprobe_multi link         failed with EPERM (tried)
                      consequence: each probe is a perf event: placing is slower, and
                        removing 500 takes a minute
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            ok      uprobe PMU                type 8
                                              (/sys/bus/event_source/devices/uprobe/type)
            missing mapped BPF maps           failed with EPERM (tried)
                      consequence: no timeline: the flight recorder has no rings
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            FAILED  raw tracepoints           failed with EPERM (tried)
                      consequence: starts and exits of processes are not reported: no
                        program can be watched
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            missing sampling clock            failed with EPERM (tried)
                      consequence: the timeline has no CPU samples on CPUs without a tick
                        (nohz_full, highres=off)
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            missing fanotify exec events      failed with EPERM (tried)
                      consequence: run covers the program it starts, but Go programs started
                        by that one only from some milliseconds after their exec
                      remedy: run as root, or grant the capabilities above; in a container
                        also allow the system call in the seccomp profile
            ok      tracefs                   /sys/kernel/tracing
            ok      BTF                       /sys/kernel/btf/vmlinux
            ok      pid namespace             the initial one
            ok      leaked probes             none
            ok      lockdown                  none
            missing unprivileged_bpf_disabled 2
                      consequence: the bpf system call needs CAP_BPF
                      remedy: run as root, or grant CAP_BPF
            missing perf_event_paranoid       4
                      consequence: perf events need CAP_PERFMON: no CPU samples, no
                        perf-event uprobes
                      remedy: run as root, or grant CAP_PERFMON
            missing kernel symbols            /proc/kallsyms hides addresses
                      consequence: symbolize --kernel and kernel stacks show addresses only
                      remedy: run as root, or with CAP_SYSLOG and kernel.kptr_restrict at
                        most 1

            no      run a program and watch it
            no      attach to running programs
            no      attach to other users' programs
            no      watch programs started by watched programs from their first instruction
            no      record scheduler and kernel events before a panic
            no      attach thousands of probes at once
            no      resolve kernel symbols
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

//! Examples, exit status, files and environment of every command, for its manual page. Text only.

/// A term and its description.
pub type Entry = (&'static str, &'static str);

/// The sections of a manual page that clap does not generate.
#[derive(Debug)]
pub struct Sections {
    /// Command lines and what they do.
    pub examples: &'static [Entry],
    /// Statuses and when they are returned.
    pub exit_status: &'static [Entry],
    /// Files that are read or written without being named on the command line.
    pub files: &'static [Entry],
    /// Variables that change what the command does.
    pub environment: &'static [Entry],
}

const DONE: Entry = ("0", "Done.");
const FAILED: Entry = ("1", "Failed: the message on standard error says what and why.");
const USAGE: Entry =
    ("2", "Wrong usage: an unknown option, a value that makes no sense, options that exclude each other.");
const UNABLE: Entry = (
    "3",
    "The machine or the permissions do not allow it; panicwatch doctor prints what is missing and the remedy.",
);
const OF_PROGRAM: Entry = (
    "status of PROGRAM",
    "When PROGRAM was started: its own exit status, or 128 plus the number of the signal that killed it. A status of 1 to 3 can \
     then be the program's; panicwatch's own errors begin with \"panicwatch:\" on standard error.",
);

const NO_COLOR: Entry =
    ("NO_COLOR", "When set to anything but the empty string, text on a terminal has no colors.");
const SLOTS: Entry = (
    "PANICWATCH_RECORDER_SLOTS",
    "Records that the ring of each CPU holds, a power of two. More reach further back and take more memory.",
);
const CLOCK: Entry = (
    "PANICWATCH_SAMPLING_CLOCK",
    "When set: sample threads by perf events, 199 times a second, instead of at the scheduler's tick.",
);
const PATH: Entry = ("PATH", "Where PROGRAM is searched for when its name has no slash.");

const BTF: Entry = ("/sys/kernel/btf/vmlinux", "Layout of the kernel's structures.");
const TRACEFS: Entry =
    ("/sys/kernel/tracing", "Formats of the kernel's trace events, where the kernel has no BTF.");

const ALL: &[(&str, Sections)] = &[
    (
        "",
        Sections {
            examples: &[
                (
                    "panicwatch run -- ./server --port 8080",
                    "Start a program and report its panics on standard error.",
                ),
                ("panicwatch attach --pid 4711", "Report the panics of a running process until Ctrl-C."),
                (
                    "panicwatch daemon --config /etc/panicwatch/panicwatch.toml",
                    "Watch all Go processes of the host.",
                ),
                ("panicwatch doctor", "Check what this machine allows."),
            ],
            exit_status: &[DONE, FAILED, USAGE, UNABLE, OF_PROGRAM],
            files: &[
                (
                    "/etc/panicwatch/panicwatch.toml",
                    "Configuration that the packaged systemd unit gives to the daemon.",
                ),
                (
                    "/var/lib/panicwatch",
                    "The daemon's incident store, unless [store] path names another folder.",
                ),
                BTF,
                TRACEFS,
            ],
            environment: &[
                NO_COLOR,
                PATH,
                (
                    "PANICWATCH_TABLE_KEY",
                    "Overrides a key of the daemon's configuration, see panicwatch-daemon(1).",
                ),
            ],
        },
    ),
    (
        "run",
        Sections {
            examples: &[
                ("panicwatch run -- ./server --port 8080", "Report panics as text on standard error."),
                (
                    "panicwatch run -o incidents.jsonl -- ./server",
                    "Write one JSON document a line to a file instead.",
                ),
                (
                    "panicwatch run --window 50ms --level full -- ./server",
                    "Record more, and 50 ms before each panic.",
                ),
                ("panicwatch run --dry-run -- ./server", "Print where probes would be placed."),
            ],
            exit_status: &[OF_PROGRAM, FAILED, USAGE, UNABLE],
            files: &[BTF, TRACEFS],
            environment: &[PATH, NO_COLOR, SLOTS, CLOCK],
        },
    ),
    (
        "attach",
        Sections {
            examples: &[
                ("panicwatch attach --pid 4711", "Report the panics of one process."),
                (
                    "panicwatch attach --exe /usr/bin/server -o incidents.jsonl",
                    "Write those of every process of an executable to a file.",
                ),
            ],
            exit_status: &[("0", "Stopped by Ctrl-C, or the process ended."), FAILED, USAGE, UNABLE],
            files: &[
                ("/proc/PID/exe, /proc/PID/maps", "The executable of a process and where it is mapped."),
                BTF,
                TRACEFS,
            ],
            environment: &[NO_COLOR, SLOTS, CLOCK],
        },
    ),
    (
        "daemon",
        Sections {
            examples: &[
                ("panicwatch daemon", "Watch all Go processes with the default configuration."),
                (
                    "panicwatch daemon --config /etc/panicwatch/panicwatch.toml --check",
                    "Check a configuration and do nothing else.",
                ),
                (
                    "panicwatch daemon --state /tmp/state --listen 127.0.0.1:9465",
                    "Run a second daemon beside the first.",
                ),
            ],
            exit_status: &[
                ("0", "Stopped by SIGTERM or SIGINT; with --check: the configuration is valid."),
                ("1", "The configuration is rejected, or something that it names cannot be used."),
                USAGE,
                UNABLE,
            ],
            files: &[
                (
                    "/etc/panicwatch/panicwatch.toml",
                    "Configuration that the packaged systemd unit passes with --config. Without --config, no file is \
                     read.",
                ),
                (
                    "/var/lib/panicwatch/incidents.redb",
                    "Incidents, groups and counters, unless [store] path names another folder.",
                ),
                (
                    "/var/lib/panicwatch/alive",
                    "The time of the daemon's last heartbeat, from which gaps are computed.",
                ),
                BTF,
                TRACEFS,
            ],
            environment: &[
                (
                    "PANICWATCH_TABLE_KEY",
                    "Overrides a key of the configuration: PANICWATCH_STORE_MAX_BYTES is max_bytes of [store]. Lists are separated by commas.",
                ),
                SLOTS,
                CLOCK,
                (
                    "NOTIFY_SOCKET, WATCHDOG_USEC",
                    "Set by systemd: readiness and heartbeats are reported there.",
                ),
                (
                    "JOURNAL_STREAM",
                    "Set by systemd: log lines then have no time and bear the journal's priorities.",
                ),
            ],
        },
    ),
    (
        "trace",
        Sections {
            examples: &[
                (
                    "panicwatch trace 'main.*' --args --pid 4711",
                    "Show calls of package main with their arguments.",
                ),
                (
                    "panicwatch trace 'net/http.(*conn).serve' --duration --min-duration 50ms --pid 4711",
                    "Show slow requests only.",
                ),
                (
                    "panicwatch trace '/^main\\.(get|put)$/' --where 'n>=100' -- ./server",
                    "Show calls with a large n of a program that is started here.",
                ),
                (
                    "panicwatch trace 'main.*' --count --exe ./server",
                    "Count calls in every process of an executable.",
                ),
                (
                    "panicwatch trace 'main.*' --dry-run -- ./server",
                    "List the functions that would be traced.",
                ),
            ],
            exit_status: &[
                ("0", "Stopped by Ctrl-C, or the process ended."),
                ("1", "No function matches, or the target cannot be read."),
                (
                    "2",
                    "Wrong usage; also an invalid pattern, and --where with a parameter that no traced function has.",
                ),
                UNABLE,
                OF_PROGRAM,
            ],
            files: &[(
                "/proc/PID/exe, /proc/PID/maps",
                "The executable of a process and where it is mapped.",
            )],
            environment: &[PATH],
        },
    ),
    (
        "init-trace",
        Sections {
            examples: &[
                (
                    "panicwatch init-trace -- ./server",
                    "Print the initialization to standard error when main.main begins.",
                ),
                ("panicwatch init-trace --slowest -- ./server", "Sort packages by the time they take."),
                (
                    "panicwatch init-trace --format perfetto -o init.pftrace -- ./server",
                    "Write a trace for ui.perfetto.dev.",
                ),
            ],
            exit_status: &[OF_PROGRAM, FAILED, USAGE, UNABLE],
            files: &[BTF, TRACEFS],
            environment: &[PATH, NO_COLOR],
        },
    ),
    (
        "inspect",
        Sections {
            examples: &[
                ("panicwatch inspect ./server", "Describe a binary and its probes."),
                ("panicwatch inspect --pid 4711 --format json", "Describe what a process runs, as JSON."),
            ],
            exit_status: &[
                ("0", "A Go program was described, also one that cannot be watched."),
                ("1", "The file is not a Go program, or cannot be read."),
                USAGE,
                ("3", "The process belongs to another user."),
            ],
            files: &[("/proc/PID/exe, /proc/PID/maps", "With --pid: the executable and where it is mapped.")],
            environment: &[NO_COLOR],
        },
    ),
    (
        "symbolize",
        Sections {
            examples: &[
                ("panicwatch symbolize ./server 0x66f6c0", "Print function, file and line of an address."),
                (
                    "panicwatch symbolize ./server --asm --raised-by main.share+0x28",
                    "With instructions and what raises a panic there.",
                ),
                (
                    "panicwatch symbolize --pid 4711 < addresses.txt",
                    "Resolve addresses of a process from standard input, one a line.",
                ),
                ("panicwatch symbolize --kernel vfs_read+0x9b", "Resolve an address of the kernel."),
            ],
            exit_status: &[
                (
                    "0",
                    "Done, also for addresses that cannot be resolved: the reason is printed in their place.",
                ),
                FAILED,
                USAGE,
                UNABLE,
            ],
            files: &[
                ("/proc/kallsyms, /proc/modules", "With --kernel: the kernel's symbols and modules."),
                ("/proc/PID/exe, /proc/PID/maps", "With --pid: the executable and where it is mapped."),
            ],
            environment: &[],
        },
    ),
    (
        "show",
        Sections {
            examples: &[
                ("panicwatch show incidents.jsonl", "Print the last incident of a file."),
                (
                    "panicwatch show incidents.jsonl --index 2 --format perfetto -o incident.pftrace",
                    "Write the second one for ui.perfetto.dev.",
                ),
                (
                    "panicwatch show 01M84DAS6BXM27J0RA9C50RRGF --format html -o incident.html",
                    "Fetch one from the daemon as an HTML page.",
                ),
            ],
            exit_status: &[
                DONE,
                ("1", "There is no such incident, it cannot be read, or the daemon rejects the request."),
                USAGE,
            ],
            files: &[],
            environment: &[NO_COLOR],
        },
    ),
    (
        "top",
        Sections {
            examples: &[
                ("panicwatch top", "Show what the daemon on this host sees, live."),
                (
                    "panicwatch top --once --daemon https://host:9464 --token-file token",
                    "Print one snapshot of another host's daemon as text.",
                ),
            ],
            exit_status: &[
                DONE,
                ("1", "The daemon cannot be reached or rejects the request, or the terminal fails."),
                USAGE,
            ],
            files: &[],
            environment: &[],
        },
    ),
    (
        "doctor",
        Sections {
            examples: &[
                ("panicwatch doctor", "Print every check with its consequence and remedy."),
                ("panicwatch doctor --format json", "The same as JSON."),
            ],
            exit_status: &[
                ("0", "Programs can be watched here."),
                FAILED,
                USAGE,
                ("3", "Programs cannot be watched here."),
            ],
            files: &[
                ("/proc/self/status", "Effective capabilities."),
                BTF,
                TRACEFS,
                (
                    "/proc/sys/kernel/perf_event_paranoid, /proc/sys/kernel/unprivileged_bpf_disabled",
                    "What the kernel allows unprivileged users.",
                ),
            ],
            environment: &[NO_COLOR],
        },
    ),
    (
        "completions",
        Sections {
            examples: &[(
                "panicwatch completions bash > /etc/bash_completion.d/panicwatch",
                "Install completions for bash.",
            )],
            exit_status: &[DONE, FAILED, USAGE],
            files: &[],
            environment: &[],
        },
    ),
    (
        "man",
        Sections {
            examples: &[
                ("panicwatch man | man -l -", "Read the manual page."),
                ("panicwatch man --dir /usr/local/share/man/man1", "Install a page for each command."),
            ],
            exit_status: &[DONE, FAILED, USAGE],
            files: &[],
            environment: &[],
        },
    ),
];

/// Returns the sections of a command; the empty name is panicwatch itself.
pub fn of(command: &str) -> Option<&'static Sections> {
    ALL.iter().find(|(name, _)| *name == command).map(|(_, sections)| sections)
}

/// Returns the example command lines of all pages.
pub fn examples() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|(_, sections)| sections.examples.iter().map(|(line, _)| *line))
}

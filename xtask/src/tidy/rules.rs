//! Rules that check one file at a time.

use super::{File, Remark, comments, go_facts};

/// Number of lines of a source file: a warning above the first, a violation above the second.
const LINES_AIM: usize = 400;
const LINES_MAX: usize = 600;

/// The crate that does no I/O, so that a test can cover every race and every damaged input with a table. Its
/// clippy.toml lists further names.
const PURE: &str = "panicwatch/core/src/";
const IMPURE: &[&str] = &[
    "std::fs",
    "TcpStream",
    "UdpSocket",
    "std::process",
    "std::thread",
    "std::env",
    "Instant::now",
    "SystemTime::now",
    "RandomState",
    "libc::",
];

/// Modules that write to a terminal and escape what they write.
const TERMINALS: &[&str] = &[
    "panicwatch/src/cli/common.rs",
    "panicwatch/src/cli/init_trace.rs",
    "panicwatch/src/cli/show.rs",
    "panicwatch/src/cli/sink.rs",
    "panicwatch/src/cli/symbolize.rs",
    "panicwatch/src/cli/trace/output.rs",
    "panicwatch/src/daemon/log.rs",
    "panicwatch/src/jsonl.rs",
];

/// Hosts that files may link to. Package registries are reached by their clients, never by a URL of ours.
const HOSTS: &[&str] = &[
    "127.0.0.1",
    "api.slack.com",
    "blog.golang.org",
    "chromedevtools.github.io",
    "cs.opensource.google",
    "datatracker.ietf.org",
    "docs.kernel.org",
    "docs.rs",
    "dwarfstd.org",
    "elixir.bootlin.com",
    "example.com",
    "git.kernel.org",
    "github.com",
    "go-review.googlesource.com",
    "go.dev",
    "go.googlesource.com",
    "golang.org",
    "keepachangelog.com",
    "localhost",
    "lore.kernel.org",
    "lwn.net",
    "man7.org",
    "opentelemetry.io",
    "perfetto.dev",
    "pkg.go.dev",
    "prometheus.io",
    "refspecs.linuxfoundation.org",
    "semver.org",
    "spdx.org",
    "ui.perfetto.dev",
    "www.apache.org",
    "www.gnu.org",
    "www.kernel.org",
    "www.w3.org",
];

/// Returns all remarks about a file. `private`: paths that exist only on this machine.
pub(super) fn all(file: &File, private: &[String]) -> Vec<Remark> {
    let mut remarks = Vec::new();
    if file.path.ends_with(".rs") {
        remarks.extend(length(file));
        remarks.extend(header(file));
        remarks.extend(ignored_tests(file));
        remarks.extend(purity(file));
        remarks.extend(go_facts::offsets(file));
        remarks.extend(go_facts::releases(file));
        remarks.extend(terminals(file));
        remarks.extend(kernel_access(file));
        remarks.extend(uretprobes(file));
        remarks.extend(comments::check(file));
    }
    remarks.extend(builds_first(file));
    remarks.extend(private_paths(file, private));
    remarks.extend(hosts(file));
    remarks
}

pub(super) fn violation(line: usize, what: &str) -> Remark {
    Remark::Violation(format!("line {}: {what}", line + 1))
}

fn length(file: &File) -> Option<Remark> {
    match file.text.lines().count() {
        lines if lines > LINES_MAX => {
            Some(Remark::Violation(format!("{lines} lines; {LINES_MAX} is the limit: split it")))
        }
        lines if lines > LINES_AIM => Some(Remark::Warning(format!("{lines} lines; aim at {LINES_AIM}"))),
        _ => None,
    }
}

fn header(file: &File) -> Option<Remark> {
    let first = file.text.lines().find(|line| !line.trim().is_empty() && !line.starts_with("#!["));
    if first.is_some_and(|line| line.starts_with("//!")) {
        return None;
    }
    Some(Remark::Violation("begins without a `//!` that says what it knows and must not know".to_owned()))
}

fn ignored_tests(file: &File) -> Vec<Remark> {
    let ignored = |line: &str| line.trim_start().starts_with("#[ignore");
    let lines = file.text.lines().enumerate().filter(|(_, line)| ignored(line));
    lines
        .map(|(at, _)| violation(at, "no #[ignore]: a test that cannot run prints `skipped: <why>`"))
        .collect()
}

/// Returns the lines of code before the tests, without comments.
pub(super) fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let mut lines = file.text.lines().enumerate().peekable();
    let mut ended = false;
    let lines = std::iter::from_fn(move || {
        let (at, line) = lines.next().filter(|_| !ended)?;
        // Tests in a file of their own hide nothing behind them.
        let in_a_file = |next: &str| next.contains("mod ") && next.ends_with(';');
        ended = line == "#[cfg(test)]" && !lines.peek().is_some_and(|(_, next)| in_a_file(next));
        Some((at, line)).filter(|_| !ended)
    });
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn purity(file: &File) -> Vec<Remark> {
    if !file.path.starts_with(PURE) || file.path.split(['/', '.']).any(|part| part == "tests") {
        return Vec::new();
    }
    code(file)
        .filter_map(|(at, line)| {
            let what = IMPURE.iter().find(|name| line.contains(*name))?;
            Some(violation(at, &format!("panicwatch-core does no I/O and reads no clock: no {what}")))
        })
        .collect()
}

/// Text from files, names or servers must reach a terminal only through the few functions that escape it.
fn terminals(file: &File) -> Vec<Remark> {
    let in_scope = file.path.starts_with("panicwatch/src/") || file.path.starts_with(PURE);
    if !in_scope || TERMINALS.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let writes = |line: &str| {
        ["io::stdout()", "io::stderr()"]
            .iter()
            .any(|it| line.find(it).is_some_and(|at| !line[at + it.len()..].starts_with(".is_terminal()")))
    };
    code(file)
        .filter(|(_, line)| writes(line))
        .map(|(at, _)| {
            violation(
                at,
                "standard output and error are written by say and print of cli::common, which escape",
            )
        })
        .collect()
}

/// Only these files may use aya.
const KERNEL_ACCESS: [&str; 3] =
    ["panicwatch/src/probe/", "panicwatch/src/watch/reader.rs", "panicwatch/src/ebpf.rs"];

fn kernel_access(file: &File) -> Vec<Remark> {
    let in_scope = ["panicwatch/src/", "panicwatch/core/"].iter().any(|folder| file.path.starts_with(folder));
    if !in_scope || KERNEL_ACCESS.iter().any(|allowed| file.path.starts_with(allowed)) {
        return Vec::new();
    }
    let uses = |line: &str| ["aya::", "aya_obj::", "aya_log::"].iter().any(|name| line.contains(name));
    code(file)
        .filter(|(_, line)| uses(line))
        .map(|(at, _)| violation(at, "only probe and the ring reader of watch use aya"))
        .collect()
}

/// A uretprobe replaces return addresses, which crashes Go: it walks and moves stacks.
fn uretprobes(file: &File) -> Vec<Remark> {
    if !file.path.starts_with("panicwatch") {
        return Vec::new();
    }
    let attaches =
        |line: &str| ["#[uretprobe", "UProbeKind::Return", "RetProbe"].iter().any(|it| line.contains(it));
    code(file)
        .filter(|(_, line)| attaches(line))
        .map(|(at, _)| {
            violation(at, "no uretprobe on a Go program: it crashes when Go walks or moves the stack")
        })
        .collect()
}

/// Set-up runs before the eBPF toolchain is installed, which panicwatch needs to build.
fn builds_first(file: &File) -> Vec<Remark> {
    let lines = file.text.lines().enumerate().filter(|_| file.path == "xtask/Cargo.toml");
    let depends =
        |line: &str| line.split_once(['.', '=', ' ']).is_some_and(|(name, _)| name.starts_with("panicwatch"));
    lines
        .filter(|(_, line)| depends(line))
        .map(|(at, _)| violation(at, "xtask depends on no crate of panicwatch: set-up must build first"))
        .collect()
}

fn private_paths(file: &File, private: &[String]) -> Vec<Remark> {
    let lines = file.text.lines().enumerate();
    lines
        .filter_map(|(at, line)| {
            let path = private.iter().find(|path| line.contains(*path))?;
            Some(violation(at, &format!("{path} means something on this machine only")))
        })
        .collect()
}

fn hosts(file: &File) -> Vec<Remark> {
    // These files are generated by cargo and Go and name the registry that their client uses.
    if file.path.ends_with("Cargo.lock") || file.path.ends_with("go.sum") {
        return Vec::new();
    }
    let mut remarks = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for url in line.split("://").skip(1) {
            let host: String =
                url.chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-')).collect();
            let known = |it: &str| host == it || host.ends_with(&format!(".{it}"));
            // A host without a dot is a placeholder or a name in a test's own network.
            if host.contains('.') && !HOSTS.iter().copied().any(known) && !host.ends_with(".example") {
                remarks.push(violation(
                    at,
                    &format!("{host} is not among the hosts that files may name (xtask/src/tidy/rules.rs)"),
                ));
            }
        }
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::{File, Remark, all};

    fn remarks(path: &str, text: &str) -> Vec<Remark> {
        all(&File { path: path.to_owned(), text: text.to_owned() }, &["/somebody/panicwatch".to_owned()])
    }

    #[test]
    fn a_tidy_file_gives_no_remark() {
        assert_eq!(remarks("panicwatch/core/src/go/gobin/elf.rs", "//! ELF.\nuse std::fmt;\n"), []);
    }

    #[test]
    fn each_rule_tells() {
        let long = format!("//! Long.\n{}", "\n".repeat(600));
        let cases = [
            ("a.rs", long.as_str(), "600 is the limit"),
            ("a.rs", "use std::fmt;\n", "begins without"),
            ("a.rs", "//! A.\n#[ignore]\n", "no #[ignore]"),
            ("panicwatch/core/src/go/gobin/elf.rs", "//! A.\nuse std::fs;\n", "does no I/O"),
            (
                "panicwatch/core/src/timeline/mod.rs",
                "//! A.\n#[cfg(test)]\nmod tests;\nuse std::fs;\n",
                "does no I/O",
            ),
            ("panicwatch/src/cli/run.rs", "//! A.\nlet _ = io::stderr().write_all(b);\n", "which escape"),
            ("panicwatch/core/src/plan.rs", "//! A.\nconst G_GOID_OFFSET: u64 = 152;\n", "gobin::offsets"),
            ("panicwatch/core/src/plan.rs", "//! A.\nif minor >= 22 {}\n", "go::release"),
            ("panicwatch/src/daemon/mod.rs", "//! A.\nuse aya::Ebpf;\n", "use aya"),
            ("panicwatch-ebpf/src/probes/end.rs", "//! A.\n#[uretprobe]\n", "no uretprobe"),
            (
                "xtask/Cargo.toml",
                "[dependencies]\npanicwatch-common.workspace = true\n",
                "no crate of panicwatch",
            ),
            ("a.md", "see /somebody/panicwatch/x\n", "this machine only"),
            ("a.md", concat!("https:/", "/registry.invalid/x\n"), "registry.invalid is not among"),
        ];
        for (path, text, expected) in cases {
            let found = remarks(path, text);
            assert!(
                matches!(found.as_slice(), [Remark::Violation(what)] if what.contains(expected)),
                "{path}: {expected}: {found:?}"
            );
        }
    }

    #[test]
    fn tests_of_a_pure_module_may_read_files() {
        assert_eq!(
            remarks("panicwatch/core/src/go/value/mod.rs", "//! A.\n#[cfg(test)]\nuse std::fs;\n"),
            []
        );
    }
}

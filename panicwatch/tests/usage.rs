//! Exit statuses of the commands (README, manual pages): 2 for any usage error; a closed pipe is no error.
//!
//! No test needs privileges: usage errors are reported before the machine is examined.

#[expect(dead_code, reason = "other tests use the rest")]
mod support;

use std::{
    fs,
    io::pipe,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use support::toolchains;

const PANICWATCH: &str = env!("CARGO_BIN_EXE_panicwatch");

fn panicwatch(args: &[&str]) -> Output {
    Command::new(PANICWATCH).args(args).stdin(Stdio::null()).output().expect("panicwatch starts")
}

/// Command lines, each with a part of the message that rejects it.
const WRONG: &[(&[&str], &str)] = &[
    // No command, or an unknown one.
    (&[], "Usage"),
    (&["watch"], "unrecognized subcommand"),
    (&["run", "--colour", "--", "x"], "unexpected argument"),
    // Missing arguments and values.
    (&["run"], "PROGRAM"),
    (&["run", "--"], "PROGRAM"),
    (&["init-trace"], "PROGRAM"),
    (&["attach"], "--pid"),
    (&["trace"], "PATTERN"),
    (&["trace", "main.*"], "exactly one target"),
    (&["inspect"], "BINARY"),
    (&["symbolize"], "name a binary"),
    (&["show"], "FILE|ID"),
    (&["completions"], "SHELL"),
    (&["attach", "--pid"], "a value is required"),
    // Empty values.
    (&["run", "--", ""], "PROGRAM is empty"),
    (&["init-trace", "--", ""], "PROGRAM is empty"),
    (&["trace", "main.*", "--", ""], "PROGRAM is empty"),
    (&["attach", "--exe", ""], "a value is required"),
    (&["trace", "", "--pid", "1"], "an empty pattern"),
    (&["trace", "main.*", "--exe", ""], "a value is required"),
    (&["run", "-o", "", "--", "x"], "a value is required"),
    (&["inspect", ""], "a value is required"),
    (&["symbolize", ""], "BINARY is empty"),
    (&["show", ""], "a value is required"),
    (&["daemon", "--config", ""], "a value is required"),
    (&["man", "--dir", ""], "a value is required"),
    (&["top", "--token-file", ""], "a value is required"),
    // Invalid numbers, durations and names.
    (&["attach", "--pid", "abc"], "invalid"),
    (&["attach", "--pid", "0"], "0 is not in"),
    (&["attach", "--pid", "-1"], "unexpected argument"),
    (&["attach", "--pid", "4294967296"], "not in"),
    (&["trace", "main.*", "--pid", "0"], "0 is not in"),
    (&["inspect", "--pid", "0"], "0 is not in"),
    (&["symbolize", "--pid", "0", "1"], "0 is not in"),
    (&["run", "--window", "10", "--", "x"], "not a unit of time"),
    (&["run", "--window", "ms", "--", "x"], "write it as"),
    (&["run", "--window", "61s", "--", "x"], "at most 60 s"),
    (&["run", "--window", "-5ms", "--", "x"], "unexpected argument"),
    (&["run", "--window=-5ms", "--", "x"], "invalid value"),
    (&["trace", "main.*", "--min-duration", "5m", "--pid", "1"], "write it as"),
    (&["top", "--interval", "0s"], "longer than 0"),
    (&["top", "--interval", "50ms"], "at least 100 ms"),
    (&["top", "--interval", "soon"], "write it as"),
    (&["run", "--level", "most", "--", "x"], "invalid value"),
    (&["run", "--without", "switch,disk", "--", "x"], "no such source"),
    (&["run", "--window", "0ms", "--", "x"], "longer than 0"),
    (&["run", "--budget", "0", "--", "x"], "more than 0"),
    (&["run", "--budget", "nan", "--", "x"], "more than 0"),
    (&["attach", "--core-limit", "101", "--pid", "1"], "at most 100"),
    (&["daemon", "--listen", "9464", "--check"], "write it as 127.0.0.1:9464"),
    (&["daemon", "--listen", "", "--check"], "write it as 127.0.0.1:9464"),
    (&["daemon", "--state", "", "--check"], "a value is required"),
    (&["run", "--max-captures", "many", "--", "x"], "invalid"),
    (&["run", "--format", "xml", "--", "x"], "invalid value"),
    (&["init-trace", "--format", "jsonl", "--", "x"], "invalid value"),
    (&["trace", "main.*", "--format", "json", "--pid", "1"], "invalid value"),
    (&["inspect", "x", "--format", "yaml"], "invalid value"),
    (&["symbolize", "x", "--format", "csv"], "invalid value"),
    (&["show", "x", "--format", "pdf"], "invalid value"),
    (&["doctor", "--format", "html"], "invalid value"),
    (&["completions", "tcsh"], "invalid value"),
    (&["show", "x", "--index", "0"], "0 is not in"),
    (&["show", "x", "--index", "one"], "invalid"),
    (&["trace", "main.*", "--goroutine", "g7", "--pid", "1"], "invalid"),
    (&["trace", "main.*", "--budget", "0", "--pid", "1"], "0 is not in"),
    (&["trace", "main.*", "--buffer", "3", "--pid", "1"], "power of two"),
    (&["symbolize", PANICWATCH, "--load-address", "zz", "1"], "not a hexadecimal address"),
    (&["top", "--once", "--daemon", "ftp://box"], "is not a daemon's address"),
    (&["show", "01JZQ4V7T3F6Y5K2M800000001", "--daemon", "box:1"], "is not a daemon's address"),
    // Invalid patterns and conditions.
    (&["trace", "/(/", "--pid", "1"], "not a regular expression"),
    (&["trace", "/main", "--pid", "1"], "no closing slash"),
    (&["trace", "//", "--pid", "1"], "an empty pattern"),
    (&["run", "--function", "/[/", "--", "x"], "not a regular expression"),
    (&["trace", "main.*", "--where", "n", "--pid", "1"], "is not a condition"),
    (&["trace", "main.*", "--where", "==3", "--pid", "1"], "is not a condition"),
    // Options that exclude each other or require another one.
    (&["attach", "--pid", "1", "--exe", "x"], "cannot be used with"),
    (&["inspect", "x", "--pid", "1"], "cannot be used with"),
    (&["trace", "main.*", "--pid", "1", "--exe", "x"], "cannot be used with"),
    (&["trace", "main.*", "--pid", "1", "--", "x"], "exactly one target"),
    (&["trace", "main.*", "--count", "--args", "--pid", "1"], "cannot be used with"),
    (&["trace", "main.*", "--count", "--where", "n==1", "--pid", "1"], "cannot be used with"),
    (
        &["trace", "main.*", "--count", "--format", "perfetto", "-o", "x", "--pid", "1"],
        "leave out one of the two",
    ),
    (&["trace", "main.*", "--format", "perfetto", "--pid", "1"], "-o FILE"),
    (&["init-trace", "--format", "perfetto", "--", "x"], "-o FILE"),
    (&["run", "--level", "full", "--no-timeline", "--", "x"], "cannot be used with"),
    (&["show", "x", "--id", "a", "--index", "1"], "cannot be used with"),
    (&["symbolize", "--kernel", "--pid", "1", "1"], "cannot be used with"),
    (&["symbolize", "--kernel", "--asm", "1"], "cannot be used with"),
    (&["symbolize", "--vmlinux", "x", "1"], "--kernel"),
];

#[test]
fn wrong_usage_is_status_2() {
    let mut wrong = Vec::new();
    for (args, word) in WRONG {
        let output = panicwatch(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() != Some(2) || !text.contains(word) || !output.stdout.is_empty() {
            wrong.push(format!("{args:?}: {:?}, not 2 with {word:?}: {text}", output.status.code()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_failure_is_status_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    fs::write(&text, "no incident").expect("writes");
    let text = text.to_str().expect("a path");
    for args in [
        &["run", "--", "/no/such/program"][..],
        &["attach", "--pid", "4194305"],
        &["trace", "main.*", "--exe", "/no/such/program"],
        &["trace", "main.*", "--exe", text],
        &["inspect", text],
        &["symbolize", "/no/such/file", "1"],
        &["show", text],
        &["show", "/no/such/file"],
        &["top", "--once", "--daemon", "/no/such.sock"],
        &["daemon", "--config", "/no/such/file", "--check"],
        &["man", "--dir", "/no/such/folder"],
    ] {
        let output = panicwatch(args);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.starts_with("panicwatch: ") && said.trim_end().lines().count() == 1, "{args:?}: {said}");
    }
}

#[test]
fn a_closed_pipe_is_no_error() {
    let incident = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/incidents/recovered.json");
    let incident = incident.to_str().expect("a path");
    let go = toolchains().pop().map(|toolchain| toolchain.go.display().to_string());
    let mut commands: Vec<Vec<&str>> = vec![
        vec!["--help"],
        vec!["--version"],
        vec!["trace", "--help"],
        vec!["doctor"],
        vec!["doctor", "--format", "json"],
        vec!["man"],
        vec!["completions", "bash"],
        vec!["daemon", "--check"],
    ];
    for format in ["text", "json", "html", "otlp"] {
        commands.push(vec!["show", incident, "--format", format]);
    }
    if let Some(go) = go.as_deref() {
        commands.push(vec!["inspect", go]);
        commands.push(vec!["inspect", go, "--format", "json"]);
        commands.push(vec!["symbolize", go, "main.main"]);
        commands.push(vec!["symbolize", go, "main.main", "--asm"]);
        commands.push(vec!["trace", "main.*", "--dry-run", "--exe", go]);
        commands.push(vec!["run", "--dry-run", "--", go]);
    }
    for args in commands {
        let whole = panicwatch(&args);
        let (read, write) = pipe().expect("a pipe");
        drop(read);
        let child = Command::new(PANICWATCH).args(&args).stdout(write).stderr(Stdio::piped()).spawn();
        let output = child.and_then(std::process::Child::wait_with_output).expect("panicwatch starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), whole.status.code(), "{args:?}: {said}");
        assert_eq!(said, String::from_utf8_lossy(&whole.stderr), "{args:?}");
    }
}

const PROGRAM: &str = "package main

import \"os\"

//go:noinline
func add(left, right int) int { return left + right }

//go:noinline
func name(prefix string, _ int) string { return prefix + os.Args[0] }

func main() {
	println(add(1, len(os.Args)), name(\"a\", 2))
}
";

/// Builds a program with parameters, with these linker flags.
fn program(folder: &Path, flags: &[&str]) -> Option<PathBuf> {
    let toolchain = toolchains().pop()?;
    let source = folder.join("source");
    fs::create_dir_all(&source).expect("a folder");
    fs::write(source.join("main.go"), PROGRAM).expect("writes");
    let out = folder.join("program");
    toolchain.build(&source, flags, &out);
    Some(out)
}

#[test]
fn a_condition_on_an_unknown_parameter_is_rejected() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(path) = program(folder.path(), &[]) else { return };
    let exe = path.to_str().expect("a path");
    let trace =
        |pattern, condition| panicwatch(&["trace", pattern, "--where", condition, "--dry-run", "--exe", exe]);
    for (pattern, condition) in
        [("main.add", "left==1"), ("main.*", "right<5"), ("main.*", "prefix contains a")]
    {
        let output = trace(pattern, condition);
        assert!(output.status.success(), "{condition}: {}", String::from_utf8_lossy(&output.stderr));
    }
    for (pattern, condition, want) in [
        (
            "main.add",
            "lift==1",
            "--where lift: no traced function has a parameter of this name; the parameters are left, right",
        ),
        (
            "main.add",
            "prefix==a",
            "--where prefix: no traced function has a parameter of this name; the parameters are left, right",
        ),
        (
            "main.*",
            "_==2",
            "--where _: no traced function has a parameter of this name; the parameters are left, prefix, right",
        ),
        ("main.main", "left==1", "--where left: the traced functions have no parameters"),
    ] {
        let output = trace(pattern, condition);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{condition}: {said}");
        assert!(said.contains(want) && said.trim_end().lines().count() == 1, "{condition}: {said}");
        assert!(output.stdout.is_empty(), "{condition}");
    }
    // Without debug information, parameters are unknown; that is not a usage error.
    let Some(stripped) = program(folder.path(), &["-ldflags=-s -w"]) else { return };
    let exe = stripped.to_str().expect("a path");
    let output = panicwatch(&["trace", "main.add", "--where", "left==1", "--dry-run", "--exe", exe]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot read the arguments that --where needs"), "{said}");
}

//! Errors of the command line: one clear sentence, and the documented exit status.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::{
    compare::runs::Output,
    ledger::{End, Verdict, cell},
    need,
    run::{self, PANICWATCH},
};

type Test = fn() -> Verdict;

const TESTS: &[(&str, Test)] = &[
    ("no arguments", no_arguments),
    ("unknown flag", unknown_flag),
    ("program missing", missing),
    ("program not executable", not_executable),
    ("program a directory", directory),
    ("output cannot be written", output_refused),
    ("no rights", no_rights),
    ("program not Go", not_go),
    ("program not Go, killed", not_go_killed),
    ("attach to no process", attach_nobody),
];

/// Returns every test of the group.
pub(crate) fn trials() -> Vec<Trial> {
    TESTS.iter().map(|(name, test)| cell("cli", "any", name, *test)).collect()
}

fn panicwatch(args: &[&str]) -> Result<Output> {
    let mut command = Command::new(PANICWATCH);
    command.args(args);
    run::finish(command)
}

/// Checks the exit status and that standard error is one sentence with these words; standard output must be
/// empty.
fn refuses(output: &Output, status: i32, words: &[&str]) -> Verdict {
    ensure!(output.status == status, "exit status {}, not {status}: {:?}", output.status, output.stderr);
    ensure!(output.stdout.is_empty(), "standard output {:?}", output.stdout);
    let text = output.stderr.trim_end();
    ensure!(!text.is_empty() && text.lines().count() == 1, "not one sentence: {text:?}");
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {text:?}");
    }
    Ok(End::Passed)
}

fn usage(output: &Output, word: &str) -> Verdict {
    ensure!(output.status == 2, "exit status {}, not 2", output.status);
    ensure!(output.stderr.contains(word), "{word:?} is not in {:?}", output.stderr);
    ensure!(!output.stderr.contains("panicked at"), "{:?}", output.stderr);
    Ok(End::Passed)
}

fn no_arguments() -> Verdict {
    usage(&panicwatch(&[])?, "Usage")?;
    usage(&panicwatch(&["run"])?, "PROGRAM")
}

fn unknown_flag() -> Verdict {
    usage(&panicwatch(&["run", "--no-such-flag", "--", "/bin/true"])?, "--no-such-flag")
}

fn missing() -> Verdict {
    refuses(&panicwatch(&["run", "--", "/does/not/exist"])?, 1, &["/does/not/exist", "no such"])
}

fn not_executable() -> Verdict {
    let dir = TempDir::new()?;
    let path = dir.path().join("plain");
    fs::write(&path, "text")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    let path = path.display().to_string();
    refuses(&panicwatch(&["run", "--", &path])?, 1, &[&path, "not executable"])
}

fn directory() -> Verdict {
    refuses(&panicwatch(&["run", "--", "/tmp"])?, 1, &["/tmp"])
}

fn output_refused() -> Verdict {
    refuses(
        &panicwatch(&["run", "-o", "/does/not/exist/file", "--", "/bin/true"])?,
        1,
        &["/does/not/exist/file"],
    )
}

/// Runs as a user without capabilities, on a machine that has everything else.
fn no_rights() -> Verdict {
    if need::probes().is_some() || !need::on_path("setpriv") {
        return Ok(End::Skipped("needs root, and setpriv, to give rights up".to_owned()));
    }
    // The build directory may be closed to other users, so the command is copied to a directory that anyone
    // can read.
    let dir = TempDir::new()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let copy = dir.path().join("panicwatch");
    fs::copy(PANICWATCH, &copy)?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"]);
    command.arg(&copy).args(["run", "--", "/bin/true"]);
    refuses(&run::finish(command)?, 3, &["panicwatch doctor"])
}

/// The program runs and ends as it would alone, and one sentence reports that there was nothing to watch.
fn not_go() -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    let output = panicwatch(&["run", "--", "/bin/sh", "-c", "echo out; exit 9"])?;
    ensure!(output.status == 9, "exit status {}: {:?}", output.status, output.stderr);
    ensure!(output.stdout == "out\n", "standard output {:?}", output.stdout);
    let text = output.stderr.trim_end();
    ensure!(text.lines().count() == 1 && text.contains("Go program"), "not the sentence: {text:?}");
    Ok(End::Passed)
}

fn not_go_killed() -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    let output = panicwatch(&["run", "--", "/bin/sh", "-c", "kill -TERM $$"])?;
    ensure!(output.status == 143, "exit status {}, not 128 + 15: {:?}", output.status, output.stderr);
    Ok(End::Passed)
}

fn attach_nobody() -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    // Larger than any possible pid_max.
    let pid = "99999999";
    ensure!(!Path::new("/proc").join(pid).exists(), "process {pid} exists");
    refuses(&panicwatch(&["attach", "--pid", pid])?, 1, &[pid])
}

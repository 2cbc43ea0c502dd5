//! Builds the test programs and runs those that need no privileges.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::output::{Reader, Show};
use super::tally::Tally;
use crate::{paths, shell};

/// How long a program may print nothing relevant before a progress line is shown.
const SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// A built test program.
pub(super) struct Binary {
    /// Name in the output: `panicwatch (lib)`, `panicwatch live`.
    pub(super) name: String,
    pub(super) target: String,
    pub(super) executable: PathBuf,
    /// Directory in which cargo would run the program: that of its package.
    pub(super) directory: PathBuf,
}

impl Binary {
    /// Reports whether this is the one program that holds all tests that load BPF programs.
    pub(super) fn is_live(&self) -> bool {
        self.target == "live"
    }
}

/// Compiles all tests.
pub(super) fn build() -> Result<Vec<Binary>> {
    let mut cargo = Command::new(paths::cargo());
    cargo
        .current_dir(paths::root())
        .args(["test", "--no-run", "--message-format=json-render-diagnostics"])
        .stdout(Stdio::piped());
    let mut child = cargo.spawn().context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    let mut binaries = Vec::new();
    for line in BufReader::new(stdout).lines() {
        if let Some(binary) = test_binary(&line?) {
            binaries.push(binary);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test --no-run failed ({status})");
    }
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(binaries)
}

/// Returns the test program that a line of cargo's JSON messages describes.
fn test_binary(line: &str) -> Option<Binary> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let executable = PathBuf::from(message["executable"].as_str()?);
    let directory = Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf();
    let package = directory.file_name()?.to_string_lossy().into_owned();
    let target = message["target"]["name"].as_str()?.to_owned();
    let kind = message["target"]["kind"][0].as_str()?;
    let name = if kind == "test" { format!("{package} {target}") } else { format!("{package} ({kind})") };
    Some(Binary { name, target, executable, directory })
}

/// Runs one program as cargo would.
pub(super) fn run(binary: &Binary, filter: Option<&str>, tally: &mut Tally) {
    let mut command = Command::new(&binary.executable);
    command.current_dir(&binary.directory).env("CARGO_MANIFEST_DIR", &binary.directory).args(filter);
    // The oldest option that shows what a passed test printed; libtest-mimic supports neither the option nor
    // capturing.
    if !binary.is_live() {
        command.arg("--show-output");
    }
    follow(&binary.name, command, tally);
}

/// Runs the documentation examples, which only cargo can run.
pub(super) fn run_doc_tests(filter: Option<&str>, tally: &mut Tally) {
    for package in ["panicwatch", "panicwatch-core", "panicwatch-common"] {
        let mut cargo = Command::new(paths::cargo());
        cargo.current_dir(paths::root()).args(["test", "--quiet", "--doc", "--package", package, "--"]);
        cargo.args(["--format", "pretty"]).args(filter);
        follow(&format!("{package} (documentation)"), cargo, tally);
    }
}

/// Runs a test program, shows the relevant lines of its output, and adds its counts to `tally`.
pub(super) fn follow(name: &str, mut command: Command, tally: &mut Tally) {
    shell::headline(name);
    let mut reader = Reader::new(name);
    let ended = watch(&mut command, &mut reader);
    let (success, how) = match ended {
        Ok(status) => (status.success(), status.to_string()),
        Err(error) => (false, format!("{error:#}")),
    };
    tally.add(reader.finish(success, &how));
}

fn watch(command: &mut Command, reader: &mut Reader) -> Result<std::process::ExitStatus> {
    let shown = shell::show(command);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {shown}"))?;
    let stdout = child.stdout.take().context("no output")?;
    let mut last_sign = Instant::now();
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if reader.line(line.trim_end_matches('\r')) == Show::Line {
            shell::say(&line);
            last_sign = Instant::now();
        } else if last_sign.elapsed() > SIGN_OF_LIFE {
            shell::say(&format!("… {} tests so far", reader.ended()));
            last_sign = Instant::now();
        }
    }
    Ok(child.wait()?)
}

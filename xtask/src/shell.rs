//! Running programs and talking to the person at the terminal.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks talk to a person")]

use std::env;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// A line on standard output.
pub(crate) fn say(line: &str) {
    println!("{line}");
    // In a pipe the order against what child programs print matters, and so does seeing it at once.
    drop(stdout().flush());
}

/// The headline of a part of a task, with the seconds since the first.
pub(crate) fn headline(text: &str) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let seconds = FIRST.get_or_init(Instant::now).elapsed().as_secs();
    let after = if seconds == 0 { String::new() } else { format!(", after {seconds} s") };
    let (bold, plain) = if is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    say(&format!("\n{bold}==> {text}{after}{plain}"));
}

/// The one sentence that says why a task failed.
pub(crate) fn complain(text: &str) {
    eprintln!("error: {text}");
}

/// Asks a question that is answered by yes or no. Where nobody can answer, the answer is no.
pub(crate) fn agreed(question: &str) -> bool {
    if !can_ask() {
        return false;
    }
    print!("{question} [Y/n] ");
    drop(stdout().flush());
    let mut answer = String::new();
    match stdin().read_line(&mut answer) {
        Ok(1..) => matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes"),
        _ => false,
    }
}

/// Whether what we say goes to a terminal.
pub(crate) fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// Whether somebody is there to be asked.
pub(crate) fn can_ask() -> bool {
    stdin().is_terminal() && stdout().is_terminal() && !is_ci()
}

/// Whether this is a CI run, by the variable that all CI services set.
pub(crate) fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Runs a command whose output goes where ours goes; its failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// Runs a command and gives its standard output; its failure is an error with its last words.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed ({}): {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one would type it (near enough: for messages only).
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    // cargo gives its own full path in $CARGO.
    let name = if program.ends_with("bin/cargo") { OsStr::new("cargo") } else { program.as_os_str() };
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

//! Runs programs and talks to the user at the terminal.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "tasks talk to a person")]

use std::env;
use std::ffi::OsStr;
use std::io::{IsTerminal, Write, stdin, stdout};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Prints a line on standard output.
pub(crate) fn say(line: &str) {
    println!("{line}");
    // When standard output is a pipe, flushing preserves the order relative to the output of child programs
    // and shows the line immediately.
    drop(stdout().flush());
}

/// Prints the headline of a part of a task, with the number of seconds since the first headline.
pub(crate) fn headline(text: &str) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let seconds = FIRST.get_or_init(Instant::now).elapsed().as_secs();
    let after = if seconds == 0 { String::new() } else { format!(", after {seconds} s") };
    let (bold, plain) = if is_terminal() { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
    say(&format!("\n{bold}==> {text}{after}{plain}"));
}

/// Prints why a task failed, on standard error.
pub(crate) fn complain(text: &str) {
    eprintln!("error: {text}");
}

/// Asks a yes/no question. If nobody can answer, the answer is no.
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

/// Reports whether standard output is a terminal.
pub(crate) fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// Reports whether a user can be asked.
pub(crate) fn can_ask() -> bool {
    stdin().is_terminal() && stdout().is_terminal() && !is_ci()
}

/// Reports whether this is a CI run, by the variable that all CI services set.
pub(crate) fn is_ci() -> bool {
    env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false" && value != "0")
}

/// Runs a command that inherits the standard streams; its failure is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status = command.status().with_context(|| format!("cannot run {shown}"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// Runs a command and returns its standard output; its failure is an error that includes its standard error.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed ({}): {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the command line, without quoting: for messages only.
pub(crate) fn show(command: &Command) -> String {
    let program = Path::new(command.get_program());
    // cargo sets $CARGO to its own full path.
    let name = if program.ends_with("bin/cargo") { OsStr::new("cargo") } else { program.as_os_str() };
    let words = std::iter::once(name).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

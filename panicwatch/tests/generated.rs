//! Shell completions and manual pages: they contain every command, and the shell can load them.

use std::process::{Command, Output};

/// Every command of panicwatch.
const COMMANDS: [&str; 12] = [
    "run",
    "attach",
    "daemon",
    "trace",
    "init-trace",
    "inspect",
    "symbolize",
    "show",
    "top",
    "doctor",
    "completions",
    "man",
];

fn panicwatch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_panicwatch")).args(args).output().expect("panicwatch starts")
}

fn stdout(args: &[&str]) -> String {
    let output = panicwatch(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&["completions", shell]);
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
        assert!(script.contains("raised-by"), "{shell}: options");
    }
    assert_eq!(panicwatch(&["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn bash_takes_its_completions() {
    let dir = tempfile::tempdir().expect("a directory");
    let script = dir.path().join("panicwatch.bash");
    std::fs::write(&script, stdout(&["completions", "bash"])).expect("room");
    let ask = format!(
        ". {}; COMP_WORDS=(panicwatch sy); COMP_CWORD=1; _panicwatch panicwatch sy panicwatch; echo \"${{COMPREPLY[*]}}\"",
        script.display()
    );
    let output = Command::new("bash").args(["-c", &ask]).output().expect("bash is on every Debian");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "symbolize", "{output:?}");
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let page = stdout(&["man"]);
    assert!(page.contains(".TH panicwatch 1"), "{}", &page[..200]);
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().to_str().expect("UTF-8");
    assert_eq!(stdout(&["man", "--dir", folder]), "");
    for command in COMMANDS {
        let page = dir.path().join(format!("panicwatch-{command}.1"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for heading in ["SYNOPSIS", "EXAMPLES", "\"EXIT STATUS\"", "FILES", "ENVIRONMENT"] {
            assert_eq!(text.matches(&format!(".SH {heading}\n")).count(), 1, "{command}: {heading}");
        }
    }
    let whole = std::fs::read_to_string(dir.path().join("panicwatch.1")).expect("the page of panicwatch");
    assert_eq!(whole, page, "the printed page is the written one");
    assert_eq!(panicwatch(&["man", "--dir", "/does/not/exist"]).status.code(), Some(1));
}

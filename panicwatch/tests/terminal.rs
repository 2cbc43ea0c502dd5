//! No text from a file, a name or a server can control the terminal: every command that takes a file is given
//! hostile ones, and its output is searched for control characters. Line breaks too: none of the texts can
//! begin a line that looks like panicwatch's own.

#[path = "support/mod.rs"]
#[expect(dead_code, reason = "one fixture and one toolchain are enough here")]
mod support;

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
};

use panicwatch::escape;
use support::{fixture, toolchains};

/// Clears the screen, sets the title, begins a line, and contains C1 controls, right-to-left text, and
/// invalid UTF-8.
const HOSTILE: &[u8] = b"a\x1b[2J\x1b]0;title\x07\npanicwatch: forged\r\xc2\x9b31m\xe2\x80\xae\xff";

fn hostile(dir: &Path) -> PathBuf {
    dir.join(OsString::from_vec(HOSTILE.to_vec()))
}

fn run(args: &[&dyn AsRef<std::ffi::OsStr>]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panicwatch"));
    command.env("RUST_BACKTRACE", "0").args(args.iter().map(|arg| arg.as_ref()));
    command.output().expect("it starts")
}

/// Asserts that `output` has no unsafe character and no forged line. Returns standard error.
fn assert_tame(what: &str, output: &Output) -> String {
    for bytes in [&output.stdout, &output.stderr] {
        let text = std::str::from_utf8(bytes);
        let text =
            text.unwrap_or_else(|error| panic!("{what}: {error}: {:?}", String::from_utf8_lossy(bytes)));
        let found: Vec<char> = text.chars().filter(|c| *c != '\n' && escape::is_unsafe(*c)).collect();
        assert!(found.is_empty(), "{what}: {found:?} in {text:?}");
        assert!(!text.lines().any(|line| line.starts_with("panicwatch: forged")), "{what}: {text}");
    }
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs command lines that name a file, with `file` in place of FILE.
fn commands(file: &Path) -> Vec<(String, Output)> {
    let lines: &[&[&str]] = &[
        &["inspect", "FILE"],
        &["inspect", "--format", "json", "FILE"],
        &["symbolize", "FILE", "main.main"],
        &["symbolize", "FILE", "0x1"],
        &["symbolize", "--format", "json", "FILE", "main.main"],
        &["symbolize", "--kernel", "--vmlinux", "FILE", "0x1"],
        &["show", "FILE"],
        &["show", "--format", "json", "FILE"],
        &["show", "--daemon", "FILE", "01ARZ3NDEKTSV4RRFFQ69G5FAV"],
        &["run", "--dry-run", "FILE"],
        &["run", "FILE"],
        &["run", "-o", "FILE/no", "true"],
        &["run", "--debug-info", "FILE", "true"],
        &["attach", "--exe", "FILE", "--dry-run"],
        &["trace", "--dry-run", "main.*", "FILE"],
        &["trace", "FILE", "--exe", "FILE"],
        &["init-trace", "--dry-run", "FILE"],
        &["init-trace", "FILE"],
        &["init-trace", "-o", "FILE/no", "true"],
        &["daemon", "--check", "--config", "FILE"],
        &["daemon", "--check", "--state", "FILE"],
        &["daemon", "--config", "FILE"],
        &["top", "--once", "--daemon", "FILE"],
        &["top", "--once", "--token-file", "FILE"],
        &["man", "--dir", "FILE"],
        // Usage errors repeat the argument.
        &["FILE"],
        &["run", "--window", "FILE", "true"],
        &["inspect", "--pid", "FILE"],
    ];
    let outputs = lines.iter().map(|line| {
        let words: Vec<OsString> = line
            .iter()
            .map(|word| match word.strip_prefix("FILE") {
                Some(rest) => [file.as_os_str(), rest.as_ref()].into_iter().collect(),
                None => OsString::from(word),
            })
            .collect();
        let args: Vec<&dyn AsRef<std::ffi::OsStr>> = words.iter().map(|word| word as _).collect();
        (line.join(" "), run(&args))
    });
    outputs.collect()
}

/// Overwrites each occurrence of `from` with `to`, which has the same length.
fn patch(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while let Some(next) = bytes[at..].windows(from.len()).position(|w| w == from) {
        bytes[at + next..at + next + to.len()].copy_from_slice(to);
        at += next + to.len();
    }
    assert!(at > 0, "{from:?} is nowhere");
}

#[test]
fn names_of_files_that_are_absent() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut named = 0;
    for (line, output) in commands(&hostile(dir.path())) {
        named += usize::from(assert_tame(&line, &output).contains(r"a\x1b[2J\x1b]0;title\x07"));
    }
    assert!(named > 15, "only {named} commands name the file: do they get as far?");
}

#[test]
fn files_that_hold_hostile_text() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = hostile(dir.path());
    // A configuration, a document and a script; the configuration is TOML with invalid values and keys.
    let texts: [&[u8]; 3] = [
        b"[http]\nlisten = [\"\\u001b[2J\\u009b31m\"]\ntoken_file = \"/no\\u001b]0;x\\u0007\"\n\
          \"\\u001b[2J\" = 1\n[watch]\ninclude = [\"exe:\\u202e[\"]\n[store]\npath = \"/dev/null/\\u001b[2J\"\n",
        b"{\"schema\": \"\\u001b[2J\", \"id\": \"\\u009b\", \"kind\": \"\\u202e\"}\n",
        HOSTILE,
    ];
    for text in texts {
        fs::write(&file, text).expect("written");
        for (line, output) in commands(&file) {
            assert_tame(&line, &output);
        }
    }
}

#[test]
fn a_program_with_a_crafted_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(toolchain) = toolchains().pop() else {
        println!("SKIPPED a crafted version: no Go toolchain");
        return;
    };
    let plain = dir.path().join("plain");
    toolchain.build(&fixture("early"), &[], &plain);
    let file = hostile(dir.path());
    let mut bytes = fs::read(&plain).expect("it reads");
    let version = format!("go{}", toolchain.release);
    let crafted = format!("go9\x1b[2J{}", "\u{7}".repeat(version.len() - 7));
    patch(&mut bytes, version.as_bytes(), crafted.as_bytes());
    fs::write(&file, &bytes).expect("written");
    let outputs = commands(&file);
    for (line, output) in &outputs {
        assert_tame(line, output);
    }
    let told = outputs.iter().any(|(_, output)| {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        String::from_utf8_lossy(&text).contains(r"go9\x1b[2J\x07")
    });
    assert!(told, "the version is shown by none of them");
}

#[test]
fn what_a_server_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let bodies = ["{\"error\": \"\\u001b[2J\\u009bx\\nforged\"}", "\u{1b}]0;title\u{7}\u{9b}\u{202e}"];
        for (n, stream) in listener.incoming().enumerate() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.read(&mut [0; 4096]);
            let (body, status) = (bodies[n % 2], ["500 \u{1b}[2J", "200 OK"][n / 2 % 2]);
            let head =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + body).as_bytes());
        }
    });
    for _ in 0..4 {
        assert_tame("top", &run(&[&"top", &"--once", &"--daemon", &address]));
        assert_tame("show", &run(&[&"show", &"--daemon", &address, &"01ARZ3NDEKTSV4RRFFQ69G5FAV"]));
    }
}

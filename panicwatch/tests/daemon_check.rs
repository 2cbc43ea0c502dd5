//! `panicwatch daemon --check` reports what would keep a daemon from starting, before a running one is
//! stopped.

use std::{fs, process::Command};

fn check(configuration: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("panicwatch.toml");
    fs::write(&file, configuration).expect("written");
    let out = Command::new(env!("CARGO_BIN_EXE_panicwatch"))
        .args(["daemon", "--check", "--config"])
        .arg(&file)
        .output()
        .expect("panicwatch starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    match out.status.code() {
        Some(0) => Ok(text(out.stdout)),
        Some(1) => Err(text(out.stderr)),
        other => panic!("{other:?}: {}", text(out.stderr)),
    }
}

#[test]
fn a_sound_configuration_is_in_order() {
    assert!(check("").expect("in order").contains("valid"));
    let sample = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/panicwatch.toml"));
    assert!(check(&sample.expect("the sample")).is_ok());
}

/// All problems are reported at once, sorted by line: keys, values, and files and commands that are missing
/// on this machine.
#[test]
fn all_problems_at_once_with_their_lines() {
    let configuration = "[store]\npath = \"/dev/null/store\"\n[jsonl]\npath = \"/no/folder/lines\"\nkeep = \"x\"\n\
        [[hook]]\nname = \"a\"\ncommand = [\"/no/command\"]\n[[hook]]\nname = \"b\"\ncommand = [\"no-such-command\"]\n\
        [[hook]]\nname = \"c\"\nurl = \"https://box\"\nca_file = \"/no/ca.pem\"\n[http]\ntoken_file = \"/no/token\"\n\
        unix_socket = \"/no/folder/socket\"\n";
    let refused = check(configuration).expect_err("it is rejected");
    let lines: Vec<&str> = refused
        .lines()
        .filter_map(|line| line.split_once("panicwatch.toml:"))
        .map(|(_, rest)| rest)
        .collect();
    let expected = [
        (2, "/dev/null is not a directory"),
        (4, "there is no directory /no/folder"),
        (5, "jsonl.keep"),
        (8, "hook a: there is no command /no/command"),
        (11, "hook b: there is no command no-such-command in "),
        (12, "/no/ca.pem"),
        (17, "/no/token"),
        (18, "there is no directory /no/folder"),
    ];
    assert_eq!(lines.len(), expected.len(), "{refused}");
    for (line, (number, part)) in lines.iter().zip(expected) {
        assert!(
            line.starts_with(&format!("{number}: ")) && line.contains(part),
            "{number} {part}\n{refused}"
        );
    }
}

#[test]
fn what_cannot_work_is_said() {
    for (configuration, part) in [
        ("[http]\nlisten = [\"nowhere\"]", "not an address"),
        ("[watc]\n", "watch"),
        ("[http.tls]\ncert = \"/no/cert.pem\"\nkey = \"/no/key.pem\"", "/no/cert.pem"),
        ("[http]\ntoken_file = \"/no/token\"", "/no/token"),
        ("[otlp]\nendpoint = \"https://box\"\nca_file = \"/no/ca.pem\"", "/no/ca.pem"),
        ("[otlp]\nendpoint = \"http://box\"\n[otlp.headers]\n\"a b\" = \"x\"", "a b"),
        ("[otlp]\nendpoint = \"http://bo x\"", "endpoint must be a URL"),
        ("[[hook]]\nname = \"h\"\nurl = \"https://box\"\nca_file = \"/no/ca.pem\"", "/no/ca.pem"),
    ] {
        let refused = check(configuration).expect_err(configuration);
        assert!(refused.contains(part), "{configuration}\n{refused}");
    }
}

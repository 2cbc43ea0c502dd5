//! The command: what it prints, what it rejects, and that text from the binary cannot control the terminal.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    BUILD_INFO, PANICWATCH, json, patch, run,
    support::{fixture, toolchains},
};

fn refuses(args: &[&str], status: i32, words: &[&str]) {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}");
    if status != 2 {
        assert_eq!(text.trim_end().lines().count(), 1, "one sentence: {text}");
    }
    for word in words {
        assert!(text.contains(word), "{args:?}: {word:?} is not in {text:?}");
        assert_eq!(text.matches(word).count(), 1, "{args:?}: {word:?} once in {text:?}");
    }
}

#[test]
fn what_is_no_go_program_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let own = std::env::current_exe().expect("this test");
    let own = own.to_string_lossy();
    refuses(&[], 2, &["Usage"]);
    refuses(&[&own, "--pid", "1"], 2, &["Usage"]);
    refuses(&["/does/not/exist"], 1, &["/does/not/exist", "No such file"]);
    let place = dir.path().to_string_lossy().into_owned();
    refuses(&[&place], 1, &[&place, "it is a directory"]);
    refuses(&["/dev/null"], 1, &["/dev/null", "not a regular file"]);
    refuses(&[&own], 1, &[&own, "not a Go program"]);
    let path = dir.path().join("file");
    let name = path.to_string_lossy().into_owned();
    fs::write(&path, "#!/bin/sh\n").expect("written");
    refuses(&[&name], 1, &[&name, "ELF file"]);
    fs::write(&path, "").expect("written");
    refuses(&[&name], 1, &[&name, "ELF file"]);
    let Some(toolchain) = toolchains().pop() else {
        println!("SKIPPED truncated programs: no Go toolchain");
        return;
    };
    toolchain.build(&fixture("early"), &[], &path);
    let whole = fs::read(&path).expect("it reads");
    fs::write(&path, &whole[..5000]).expect("written");
    refuses(&[&name], 1, &[&name, "the file is truncated"]);
    for part in 0..40 {
        fs::write(&path, &whole[..whole.len() * part / 40]).expect("written");
        let output = run(&[&name]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{:?}", output.status);
    }
}

/// The documented fields exist and have their types.
#[test]
fn json_has_the_promised_shape() {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = dir.path().join("program");
    for toolchain in toolchains() {
        toolchain.build(&fixture("early"), &[], &exe);
        let facts = json(&exe);
        let is =
            |name: &str, right: fn(&Value) -> bool| assert!(right(&facts[name]), "{name}: {}", facts[name]);
        is("go_version", Value::is_string);
        is("module", |v| v.is_string() || v.is_null());
        is("dependencies", Value::is_array);
        is("settings", |v| v.as_object().is_some_and(|o| !o.is_empty() && o.values().all(Value::is_string)));
        is("arch", |v| v == "amd64");
        is("text_start", |v| v.as_str().is_some_and(|t| t.starts_with("0x")));
        is("functions", Value::is_u64);
        is("layout_source", |v| v == "table");
        for flag in ["pie", "cgo", "symbol_table", "dwarf", "watchable", "pclntab"] {
            is(flag, Value::is_boolean);
        }
        is("process", Value::is_null);
        for list in ["sections", "costs", "notes", "probes"] {
            is(list, Value::is_array);
        }
        let probes = facts["probes"].as_array().expect("probes");
        assert!(probes.len() > 10);
        for probe in probes {
            let placed = probe["placed"].as_bool().expect("placed");
            assert!(probe["name"].is_string() && probe["symbol"].is_string(), "{probe}");
            for name in ["address", "offset", "file_offset", "instruction", "price", "why"] {
                assert_eq!(probe[name].is_null(), !placed, "{name}: {probe}");
            }
            assert!(!placed || matches!(probe["price"].as_str(), Some("emulated" | "stepped")), "{probe}");
            assert_eq!(probe["reason"].is_string(), !placed, "{probe}");
            assert_eq!(probe["lost"].is_string(), !placed, "{probe}");
        }
    }
}

#[test]
fn the_binary_s_own_text_steers_no_terminal() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(toolchain) = toolchains().pop() else {
        println!("SKIPPED hostile build information: no Go toolchain");
        return;
    };
    let exe = dir.path().join("odd\x1b[2Jname");
    toolchain.build(&fixture("early"), &[], &exe);
    let mut bytes = fs::read(&exe).expect("it reads");
    patch(&mut bytes, BUILD_INFO, b"-compiler=gc", b"\x1b[2Jx=\x1b]0;a\x07");
    patch(&mut bytes, BUILD_INFO, b"GOOS=linux", b"GO\xe2\x80\xae=l\x07\x08u");
    fs::write(&exe, &bytes).expect("written");
    let output = run(&[&exe.to_string_lossy()]);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains(r"\x1b[2Jx=\x1b]0;a\x07"), "{text}");
    let unsafe_chars: Vec<char> =
        text.chars().filter(|c| *c != '\n' && panicwatch::escape::is_unsafe(*c)).collect();
    assert!(unsafe_chars.is_empty(), "{unsafe_chars:?}");
    assert_eq!(json(&exe)["settings"]["\x1b[2Jx"], "\x1b]0;a\x07", "JSON has it as it is");
}

#[test]
fn a_dry_run_shows_the_same_plan() {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = dir.path().join("program");
    for toolchain in toolchains() {
        toolchain.build(&fixture("early"), &[], &exe);
        let output =
            Command::new(PANICWATCH).args(["run", "--dry-run", "--"]).arg(&exe).output().expect("it starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains(&format!("go{}", toolchain.release)), "{text}");
        let facts = json(&exe);
        for probe in facts["probes"].as_array().expect("probes") {
            let words = ["name", "symbol", "price", "address", "why"].map(|name| probe[name].as_str());
            for word in words.into_iter().flatten().flat_map(str::split_whitespace) {
                assert!(text.contains(word), "{word:?} is not in {text}");
            }
        }
    }
}

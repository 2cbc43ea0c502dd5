//! `inspect`, compared with independent tools (go version -m, readelf, go tool objdump, /proc); its JSON, and
//! its messages about files that it cannot describe.

mod command;
mod policy;
mod process;
#[path = "../support/mod.rs"]
mod support;
mod tools;

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

/// Path of the panicwatch command under test.
const PANICWATCH: &str = env!("CARGO_BIN_EXE_panicwatch");

/// Runs `panicwatch inspect` with `args`.
fn run(args: &[&str]) -> Output {
    Command::new(PANICWATCH).arg("inspect").args(args).output().expect("panicwatch starts")
}

/// Returns the JSON of one file.
fn json(path: &Path) -> Value {
    let output = run(&[&path.to_string_lossy(), "--format", "json"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", path.display());
    assert!(errors.is_empty(), "{errors}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "one line");
    serde_json::from_str(&text).expect("JSON")
}

/// Parses an address such as "0x1f".
fn address(value: &Value) -> u64 {
    let text = value.as_str().unwrap_or_else(|| panic!("no address: {value}"));
    u64::from_str_radix(text.strip_prefix("0x").expect("0x"), 16).expect("hex")
}

/// Returns the standard output of a tool that must succeed; prints a skip and returns `None` if it is not
/// installed.
fn tool(name: &str, args: &[&str]) -> Option<String> {
    match Command::new(name).args(args).output() {
        Ok(output) => {
            assert!(output.status.success(), "{name} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Err(error) => {
            #[expect(clippy::print_stdout, reason = "a skip is said aloud")]
            {
                println!("SKIPPED comparison with {name}: {error}");
            }
            None
        }
    }
}

/// Overwrites the first `from` after `after` with `to`, which has the same length.
fn patch(bytes: &mut [u8], after: &[u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let find = |part: &[u8], what: &[u8]| part.windows(what.len()).position(|w| w == what);
    // Programs that read build information contain the magic as well, but only build information itself is
    // 16-aligned.
    let start = (0..bytes.len() / 16).map(|i| 16 * i).find(|at| bytes[*at..].starts_with(after));
    let start = start.expect("the place");
    let at = start + find(&bytes[start..], from).expect("the old text");
    bytes[at..at + to.len()].copy_from_slice(to);
}

/// Magic at the beginning of build information.
const BUILD_INFO: &[u8] = b"\xff Go buildinf:";

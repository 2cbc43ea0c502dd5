//! `panicwatch show` as users run it: every format of a stored incident, byte for byte; and documents that
//! are damaged, foreign or hostile. `UPDATE_EXPECT=1 cargo test --test show` rewrites the renderings.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const FORMATS: [(&str, &str); 6] = [
    ("text", "txt"),
    ("json", "json"),
    ("perfetto", "pftrace"),
    ("folded", "folded"),
    ("perf-script", "perf"),
    ("otlp", "otlp.json"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn sample(name: &str) -> PathBuf {
    root().join(format!("incidents/{name}.json"))
}

fn show(args: &[&str], input: Option<&[u8]>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panicwatch"));
    // Time zone, locale and terminal width must not affect the output.
    command.arg("show").args(args).env("TZ", "Asia/Kolkata").env("LC_ALL", "de_DE").env("COLUMNS", "50");
    let mut child = command
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("panicwatch starts");
    if let Some(bytes) = input {
        // The command may reject the input before it has read all of it.
        let _ = child.stdin.take().expect("a pipe").write_all(bytes);
    }
    child.wait_with_output().expect("it ends")
}

fn shown(args: &[&str], input: Option<&[u8]>) -> Vec<u8> {
    let out = show(args, input);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn refused(args: &[&str], input: Option<&[u8]>) -> String {
    let out = show(args, input);
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    assert!(out.stdout.is_empty(), "{args:?}");
    let text = String::from_utf8(out.stderr).expect("text");
    assert_eq!(text.lines().count(), 1, "one sentence: {text}");
    text
}

#[test]
fn every_format_to_the_byte() {
    let path = sample("slow_read");
    let path = path.to_str().expect("a path");
    for (format, ending) in FORMATS {
        let expected = root().join(format!("shown/slow_read.{ending}"));
        let bytes = shown(&[path, "--format", format], None);
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::create_dir_all(root().join("shown")).expect("a folder");
            std::fs::write(&expected, &bytes).expect("writes");
        }
        assert!(
            std::fs::read(&expected).expect("a rendering") == bytes,
            "{format} differs from {}",
            expected.display()
        );
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("out");
        shown(&[path, "--format", format, "-o", file.to_str().expect("a path")], None);
        assert!(std::fs::read(&file).expect("a file") == bytes, "{format}: -o differs");
        let stdin = std::fs::read(path).expect("a sample");
        assert!(shown(&["-", "--format", format], Some(&stdin)) == bytes, "{format}: standard input differs");
    }
}

#[test]
fn json_is_the_document() {
    for name in ["slow_read", "hostile", "recovered"] {
        let text =
            String::from_utf8(shown(&[sample(name).to_str().expect("a path"), "--format", "json"], None))
                .expect("UTF-8");
        let own: Value = serde_json::from_str(&text).expect("JSON");
        let document: Value =
            serde_json::from_slice(&std::fs::read(sample(name)).expect("a sample")).expect("JSON");
        assert_eq!(own, document, "{name}");
        assert!(
            !text.contains(|c| c != '\n' && panicwatch::escape::is_unsafe(c)),
            "{name} steers a terminal"
        );
    }
}

#[test]
fn one_of_several() {
    let line = |id: &str| {
        let text = std::fs::read(sample("recovered")).expect("a sample");
        let mut value: Value = serde_json::from_slice(&text).expect("JSON");
        value["id"] = id.into();
        value.to_string() + "\n"
    };
    let lines = [line("AAA"), line("BBB"), line("CCC")].concat();
    let text = |args: &[&str]| String::from_utf8(shown(args, Some(lines.as_bytes()))).expect("text");
    assert!(text(&["-"]).contains("incident CCC,"));
    assert!(text(&["-", "--index", "1"]).contains("incident AAA,"));
    assert!(text(&["-", "--id", "BBB"]).contains("incident BBB,"));
    let out = show(&["-"], Some(lines.as_bytes()));
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "panicwatch: - has 3 incidents, this is the last; to show another, use --index or --id\n"
    );
    assert!(refused(&["-", "--id", "DDD"], Some(lines.as_bytes())).contains("no incident has the ID DDD"));
    assert_eq!(show(&["-", "--id", "A", "--index", "1"], Some(b"")).status.code(), Some(2));
}

#[test]
fn what_cannot_be_shown_is_said() {
    assert!(refused(&["/no/such/file"], None).contains(
        "there is no file /no/such/file, and it is not an incident ID; give a file that -o of run or attach wrote"
    ));
    assert!(refused(&["/"], None).contains("cannot read /"));
    assert!(refused(&["-"], Some(b"")).contains("-: it is empty"));
    assert!(refused(&["-"], Some(b"panic: oh\n")).contains("it holds no incident documents"));
    assert!(
        refused(&["-"], Some(b"{\"schema\":\"panicwatch.incident/2\"}"))
            .contains("reads panicwatch.incident/1")
    );
    assert!(refused(&["-"], Some(b"\xff\xfe\x00")).contains("it holds no incident documents"));
    let half = std::fs::read(sample("slow_read")).expect("a sample");
    assert!(refused(&["-"], Some(&half[..half.len() / 2])).contains("EOF while parsing"));
    for format in ["perfetto", "folded", "perf-script"] {
        let text = refused(&[sample("recovered").to_str().expect("a path"), "--format", format], None);
        assert!(text.contains("the incident has no timeline"), "{text}");
    }
}

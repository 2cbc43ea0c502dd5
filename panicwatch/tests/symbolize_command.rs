//! `panicwatch symbolize` as users run it: its output and its errors.

mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use support::{Toolchain, fixture, toolchains};

fn panicwatch(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_panicwatch"));
    command.arg("symbolize").args(args);
    command
}

fn run(args: &[&str], input: &str) -> Output {
    let mut command = panicwatch(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("panicwatch starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn stdout(args: &[&str], input: &str) -> String {
    let output = run(args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns the only line of standard error after checking the exit status.
fn refusal(args: &[&str], status: i32) -> String {
    let output = run(args, "");
    assert_eq!(output.status.code(), Some(status), "{args:?}");
    assert!(output.stdout.is_empty(), "{args:?}");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    text
}

/// A running program, and the return addresses and frames that the runtime printed.
struct Running {
    child: Child,
    pcs: Vec<String>,
    frames: Vec<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("it ends");
    }
}

fn start(path: &Path) -> Running {
    let mut child =
        Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let said = BufReader::new(child.stdout.take().expect("piped")).lines();
    let said: Vec<String> = said.map(|line| line.expect("UTF-8")).take_while(|line| line != "done").collect();
    let of = |kind: &str| said.iter().filter_map(|l| l.strip_prefix(kind)).map(str::to_owned).collect();
    Running { pcs: of("pc "), frames: of("frame "), child }
}

fn built(toolchain: &Toolchain, flags: &[&str], dir: &Path) -> std::path::PathBuf {
    let exe = dir.join("addresses");
    toolchain.build(&fixture("addresses"), flags, &exe);
    exe
}

/// Returns the frames of `answers` (JSON lines) in the form of `runtime.CallersFrames`, which leaves out
/// compiler-generated wrappers.
fn frames(answers: &str) -> Vec<String> {
    let mut out = Vec::new();
    for line in answers.lines() {
        let answer: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(answer["reason"], Value::Null, "{line}");
        for frame in answer["frames"].as_array().expect("frames") {
            let text = |key: &str| frame[key].as_str().expect("text").to_owned();
            out.push(format!("{} {} {}", text("function"), text("file"), frame["line"]));
        }
    }
    out
}

#[test]
fn return_addresses_of_a_running_process_as_the_runtime_says() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        for flags in [&[][..], &["-buildmode=pie"], &["-ldflags=-s -w"]] {
            let exe = built(&toolchain, flags, dir.path());
            let running = start(&exe);
            assert!(running.pcs.len() >= 4, "{:?}", running.pcs);
            let pid = running.child.id().to_string();
            let mut args = vec!["--pid", &pid, "--return", "--format", "json"];
            let input: String = running.pcs.iter().map(|pc| format!("{pc}\n")).collect();
            let given = frames(&stdout(&args, &input));
            // runtime.Callers also returns a pc for each inlined call (since Go 1.21 one more than the code
            // has), so only the first occurrence of each frame is compared, in order.
            let once = |frames: &[String]| {
                let mut seen = Vec::new();
                for frame in frames {
                    if !seen.contains(frame) {
                        seen.push(frame.clone());
                    }
                }
                seen
            };
            assert_eq!(once(&given), once(&running.frames), "go1.{} {flags:?}", toolchain.version().minor());
            // The same with the addresses as arguments.
            args.extend(running.pcs.iter().map(String::as_str));
            assert_eq!(frames(&stdout(&args, "")), given);
        }
    }
}

#[test]
fn a_position_independent_program_that_is_gone_by_its_load_address() {
    let dir = tempfile::tempdir().expect("a directory");
    let found = toolchains();
    let toolchain = found.last().expect("a toolchain");
    let exe = built(toolchain, &["-buildmode=pie"], dir.path());
    let running = start(&exe);
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", running.child.id())).expect("maps");
    let base =
        maps.lines().find(|l| l.ends_with("/addresses")).and_then(|l| l.split('-').next()).expect("mapped");
    let pc = &running.pcs[0];
    let exe = exe.to_str().expect("UTF-8");
    let line = stdout(&[exe, "--return", "--load-address", base, pc], "");
    let first = running.frames[0].split(' ').next().expect("a function");
    assert!(line.contains(first), "{line} {first}");
    // As in systemd-coredump's output: an offset from the start of the mapping.
    let address = u64::from_str_radix(pc.trim_start_matches("0x"), 16).expect("hex");
    let offset = address - u64::from_str_radix(base, 16).expect("hex");
    let by_file = stdout(&[exe, "--return", &format!("({exe} + {offset:#x})")], "");
    let words = |text: &str| text.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(&by_file), words(&line));
    // Without either, the output has a hint.
    let line = stdout(&[exe, pc], "");
    assert!(line.contains("?? outside") && line.contains("--load-address"), "{line}");
}

#[test]
fn functions_with_offsets_instructions_and_what_raises() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        let exe = built(&toolchain, &[], dir.path());
        let exe = exe.to_str().expect("UTF-8");
        let line = stdout(&[exe, "main.main+0x4"], "");
        assert!(line.contains("main.main+0x4 ") && line.contains("addresses/main.go:4"), "{line}");
        let asm = stdout(&[exe, "--asm", "main.main"], "");
        assert!(asm.contains("▶") && asm.contains("func main() {"), "{asm}");
        let answer: Value =
            serde_json::from_str(&stdout(&[exe, "--asm", "--format", "json", "main.bill"], ""))
                .expect("JSON");
        let marked: Vec<_> = answer["instructions"]
            .as_array()
            .expect("instructions")
            .iter()
            .filter(|i| i["marked"] == true)
            .collect();
        assert_eq!(marked.len(), 1);
        assert_eq!(marked[0]["address"], answer["address"]);
        let raised = stdout(&[exe, "--raised-by", "fmt.(*fmt).fmtInteger"], "");
        assert!(raised.contains("unknown base") && raised.contains("index out of range"), "{raised}");
    }
}

#[test]
fn what_cannot_be_resolved_is_said_in_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    let found = toolchains();
    let exe = built(found.last().expect("a toolchain"), &[], dir.path());
    let exe = exe.to_str().expect("UTF-8");
    let text = stdout(&[exe], "0x1\nmain.nothing\nmain.main+0xfffff\nmain.main+\n\nmain.main\n");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 5, "{text}");
    assert!(lines[0].starts_with("0x1 ?? outside the program's code"), "{text}");
    assert_eq!(lines[1], r#"main.nothing ?? the program has no function "main.nothing""#);
    assert!(lines[2].starts_with("main.main+0xfffff ?? main.main has only 0x"), "{text}");
    assert!(lines[3].starts_with("main.main+ ?? \"main.main+\" is neither"), "{text}");
    assert!(lines[4].contains(" main.main+0x0 "), "{text}");
    let json = stdout(&[exe, "--format", "json", "main.nothing"], "");
    let answer: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(answer["address"], "main.nothing");
    assert_eq!(answer["frames"], Value::Array(vec![]));
    assert!(answer["reason"].as_str().is_some_and(|r| r.contains("no function")), "{json}");
}

#[test]
fn one_sentence_when_it_cannot_be_done() {
    assert!(refusal(&["/does/not/exist", "0x1"], 1).contains("/does/not/exist"));
    assert!(refusal(&["/bin/sh", "0x1"], 1).contains("not a Go program"));
    assert!(refusal(&["/tmp", "0x1"], 1).contains("directory"));
    assert!(refusal(&["--pid", "99999999", "0x1"], 1).contains("99999999"));
    assert!(refusal(&["--kernel", "--vmlinux", "/bin/sh", "0x1"], 1).contains("/bin/sh"));
    assert_eq!(run(&[], "").status.code(), Some(2));
    assert_eq!(run(&["--kernel", "--asm", "0x1"], "").status.code(), Some(2));
}

/// To panicwatch, a kernel image is an ELF file with a symbol `_stext` and debug information.
#[test]
fn files_and_lines_of_the_kernel_from_its_image() {
    let kallsyms = std::fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let stext = kallsyms.lines().find(|l| l.ends_with(" _stext")).and_then(|l| l.split(' ').next());
    let Some(stext) = stext.and_then(|a| u64::from_str_radix(a, 16).ok()).filter(|a| *a != 0) else {
        println!("SKIPPED the kernel's image: /proc/kallsyms shows no addresses to this user");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (source, image) = (dir.path().join("image.c"), dir.path().join("vmlinux"));
    std::fs::write(
        &source,
        "__asm__(\".globl _stext; _stext:\");\nstatic inline __attribute__((always_inline)) int twice(int x) {\n  \
         return x * *(volatile int *)2;\n}\nint first(int x) {\n  return twice(x) + 1;\n}\n",
    )
    .expect("room");
    let built = Command::new("gcc")
        .args([
            "-O2",
            "-g",
            "-fno-toplevel-reorder",
            "-nostdlib",
            "-Wl,--entry=first",
            "-Wl,--build-id=none",
            "-o",
        ])
        .arg(&image)
        .arg(&source)
        .output();
    let Some(built) = built.ok().filter(|o| o.status.success()) else {
        println!("SKIPPED the kernel's image: gcc cannot build one here");
        return;
    };
    drop(built);
    // Whatever the running kernel has at these addresses, `first` begins at _stext or a few bytes after it.
    let image = image.to_str().expect("UTF-8");
    let mut found = false;
    for offset in 0..24 {
        let address = format!("{:#x}", stext + offset);
        let text = stdout(&["--kernel", "--vmlinux", image, &address], "");
        found |= text.contains("twice (inlined)") && text.contains("image.c:3") && text.contains("image.c:6");
    }
    assert!(found, "no address has the inlined function");
}

/// A user who types an address gets the answer before typing the next one.
#[test]
fn an_answer_comes_before_the_next_question() {
    let dir = tempfile::tempdir().expect("a directory");
    let found = toolchains();
    let exe = built(found.last().expect("a toolchain"), &[], dir.path());
    let exe = exe.to_str().expect("UTF-8");
    for args in [&[exe][..], &[exe, "--format", "json"], &[exe, "--asm"]] {
        let mut child =
            panicwatch(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("panicwatch starts");
        let mut stdin = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped")).lines();
        stdin.write_all(b"main.main\n").expect("it reads");
        // Standard input is still open.
        let first = answers.next().expect("an answer").expect("UTF-8");
        assert!(first.contains("main.main"), "{args:?}: {first}");
        drop(stdin);
        assert!(child.wait().expect("it ends").success());
    }
}

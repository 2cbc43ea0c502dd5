//! `inspect --pid` on processes of this test: where the binary is mapped, even if its file is gone.

use std::{
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use panicwatch::{gobin::GoBinary, host::procfs, mappings};
use serde_json::Value;

use crate::{
    PANICWATCH, address, run,
    support::{fixture, toolchains},
};

/// A running program; dropping the value kills it.
struct Running(Child);

impl Running {
    fn start(exe: &Path) -> Self {
        use std::io::{BufRead as _, BufReader};
        let mut child = Command::new(exe).arg("10m").stdout(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("it writes");
        assert_eq!(line, "ready\n");
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn json_of(pid: u32) -> Value {
    let output = run(&["--pid", &pid.to_string(), "--format", "json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn where_a_process_has_its_binary() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        for (mode, flags) in [
            ("default", &[][..]),
            ("pie", &["-buildmode=pie"]),
            ("external pie", &["-buildmode=pie", "-ldflags=-linkmode=external"]),
        ] {
            let what = format!("go{} {mode}", toolchain.release);
            let exe = dir.path().join("ticker");
            toolchain.build(&fixture("ticker"), flags, &exe);
            let bin = panicwatch::gobin::open(&exe).expect("a Go binary");
            let process = Running::start(&exe);
            let facts = json_of(process.pid());
            let there = &facts["process"];
            assert_eq!(there["pid"], process.pid(), "{what}");
            assert_eq!(there["deleted"], false, "{what}");
            let (bias, text) = (address(&there["load_bias"]), address(&there["text_start"]));
            assert_eq!(text - bias, bin.text_start(), "{what}");
            assert_eq!(bias != 0, mode.contains("pie"), "{what}: {bias:#x}");
            check_memory(&bin, process.pid(), text, &what);
            // The library finds the mappings by name and by inode.
            let mut exe = procfs::executable(process.pid()).expect("readable");
            let maps = procfs::maps(process.pid()).expect("readable");
            assert_eq!(mappings::load_bias(&bin, &maps, &exe.file), Some(bias), "{what}");
            exe.file.path = "/elsewhere".to_owned();
            assert_eq!(mappings::load_bias(&bin, &maps, &exe.file), Some(bias), "{what}: by inode");
            exe.file.inode += 1;
            assert_eq!(mappings::load_bias(&bin, &maps, &exe.file), None, "{what}: no such file");
            let libc = there["mapped"].as_array().expect("a list").iter().any(|m| {
                m["path"].as_str().is_some_and(|path| path.contains("libc")) && m["go_version"].is_null()
            });
            assert_eq!(libc, mode.contains("external"), "{what}: {}", there["mapped"]);
        }
    }
}

/// Checks that the memory at the address contains the program's code.
fn check_memory(bin: &GoBinary, pid: u32, text: u64, what: &str) {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).expect("own child");
    let mut there = vec![0; 4096];
    memory.read_exact_at(&mut there, text).expect("mapped");
    let ours = bin.code(bin.text_start(), bin.text_start() + 4096).expect("in the file");
    assert!(there == ours, "{what}: other bytes at {text:#x}");
}

#[test]
fn a_binary_that_was_deleted_or_replaced_is_still_what_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(toolchain) = toolchains().pop() else {
        println!("SKIPPED deleted binaries: no Go toolchain");
        return;
    };
    let exe = dir.path().join("ticker");
    toolchain.build(&fixture("ticker"), &["-buildmode=pie"], &exe);
    let process = Running::start(&exe);
    let before = json_of(process.pid());
    fs::remove_file(&exe).expect("removed");
    fs::write(&exe, "another file").expect("written");
    let after = json_of(process.pid());
    assert_eq!(after["process"]["deleted"], true);
    for same in ["go_build_id", "functions", "probes", "go_version"] {
        assert_eq!(before[same], after[same], "{same}");
    }
    assert_eq!(before["process"]["load_bias"], after["process"]["load_bias"]);
    let output = run(&["--pid", &process.pid().to_string()]);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("deleted or replaced"), "{text}");
}

fn refuses(output: &std::process::Output, status: i32, words: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(text.trim_end().lines().count(), 1, "one sentence: {text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in {text:?}");
    }
}

#[test]
fn processes_that_cannot_be_described() {
    // Larger than any possible pid_max.
    refuses(&run(&["--pid", "99999999"]), 1, &["there is no process 99999999"]);
    let own = std::process::id().to_string();
    refuses(&run(&["--pid", &own]), 1, &[&own, "not a Go program"]);
    let mut ended = Command::new("/bin/true").spawn().expect("it starts");
    // Until it is waited for, the process exists but has no executable.
    let stat = format!("/proc/{}/stat", ended.id());
    while !fs::read_to_string(&stat).expect("it is there").contains(") Z ") {
        std::thread::yield_now();
    }
    refuses(&run(&["--pid", &ended.id().to_string()]), 1, &["has no executable"]);
    ended.wait().expect("it ended");
}

#[test]
fn processes_of_another_user() {
    // SAFETY: a system call without arguments.
    let root = unsafe { libc::geteuid() } == 0;
    let dir = tempfile::tempdir().expect("a directory");
    let mut command;
    if root {
        if Command::new("setpriv").arg("--version").output().is_err() {
            println!("SKIPPED another user's process: no setpriv");
            return;
        }
        // The build directory may be closed to other users.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("open");
        let copy = dir.path().join("panicwatch");
        fs::copy(PANICWATCH, &copy).expect("copied");
        command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all", "--"])
            .arg(copy);
    } else {
        command = Command::new(PANICWATCH);
    }
    let output = command.args(["inspect", "--pid", "1"]).output().expect("it starts");
    refuses(&output, 3, &["process 1 ", "another user", "CAP_SYS_PTRACE"]);
}

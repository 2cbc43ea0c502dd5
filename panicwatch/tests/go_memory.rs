//! Data other than values that is read from a live program's memory: labels, the package being initialized,
//! and pending deferred calls.

mod support;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use object::{Object, ObjectSegment};
use panicwatch::{
    defers::{self, Storage},
    gobin::GoBinary,
    inittasks::{self, Progress},
    memory::{Memory, Snapshot},
    traceback::{DEFAULT_MAX_FRAMES, End, Stack, Start, Unwinder},
    value,
};

/// atomicstatus of a waiting goroutine (_Gwaiting).
const GWAITING: u32 = 4;

/// A program that waits for input, and its memory.
struct Waiting {
    child: Child,
    memory: File,
    output: BufReader<ChildStdout>,
    /// First line that the program printed.
    line: String,
}

impl Waiting {
    fn start(exe: &Path, arg: &str) -> Self {
        let mut child = Command::new(exe)
            .arg(arg)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("fixture starts");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        output.read_line(&mut line).expect("a line");
        let memory = File::open(format!("/proc/{}/mem", child.id())).expect("own child's memory opens");
        Self { child, memory, output, line }
    }

    /// Lets the program continue, and returns the lines it prints.
    fn go_on(&mut self) -> Vec<String> {
        self.child.stdin.take().expect("piped").write_all(b"\n").expect("it reads");
        (&mut self.output).lines().map(|line| line.expect("UTF-8")).collect()
    }

    /// Returns the load bias: run-time address minus link-time address.
    fn bias(&self, binary: &GoBinary) -> u64 {
        if !binary.is_pie() {
            return 0;
        }
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id())).expect("maps read");
        let line =
            maps.lines().find(|line| line.contains(" 00000000 ") && line.contains('/')).expect("mapped");
        let start = u64::from_str_radix(line.split('-').next().expect("an address"), 16).expect("hex");
        let file = object::File::parse(binary.file_bytes()).expect("ELF parses");
        start - file.segments().map(|s| s.address()).min().expect("a segment")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Memory for Waiting {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        self.memory.read_exact_at(buf, addr).is_ok()
    }
}

#[test]
fn labels_are_those_that_were_set() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for toolchain in support::toolchains() {
        let exe = dir.path().join(toolchain.release);
        let flags: &[&str] =
            if toolchain.version().linker_checks_linknames() { &["-ldflags=-checklinkname=0"] } else { &[] };
        toolchain.build(&support::fixture("labelwords"), flags, &exe);
        // Maps grow at 9, 14, 27, 53 … entries, and take a while to evacuate.
        for n in (0..32).chain([53, 54, 105, 108, 150]) {
            let program = Waiting::start(&exe, &n.to_string());
            let word = u64::from_str_radix(program.line.trim(), 16).expect("hex word");
            let expected: BTreeMap<String, String> =
                (0..n).map(|i| (format!("key {i}"), format!("value {i}"))).collect();
            let labels = value::labels(&program, toolchain.version(), word);
            assert_eq!(labels, (expected, None), "go{} with {n} labels", toolchain.release);
        }
        println!("go{}: labels right", toolchain.release);
    }
}

#[test]
fn the_package_under_initialisation_is_known() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for toolchain in support::toolchains() {
        for mode in ["exe", "pie"] {
            let exe = dir.path().join(toolchain.release);
            toolchain.build(&support::fixture("inits"), &[&format!("-buildmode={mode}")], &exe);
            let binary = panicwatch::gobin::open(&exe).expect("a Go binary");
            let at = |place| {
                let program = Waiting::start(&exe, place);
                assert_eq!(program.line, "waiting\n");
                let bias = program.bias(&binary);
                inittasks::progress(&program, &binary, bias).expect("tasks read")
            };
            for (place, package, functions) in [
                ("sub", "/inits/sub.v2", "init.0"),
                ("main-variable", "main", "init"),
                ("main-init", "main", "init.0"),
                ("main-second", "main", "init.1"),
            ] {
                let Progress { running, done } = at(place);
                let task = running.unwrap_or_else(|| panic!("go{} {mode} {place}: none", toolchain.release));
                assert!(task.package.ends_with(package), "go{} {place}: {task:?}", toolchain.release);
                let named = task.functions.iter().any(|f| f.ends_with(&format!(".{functions}")));
                assert!(named, "go{} {place}: {task:?}", toolchain.release);
                assert_eq!(done.is_some(), toolchain.version().has_init_task_list());
                assert!(done.is_none_or(|(done, all)| done < all && all > 3), "{done:?}");
            }
            let after = at("main");
            assert_eq!(after.running, None, "go{} {mode}", toolchain.release);
            assert!(after.done.is_none_or(|(done, all)| done == all), "{after:?}");
        }
        println!("go{}: init tasks right", toolchain.release);
    }
}

#[test]
fn pending_deferred_calls_are_those_that_then_run() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for toolchain in support::toolchains() {
        for flags in [&["-buildmode=exe"][..], &["-buildmode=pie"], &["-gcflags=all=-N -l"]] {
            let what = format!("go{} {flags:?}", toolchain.release);
            let exe = dir.path().join(toolchain.release);
            toolchain.build(&support::fixture("defers"), flags, &exe);
            let binary = panicwatch::gobin::open(&exe).expect("a Go binary");
            let mut program = Waiting::start(&exe, "x");
            // Skips the deferred calls that ran before the program began to wait.
            while program.line.starts_with("main.") {
                program.line.clear();
                program.output.read_line(&mut program.line).expect("a line");
            }
            let g = u64::from_str_radix(program.line.trim(), 16).expect("address of g");
            let bias = program.bias(&binary);
            let layout = binary.layout().g;
            // The goroutine may still be about to block on its channel.
            let status = g + u64::from(binary.layout().g.atomicstatus);
            let start = Instant::now();
            while program.u32(status).expect("g reads") & 0xfff != GWAITING {
                assert!(start.elapsed().as_secs() < 20, "{what}: the goroutine never waits");
                std::thread::sleep(Duration::from_millis(1));
            }
            let word = |off: u16| program.u64(g + u64::from(off)).expect("g reads");
            let start = Start::returning_to(word(layout.sched_pc), word(layout.sched_sp));
            let stack = Stack { bin: &binary, bias, memory: &program };
            let mut unwinder = Unwinder::new(&stack, start, DEFAULT_MAX_FRAMES);
            let frames: Vec<_> = unwinder.by_ref().map(defers::Activation::from).collect();
            let end = unwinder.end();
            let walked = end == Some(End::TopFrame);
            let first = word(layout.defer);
            let pending = defers::pending(&program, &binary, bias, first, frames, walked);
            assert_eq!(pending.incomplete, None, "{what}: {end:?}");
            let names: Vec<String> = pending
                .calls
                .iter()
                .map(|call| {
                    let pc = call.pc.expect("closure reads") - bias;
                    binary.find_func(pc).expect("a function").name().into_owned()
                })
                .collect();
            let stored = |storage| pending.calls.iter().filter(|call| call.storage == storage).count();
            let open_coded = if flags[0].starts_with("-gcflags") { 0 } else { 7 };
            assert!(stored(Storage::OpenCoded) >= open_coded, "{what}: {:?}", pending.calls);
            assert_eq!(
                stored(Storage::RangeFunc) > 5,
                toolchain.version().has_range_over_func(),
                "{what}: {:?}",
                pending.calls
            );
            assert!(stored(Storage::Heap) >= 3 && stored(Storage::Stack) >= 1, "{what}");
            let registered = |call: &defers::Pending| binary.find_func(call.registered_by - bias).is_some();
            assert!(pending.calls.iter().all(registered), "{what}");

            // The last pending call closes the worker's channel and prints nothing.
            let ran = program.go_on();
            let (last, printing) = names.split_last().expect("some");
            assert_eq!(printing, ran, "{what}: then {last}");
            println!("{what}: {} pending, right", names.len());
        }
    }
}

/// Memory in which every address is readable and no content makes sense.
struct Noise(u64);

impl Memory for Noise {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        for (i, byte) in buf.iter_mut().enumerate() {
            let x = (addr.wrapping_add(i as u64) ^ self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            *byte = if x & 0x300_0000 == 0 { (x >> 56) as u8 } else { (x >> 60) as u8 & 1 };
        }
        true
    }
}

#[test]
fn damaged_memory_ends_soon() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for toolchain in support::toolchains() {
        let exe = dir.path().join(toolchain.release);
        toolchain.build(&support::fixture("defers"), &[], &exe);
        let binary = panicwatch::gobin::open(&exe).expect("a Go binary");
        let func = binary.function("main.openCoded").expect("a function with open-coded defers");
        let start = Instant::now();
        let (mut refused, mut incomplete) = (0, 0);
        for seed in 0..200 {
            let memory = Noise(seed);
            refused += usize::from(inittasks::progress(&memory, &binary, seed << 12).is_err());
            let frame = defers::Activation { func, sp: seed << 4, fp: (seed << 4) + 256 };
            let pending = defers::pending(&memory, &binary, 0, seed << 8 | 8, [frame, frame], true);
            incomplete += usize::from(pending.incomplete.is_some());
            let _ = value::labels(&memory, toolchain.version(), seed);
        }
        assert!(refused + incomplete > 0, "go{}: noise makes sense", toolchain.release);
        assert!(start.elapsed().as_secs() < 300, "go{}: {:?}", toolchain.release, start.elapsed());

        // A linked list of records that leads back to its start.
        let layout = binary.layout().defer;
        // Longer than a _defer of any release.
        let mut record = vec![0; 256];
        let at = 0x1000_u64;
        let link = usize::from(layout.link);
        record[link..link + 8].copy_from_slice(&at.to_le_bytes());
        let mut memory = Snapshot::new();
        memory.add(at, record);
        let pending = defers::pending(&memory, &binary, 0, at, [], true);
        assert!(pending.incomplete.is_some(), "go{}: {} calls", toolchain.release, pending.calls.len());

        // Without any captured memory, the result has a reason.
        let nothing = Snapshot::new();
        let pending = defers::pending(&nothing, &binary, 0, at, [], true);
        assert!(pending.calls.is_empty() && pending.incomplete.is_some());
        assert!(inittasks::progress(&nothing, &binary, 0).is_err());
    }
}

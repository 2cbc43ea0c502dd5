//! Addresses of real binaries, compared with Go's own tools: `go tool addr2line` and `go tool objdump`.
//!
//! Inlined frames are tested in `gobin`, against the runtime's own answers; this test covers sizes and shapes
//! of binaries: Go's own tools of every release, and large Debian programs, stripped and linked by gcc.

mod support;

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use panicwatch::{
    gobin::GoBinary,
    symbolize::{Lookup, Symbolizer, batch::Batch, text},
};
use support::{Toolchain, cache, fixture, skip, toolchains};

/// Addresses compared per binary.
const SAMPLE: u64 = 24_000;

/// Pseudo-random numbers that are the same every time (splitmix64).
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    (1u64..).map(move |i| {
        let mut z = seed.wrapping_add(i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    })
}

/// Returns a program of a Debian package, unpacked by `cargo xtask setup` or installed; otherwise prints a
/// skip.
fn debian_program(name: &str) -> Option<PathBuf> {
    let unpacked = fs::read_dir(cache().join("debian")).into_iter().flatten().flatten();
    let roots = unpacked.map(|entry| entry.path()).chain([PathBuf::from("/")]);
    let places: Vec<_> =
        roots.flat_map(|root| ["usr/sbin", "usr/bin"].map(|dir| root.join(dir).join(name))).collect();
    let found = places.iter().find(|place| place.is_file()).cloned();
    if found.is_none() {
        skip(name, &places);
    }
    found
}

/// Returns Go's own programs in a toolchain.
fn tools(toolchain: &Toolchain) -> Vec<PathBuf> {
    let root = toolchain.go.parent().and_then(Path::parent).expect("GOROOT");
    vec![root.join("bin/go"), root.join("pkg/tool/linux_amd64/compile")]
}

/// Runs a command with `input` as its standard input and returns its output.
fn ask(command: &mut Command, input: String) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    let feeder = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("it ends");
    feeder.join().expect("no panic").expect("it reads all");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Compares a sample of the binary's code with the answers of `oracle` for the addresses: one line with the
/// function and one with file and line. Returns the number of addresses compared.
fn compare(bin: &GoBinary, path: &Path, oracle: &dyn Fn(String) -> String) -> usize {
    let (lo, hi) = (bin.moduledata().text, bin.moduledata().etext);
    let sample: Vec<u64> = numbers(lo).take(SAMPLE as usize).map(|n| lo + n % (hi - lo)).collect();
    let asked = sample.iter().fold(String::new(), |mut text, pc| {
        let _ = writeln!(text, "{pc:#x}");
        text
    });
    let answers = oracle(asked);
    let mut answers = answers.lines();
    let mut compared = 0;
    for pc in &sample {
        let theirs = (answers.next().expect("a function"), answers.next().expect("a line"));
        if is_foreign(bin, *pc) {
            continue;
        }
        compared += 1;
        let frames = bin.frames(*pc, true);
        let (Some(inner), Some(outer)) = (frames.first(), frames.last()) else {
            panic!("{} {pc:#x}: nothing, not {theirs:?}", path.display())
        };
        let place = match (&inner.file, inner.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            // Padding after a function.
            _ => ":-1".to_owned(),
        };
        assert_eq!((outer.raw_name.as_ref(), place.as_str()), theirs, "{} {pc:#x}", path.display());
    }
    assert!(compared > 20_000, "{}: {compared} addresses", path.display());
    compared
}

/// Reports whether `pc` is in C code: pclntab has its name but no lines, and Go's tools (not the runtime)
/// answer with the first line of any table.
fn is_foreign(bin: &GoBinary, pc: u64) -> bool {
    bin.find_func(pc).is_some_and(|f| !f.has_spdelta())
}

#[test]
fn functions_and_lines_of_go_s_own_programs_as_addr2line_says() {
    let found = toolchains();
    let newest = found.last().expect("a toolchain");
    for toolchain in &found {
        for path in tools(toolchain) {
            let bin = panicwatch::gobin::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let addr2line = |asked| ask(newest.command().args(["tool", "addr2line"]).arg(&path), asked);
            let compared = compare(&bin, &path, &addr2line);
            println!("go{} {}: {compared} addresses", toolchain.release, path.display());
        }
    }
}

#[test]
fn functions_and_lines_of_large_programs_as_addr2line_would_say() {
    let found = toolchains();
    let dir = tempfile::tempdir().expect("a directory");
    let gosym = dir.path().join("gosym");
    found.last().expect("a toolchain").build(&fixture("gosym"), &[], &gosym);
    for name in ["dockerd", "prometheus", "hugo", "nats-server"] {
        let Some(path) = debian_program(name) else { continue };
        let bin = panicwatch::gobin::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let module = bin.moduledata();
        let table = bin.word(module.addr).and_then(|at| bin.file_offset(at)).expect("the table");
        let oracle = |asked| {
            ask(Command::new(&gosym).arg(&path).args([table, module.text].map(|n| n.to_string())), asked)
        };
        let compared = compare(&bin, &path, &oracle);
        println!("{} of {}: {compared} addresses", path.display(), bin.version());
    }
}

/// `go tool objdump` prints the source line of each instruction.
#[test]
fn lines_of_instructions_as_objdump_says() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains().iter().filter(|t| [19, 22, 27].contains(&t.version().minor())) {
        let path = dir.path().join("lines");
        toolchain.build(&fixture("stacks"), &[], &path);
        let bin = panicwatch::gobin::open(&path).expect("a Go program");
        let listing = ask(toolchain.command().args(["tool", "objdump"]).arg(&path), String::new());
        let mut compared = 0;
        for line in listing.lines().filter(|line| line.starts_with("  ")) {
            let mut words = line.split_ascii_whitespace();
            let (Some(place), Some(pc)) = (words.next(), words.next()) else { continue };
            let Some(pc) = pc.strip_prefix("0x").and_then(|pc| u64::from_str_radix(pc, 16).ok()) else {
                continue;
            };
            if is_foreign(&bin, pc) {
                continue;
            }
            let (file, number) = bin.find_func(pc).and_then(|f| f.file_line(pc)).expect("a line");
            let base = file.rsplit('/').next().unwrap_or(&file);
            assert_eq!(format!("{base}:{number}"), place, "go{} {pc:#x}", toolchain.release);
            compared += 1;
        }
        println!("go{} {}: {compared} instructions", toolchain.release, path.display());
        assert!(compared > 20_000, "{compared}");
    }
}

/// The batch lookup returns the same as single lookups, for each address and in order.
#[test]
fn a_batch_says_of_each_address_what_is_said_of_it_alone() {
    for toolchain in &toolchains() {
        let bin = panicwatch::gobin::open(&tools(toolchain)[0]).expect("the go command");
        let bias = 0x5000_0000_0000;
        let symbolizer = Symbolizer::new(&bin, bias);
        let (lo, hi) = (bin.moduledata().text - 0x100, bin.moduledata().etext + 0x100);
        for lookup in [Lookup::Exact, Lookup::Return] {
            let mut batch = Batch::new(&symbolizer, lookup, panicwatch::symbolize::threads());
            let mut want = String::new();
            for (i, n) in numbers(7).take(40_000).enumerate() {
                let address = bias + lo + n % (hi - lo);
                if i % 1000 == 0 {
                    batch.say(format!("line {i}\n"));
                    let _ = writeln!(want, "line {i}");
                }
                batch.push(address);
                want += &text::resolved(&symbolizer.resolve(address, lookup));
            }
            batch.say("the end\n".to_owned());
            want += "the end\n";
            let mut got = Vec::new();
            batch.write(&mut got).expect("memory");
            let got = String::from_utf8(got).expect("UTF-8");
            for (got, want) in got.lines().zip(want.lines()) {
                assert_eq!(got, want, "go{}", toolchain.release);
            }
            assert_eq!(got.len(), want.len());
        }
    }
}

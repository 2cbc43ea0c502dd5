//! Every kind of panic value in every Go release: decoded from the memory of a waiting process, then compared
//! with what that process prints when it panics.

mod support;

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
};

use object::{Object, ObjectSegment};
use panicwatch::{
    gobin::GoBinary,
    gotype::TypeContext,
    memory::{Layered, Memory},
    value::{Decoded, Decoder, Eface},
};

/// Memory of a live child process.
struct Live(File);

impl Memory for Live {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        self.0.read_exact_at(buf, addr).is_ok()
    }
}

/// Memory as a capture of heap and stacks has it: without the read-only mappings of the program's own file.
struct Captured<'a> {
    live: &'a Live,
    file: Vec<Range<u64>>,
}

impl Memory for Captured<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        let end = addr.saturating_add(buf.len() as u64);
        !self.file.iter().any(|r| addr < r.end && r.start < end) && self.live.read(addr, buf)
    }
}

/// Returns the read-only mappings of the program's file, and the load bias: run-time address minus link-time
/// address.
fn mappings(pid: u32, exe: &Path, binary: &GoBinary) -> (Vec<Range<u64>>, u64) {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps read");
    let own = maps.lines().filter(|line| line.ends_with(exe.to_str().expect("UTF-8")));
    let ranges: Vec<(Range<u64>, bool)> = own
        .map(|line| {
            let (start, rest) = line.split_once('-').expect("a range");
            let (end, rest) = rest.split_once(' ').expect("a range");
            let hex = |text| u64::from_str_radix(text, 16).expect("hex");
            (hex(start)..hex(end), rest.as_bytes()[1] == b'w')
        })
        .collect();
    let file = object::File::parse(binary.file_bytes()).expect("ELF parses");
    let lowest = file.segments().map(|s| s.address() & !0xfff).min().expect("a segment");
    let bias = ranges[0].0.start - lowest;
    (ranges.into_iter().filter(|(_, writable)| !writable).map(|(range, _)| range).collect(), bias)
}

struct Outcome {
    raised: Decoded,
    unresolved: Option<String>,
    resolved: Decoded,
    /// Text that Go printed after "panic: ".
    printed: String,
    /// Whether the value implements runtime.Error.
    runtime_error: bool,
    /// Type name as `%T` formats it.
    type_name: String,
}

/// Runs one case: decodes the value, lets the process panic, and reads what Go prints.
fn run(exe: &Path, binary: &GoBinary, case: &str) -> Outcome {
    let mut child = Command::new(exe)
        .arg(case)
        .env("GODEBUG", "panicnil=1")
        .env("GOTRACEBACK", "single")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fixture starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("words read");
    if !line.ends_with('\n') {
        let mut said = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut said).expect("words read");
        panic!("{case}: incomplete: {line:?}, and it said {said:.300?}");
    }
    let mut parts = line.trim_end().splitn(4, ' ');
    let mut part = || parts.next().unwrap_or_else(|| panic!("{case}: incomplete: {line:?}")).to_owned();
    let words = [part(), part()].map(|w| u64::from_str_radix(&w, 16).expect("hex word"));
    let runtime_error = part().starts_with('R');
    let type_name = part().replace("<nil>", "nil");

    let memory = Live(File::open(format!("/proc/{}/mem", child.id())).expect("own child's memory opens"));
    let (file, bias) = mappings(child.id(), exe, binary);
    assert!(binary.is_pie() || bias == 0, "{bias:#x}");
    let context = TypeContext::of(binary, bias);
    let decoder = Decoder::new(&memory, &context).with_code(binary);
    let eface = Eface { type_word: words[0], data_word: words[1] };
    let raised = decoder.decode(eface);
    let unresolved = decoder.unresolved(eface);
    // The program's file supplies what a capture leaves out.
    let captured = Layered { first: Captured { live: &memory, file }, second: binary.read_only_memory(bias) };
    assert_eq!(
        Decoder::new(&captured, &context).with_code(binary).decode(eface),
        raised,
        "{case} from capture and file"
    );

    let outcome = |printed: String, resolved| Outcome {
        raised: raised.clone(),
        unresolved: unresolved.clone(),
        resolved,
        printed,
        runtime_error,
        type_name: type_name.clone(),
    };
    if case.starts_with('!') {
        child.kill().expect("own child is killed");
        child.wait().expect("child ends");
        return outcome(String::new(), raised.clone());
    }
    child.stdin.take().expect("piped").write_all(b"\n").expect("child reads");
    let mut stderr = Vec::new();
    child.stderr.take().expect("piped").read_to_end(&mut stderr).expect("report reads");
    child.wait().expect("child ends");
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    let body =
        stderr.strip_prefix("panic: ").unwrap_or_else(|| panic!("{case}: no panic line: {stderr:.300}"));
    let end = body.rfind("\n\ngoroutine ").unwrap_or_else(|| panic!("{case}: no goroutine: {stderr:.300}"));
    let printed = body[..end].to_owned();
    let text = if context.layout.release.indents_messages() {
        printed.replace("\n\t", "\n")
    } else {
        printed.clone()
    };
    let resolved = decoder.resolved_text(&raised, text.as_bytes());
    outcome(printed, resolved)
}

/// Compares one case with Go's own output.
fn check(case: &str, o: &Outcome, failures: &mut Vec<String>) {
    let mut fail = |what: &str| {
        failures.push(format!("{case}: {what}\n  Go:  {:.300?}\n  own: {:.300?}", o.printed, o.raised));
    };
    let d = &o.raised;
    if d.value.type_name.as_ref() != Some(&o.type_name) {
        fail(&format!("its type is {}", o.type_name));
    }
    if d.runtime_error != o.runtime_error {
        fail(&format!("runtime.Error: {}", o.runtime_error));
    }
    if case.starts_with(['?', '!']) {
        if d.value.text.is_some() || d.value.printed.is_some() || d.message.is_some() {
            fail("a text was invented");
        }
        if !["text", "printed"].iter().all(|f| d.missing.iter().any(|m| m.what == *f)) {
            fail("no reason given");
        }
        if case.starts_with('?')
            && (o.resolved.value.printed.as_ref() != Some(&o.printed) || !o.resolved.missing.is_empty())
        {
            fail("the resolved text is printed otherwise");
        }
    } else {
        if d.value.printed.as_ref() != Some(&o.printed) {
            fail("printed otherwise");
        }
        if !d.missing.is_empty() || d.value.text.is_none() {
            fail("something is missing");
        }
    }
    if o.unresolved.is_none() {
        fail("nothing to print before it is resolved");
    }
}

fn is_number(case: &str) -> bool {
    let kind = case.trim_start_matches("My").to_lowercase();
    ["int", "uint", "float", "complex"].iter().any(|k| kind.starts_with(k))
        && kind.contains('-')
        && !kind.starts_with("interface")
}

#[test]
fn every_value_is_printed_as_go_does() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let only = std::env::var("PANICWATCH_TEST_MINOR").ok();
    let mut failures = Vec::new();
    for toolchain in support::toolchains() {
        if only.as_ref().is_some_and(|m| *m != toolchain.version().minor().to_string()) {
            println!("{}: skipped by PANICWATCH_TEST_MINOR", toolchain.release);
            continue;
        }
        let exe = dir.path().join(toolchain.release);
        for mode in ["exe", "pie"] {
            let mode_flag = format!("-buildmode={mode}");
            toolchain.build(&support::fixture("efaces"), &["-tags=netgo,osusergo", &mode_flag], &exe);
            let binary = panicwatch::gobin::open(&exe).expect("a Go binary");
            let list = Command::new(&exe).arg("list").output().expect("fixture lists its cases").stdout;
            let cases: Vec<_> = list.lines().map(|l| l.expect("UTF-8")).collect();
            assert!(cases.len() > 600, "{} lists its cases", toolchain.release);
            // Numbers do not depend on the load address.
            let chosen = cases.iter().filter(|case| mode == "exe" || !is_number(case));
            let (mut count, before) = (0, failures.len());
            for case in chosen {
                let outcome = run(&exe, &binary, case);
                let mut own = Vec::new();
                check(case, &outcome, &mut own);
                failures.extend(own.into_iter().map(|f| format!("{} {mode} {f}", toolchain.release)));
                count += 1;
            }
            println!("{} {mode}: {count} values, {} wrong", toolchain.release, failures.len() - before);
        }
    }
    assert!(failures.is_empty(), "{} wrong:\n{}", failures.len(), failures.join("\n"));
}

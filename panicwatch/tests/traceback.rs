//! Unwound stacks, compared with the runtime's own traceback of the same stacks, for every installed Go
//! release.

mod support;

use std::{path::Path, process::Command};

use panicwatch::{
    gobin::GoBinary,
    incident::Frame,
    memory::{Memory, Snapshot},
    traceback::{
        DEFAULT_MAX_FRAMES, End, Stack, Start, Unwinder, UserStack, Visibility, creator, shows_creator,
        traceback,
    },
};
use support::{Toolchain, fixture, toolchains};

const MODES: [(&str, &[&str]); 5] = [
    ("default", &[]),
    ("unoptimised", &["-gcflags=all=-N -l"]),
    ("pie stripped", &["-buildmode=pie", "-ldflags=-s -w"]),
    ("cgo", &["-tags=withcgo"]),
    ("cgo pie stripped", &["-tags=withcgo", "-buildmode=pie", "-ldflags=-linkmode=external -s -w"]),
];

/// Stacks on which the fixture crashes, for a traceback with every frame and its addresses.
const CRASHES: [&str; 8] = [
    "main",
    "closures",
    "inlined pointer",
    "inlined ptr embedded",
    "generic method",
    "goroutine recursion 30",
    "sort",
    "finalizer",
];

#[test]
fn tracebacks_as_the_runtime_prints_them() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        for (mode, flags) in MODES {
            let exe = dir.path().join("stacks");
            toolchain.build(&fixture("stacks"), flags, &exe);
            let (dumps, frames) = compare(&toolchain, mode, &exe);
            println!("go{} {mode}: {dumps} stacks, {frames} frames", toolchain.release);
            assert!(dumps > 100, "{dumps}");
            for label in CRASHES {
                compare_crash(&toolchain, mode, &exe, label);
            }
            if mode.starts_with("cgo") {
                compare_crash(&toolchain, mode, &exe, "callback");
            }
        }
    }
}

/// One stack of the fixture's output.
struct Dump {
    label: String,
    pc: u64,
    sp: u64,
    g: u64,
    memory: Snapshot,
    text: String,
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).expect("hex") as u8;
    text.as_bytes().chunks(2).map(|c| digit(c[0]) << 4 | digit(c[1])).collect()
}

impl Dump {
    fn parse(line: &str) -> Self {
        let fields: Vec<_> = line.split('\t').collect();
        let [_, label, pc, sp, g, stack, goroutine, text] = fields[..] else { panic!("{line}") };
        let number = |s: &str| s.parse::<u64>().expect("a number");
        let mut memory = Snapshot::new();
        memory.add(number(sp), unhex(stack));
        memory.add(number(g), unhex(goroutine));
        let text = String::from_utf8(unhex(text)).expect("UTF-8");
        Self { label: label.to_owned(), pc: number(pc), sp: number(sp), g: number(g), memory, text }
    }
}

/// Runs the fixture; returns the load bias, its stacks, and its standard error.
fn run(toolchain: &Toolchain, bin: &GoBinary, exe: &Path, crash_at: &str) -> (u64, Vec<Dump>, String) {
    let mut command = Command::new(exe);
    // Shrinking a stack moves it.
    command.env("GODEBUG", "gcshrinkstackoff=1");
    let output = command.env("CRASH_AT", crash_at).env("GOTRACEBACK", "system").output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), crash_at.is_empty(), "go{}: {errors}", toolchain.release);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let (main, dumps) = text.split_once('\n').expect("lines");
    let main: u64 = main.strip_prefix("main.main\t").expect("main").parse().expect("a number");
    let bias = main.wrapping_sub(bin.function("main.main").expect("main.main").entry());
    (bias, dumps.lines().map(Dump::parse).collect(), errors)
}

fn compare(toolchain: &Toolchain, mode: &str, exe: &Path) -> (usize, usize) {
    let bin = panicwatch::gobin::open(exe).unwrap_or_else(|e| panic!("go{} {mode}: {e}", toolchain.release));
    let (bias, dumps, _) = run(toolchain, &bin, exe, "");
    stack_switches(&bin, bias, &dumps[0]);
    let mut frames = 0;
    for dump in &dumps {
        let ours = render(&bin, bias, dump, Visibility::USER);
        let mut theirs = normalise(&dump.text);
        if !toolchain.version().traceback_prints_both_ends() {
            // Releases before Go 1.21 print this whenever exactly 100 frames were printed, even if there are
            // no more.
            theirs.retain(|l| l != "...additional frames elided...");
        }
        frames += theirs.len();
        same(&format!("go{} {mode}: {}", toolchain.release, dump.label), &ours, &theirs, &dump.text);
    }
    (dumps.len(), frames)
}

/// As if the thread had switched to its system stack at the dump: the walk continues where the goroutine left
/// its own stack.
fn stack_switches(bin: &GoBinary, bias: u64, dump: &Dump) {
    let mut memory = dump.memory.clone();
    memory.add(dump.sp - 8, dump.pc.to_le_bytes());
    let stack = Stack { bin, bias, memory: &memory };
    let names = |start| -> Vec<_> {
        let walk = Unwinder::new(&stack, start, DEFAULT_MAX_FRAMES);
        walk.map(|f| (f.func.name().into_owned(), f.pc, f.sp)).collect()
    };
    let plain = names(Start::returning_to(dump.pc, dump.sp));
    let inside = |name: &str| bin.function(name).expect(name).entry().wrapping_add(bias) + 1;
    // systemstack's frame on the goroutine's stack: a saved frame pointer since Go 1.21, and the return
    // address.
    let systemstack = bin.function("runtime.systemstack").expect("systemstack");
    let own = u64::try_from(systemstack.spdelta(systemstack.entry() + 1).expect("a delta")).expect("a size");
    let user = Some(UserStack { pc: 0, sp: dump.sp - 8 - own });
    let switched = names(Start { user, ..Start::returning_to(inside("runtime.systemstack"), 0x1000) });
    assert_eq!((switched[0].0.as_str(), &switched[1..]), ("runtime.systemstack", &plain[..]));
    // morestack never returns, so it does not appear on the stack.
    let user = Some(UserStack { pc: dump.pc, sp: dump.sp });
    assert_eq!(names(Start { user, ..Start::returning_to(inside("runtime.morestack"), 0x1000) }), plain);
    // If the goroutine's stack is unknown, the walk ends at the switch.
    let mut walk = Unwinder::new(&stack, Start::returning_to(inside("runtime.systemstack"), dump.sp), 10);
    assert_eq!(walk.by_ref().count(), 1);
    assert_eq!(walk.end(), Some(End::SpWrite));
    // A call of a nil function: the caller's address is on the stack.
    assert_eq!(names(Start::at(0, dump.sp - 8))[1..], plain[1..]);
    let mut missing = Unwinder::new(&stack, Start::returning_to(dump.pc, 0x2000), 10);
    assert_eq!(missing.by_ref().count(), 1);
    assert!(matches!(missing.end(), Some(End::NoMemory(_))));
    let foreign = Unwinder::new(&stack, Start::at(0x10, 0x2000), 10);
    assert_eq!(foreign.end(), Some(End::UnknownPc(0x10)));
    let mut limited = Unwinder::new(&stack, Start::returning_to(dump.pc, dump.sp), 1);
    assert_eq!(limited.by_ref().count(), 1);
    assert_eq!(limited.end(), Some(End::Limit(1)));
}

/// Compares a crash's traceback, with every frame, and with fp, sp and pc.
fn compare_crash(toolchain: &Toolchain, mode: &str, exe: &Path, label: &str) {
    let bin = panicwatch::gobin::open(exe).unwrap_or_else(|e| panic!("go{} {mode}: {e}", toolchain.release));
    let (bias, dumps, errors) = run(toolchain, &bin, exe, label);
    let dump = dumps.last().expect("a stack");
    assert_eq!(dump.label, label);
    let ours = render(&bin, bias, dump, Visibility { level: 2, throwing: false });
    let from = errors.find("goroutine ").expect("a header");
    let mut theirs = normalise(&errors[from..]);
    // The crash occurred in main.dump, below the dumped frames.
    let first = theirs.iter().position(|l| l.starts_with("main.dump ")).expect("main.dump");
    theirs.drain(1..first);
    theirs[1] = "main.dump".to_owned();
    same(&format!("go{} {mode}: crash at {label}", toolchain.release), &ours, &theirs, &errors);
}

/// A stack of which one part is missing.
struct Holed<'a> {
    memory: &'a Snapshot,
    from: u64,
    to: u64,
}

impl Memory for Holed<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        let end = addr.saturating_add(buf.len() as u64);
        (end <= self.from || addr >= self.to) && self.memory.read(addr, buf)
    }
}

/// Only the words with return addresses are needed. If one is missing, the walk continues behind it and
/// reports the gap.
#[test]
fn walks_go_on_behind_memory_that_is_not_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let exe = dir.path().join("stacks");
    for toolchain in toolchains().into_iter().filter(|go| [19, 22, 27].contains(&go.version().minor())) {
        toolchain.build(&fixture("stacks"), &[], &exe);
        let bin = panicwatch::gobin::open(&exe).expect("a Go program");
        let (bias, dumps, _) = run(&toolchain, &bin, &exe, "");
        let (mut resumed, mut found, mut there) = (0, 0, 0);
        for dump in &dumps {
            let g = &bin.layout().g;
            let stack_hi = dump.memory.u64(dump.g + u64::from(g.stack_hi)).expect("part of g");
            let start = Start { stack_hi, ..Start::returning_to(dump.pc, dump.sp) };
            let walk = |from, to| {
                let memory = Holed { memory: &dump.memory, from, to };
                let stack = Stack { bin: &bin, bias, memory: &memory };
                let mut walk = Unwinder::new(&stack, start, DEFAULT_MAX_FRAMES);
                let frames: Vec<_> = walk.by_ref().map(|f| (f.pc, f.sp, f.fp, f.gap)).collect();
                (frames, walk.end())
            };
            let (whole, end) = walk(0, 0);
            assert_eq!(end, Some(End::TopFrame), "{}", dump.label);
            for (i, (_, sp, fp, _)) in whole.iter().copied().enumerate().step_by(1 + whole.len() / 40) {
                let what = format!("go{} {}: frame {i} of {}", toolchain.release, dump.label, whole.len());
                // Everything in the frame is missing except its return address.
                assert_eq!(walk(sp, fp - 8), (whole.clone(), end), "{what}");
                // The return address is missing, and then also the KiB after it.
                for hole in [fp - 8..fp, fp - 8..fp + 1024] {
                    let (holed, _) = walk(hole.start, hole.end);
                    assert_eq!(holed[..=i], whole[..=i], "{what}");
                    let beyond = &holed[i + 1..];
                    let Some(first) = beyond.first() else { continue };
                    resumed += 1;
                    assert_eq!(first.3, first.1 - hole.start, "{what}: the size of the gap");
                    let rest = whole.iter().position(|frame| frame.1 == first.1).unwrap_or_else(|| {
                        panic!("{what}: {first:x?} of {whole:x?}, stack_hi {stack_hi:#x}")
                    });
                    let without_gap = |frames: &[(u64, u64, u64, u64)]| -> Vec<_> {
                        frames.iter().map(|(pc, sp, fp, _)| (*pc, *sp, *fp)).collect()
                    };
                    assert_eq!(without_gap(beyond), without_gap(&whole[rest..]), "{what}");
                    found += beyond.len();
                    there += whole[i + 1..].iter().filter(|(_, sp, ..)| *sp >= hole.end + 16).count();
                }
            }
        }
        println!("go{}: {resumed} walks went on, {found} of {there} frames", toolchain.release);
        assert!(resumed > 100 && found > 2 * resumed, "go{}: {resumed}, {found}", toolchain.release);
    }
}

fn same(what: &str, ours: &[String], theirs: &[String], text: &str) {
    if ours != theirs {
        let i = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
        let (a, b) = (&ours[i..ours.len().min(i + 3)], &theirs[i..theirs.len().min(i + 3)]);
        panic!("{what}: line {i}: ours {a:#?}, Go's {b:#?}\n{text}");
    }
}

/// Renders our traceback with one line per frame.
fn render(bin: &GoBinary, bias: u64, dump: &Dump, visibility: Visibility) -> Vec<String> {
    let stack = Stack { bin, bias, memory: &dump.memory };
    // The runtime's traceback begins at its caller, main.dump, at another call than ours.
    let walk = Unwinder::new(&stack, Start::returning_to(dump.pc, dump.sp), DEFAULT_MAX_FRAMES);
    let first = walk.into_iter().find(|f| f.func.name() == "main.dump").expect("main.dump");
    let trace = traceback(&stack, Start::returning_to(first.pc, first.sp), visibility);
    assert_eq!(trace.end, End::TopFrame, "{}", dump.label);
    let mut lines: Vec<_> = trace.frames.iter().map(line).collect();
    if visibility.all() {
        // Adds fp, sp and pc of the physical frames.
        let mut physical = Unwinder::new(&stack, Start::returning_to(first.pc, first.sp), DEFAULT_MAX_FRAMES)
            .map(|f| (f.pc, f.fp, f.sp))
            .collect::<Vec<_>>()
            .into_iter();
        for (line, frame) in lines.iter_mut().zip(&trace.frames).filter(|(_, f)| !f.inlined) {
            let (_, fp, sp) = physical.find(|(pc, ..)| *pc == frame.pc.0).expect("its physical frame");
            if trace.elided == Some(0) {
                *line += &format!(" fp={fp:#x} sp={sp:#x} pc={:#x}", frame.pc.0);
            }
        }
    }
    lines[0] = lines[0].split(' ').next().expect("a name").to_owned();
    let elided = trace.elided.expect("a stack without gaps");
    if elided > 0 && bin.version().release.traceback_prints_both_ends() {
        lines.insert(trace.elided_before, format!("...{elided} frames elided..."));
    }
    let g = &bin.layout().g;
    let word = |off: u16| dump.memory.u64(dump.g + u64::from(off)).expect("part of g");
    let (goid, gopc) = (word(g.goid), word(g.gopc));
    if shows_creator(bin, bias, gopc, goid, visibility) {
        let parent = g.parent_goid.map(|off| format!(" in goroutine {}", word(off))).unwrap_or_default();
        let creator = creator(bin, bias, gopc).expect("a go statement");
        lines.push(line(&creator).replacen(' ', &format!("{parent} "), 1).replacen("", "created by ", 1));
    }
    lines.insert(0, format!("goroutine {goid}"));
    lines
}

fn line(f: &Frame) -> String {
    let mut text =
        format!("{} {}:{}", f.function, f.file.as_deref().unwrap_or("?"), f.line.unwrap_or_default());
    if !f.inlined && f.offset > 0 {
        text += &format!(" +{:#x}", f.offset);
    }
    text
}

/// Converts the runtime's traceback to the same form.
fn normalise(text: &str) -> Vec<String> {
    let mut lines = text.lines();
    let header = lines.next().expect("a header");
    let mut out = vec![header.split(' ').take(2).collect::<Vec<_>>().join(" ")];
    let elided = text.contains("frames elided...");
    while let Some(line) = lines.next() {
        if line.is_empty() {
            break;
        }
        if line.starts_with("...") {
            out.push(line.to_owned());
            continue;
        }
        let place = lines.next().and_then(|l| l.strip_prefix('\t')).expect("a place");
        let place = if elided { place.split(" fp=").next().expect("a place") } else { place };
        let name = match line.starts_with("created by ") {
            true => line,
            // Arguments contain no parenthesis; names may.
            false => line.rsplit_once('(').expect("arguments").0,
        };
        out.push(if out.len() == 1 { name.to_owned() } else { format!("{name} {place}") });
    }
    out
}

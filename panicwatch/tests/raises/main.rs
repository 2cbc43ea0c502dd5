//! Predicted panics, compared with what the runtime reports when they occur: every kind of panic, each in a
//! function of its own, compiled by every installed Go release.

mod damage;
mod debugger;
#[path = "../support/mod.rs"]
mod support;
mod whole;

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use panicwatch::{
    gobin::GoBinary,
    raises::{BoundsCode, Certainty, Kind, RaisedBy, Seen, all_in, raised_by},
};
use support::{Toolchain, fixture, toolchains};

/// One line of the fixture's output.
#[derive(Debug)]
struct Case {
    name: String,
    fault: bool,
    /// Link-time return address, as from `runtime.Callers`.
    pc: u64,
    go_type: String,
    text: String,
}

fn run(exe: &Path, bin: &GoBinary) -> Vec<Case> {
    let output = Command::new(exe).output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines = text.lines();
    let main: u64 =
        lines.next().and_then(|l| l.strip_prefix("main.main\t")).expect("main").parse().expect("a number");
    let bias = main.wrapping_sub(bin.function("main.main").expect("main.main").entry());
    lines
        .map(|line| {
            let mut words = line.splitn(6, '\t');
            assert_eq!(words.next(), Some("case"), "{line}");
            let mut word = || words.next().expect("a word").to_owned();
            let (name, fault, pc) = (word(), word() == "true", word());
            let pc = pc.parse::<u64>().expect("a number").wrapping_sub(bias);
            Case { name, fault, pc, go_type: word(), text: word() }
        })
        .collect()
}

/// Returns the kind of panic that has this text.
fn kind_of(case: &Case) -> (&'static str, Option<BoundsCode>) {
    let text = case.text.strip_prefix("runtime error: ").unwrap_or(&case.text);
    let bounds = |code| ("bounds", Some(code));
    let slice = text.strip_prefix("slice bounds out of range ");
    match text {
        _ if text.starts_with("index out of range") => bounds(BoundsCode::Index),
        _ if text.starts_with("cannot convert slice") => bounds(BoundsCode::Convert),
        _ if slice.is_some() => {
            let slice = slice.unwrap_or_default();
            let inside = slice.split_once(']').expect("brackets").0;
            let colons = inside.matches(':').count();
            let capacity = slice.contains("with capacity");
            bounds(match (colons, inside.starts_with("[::"), inside.starts_with("[:")) {
                (2, true, _) if capacity => BoundsCode::Slice3Capacity,
                (2, true, _) => BoundsCode::Slice3Length,
                (2, _, true) => BoundsCode::Slice3High,
                (2, ..) => BoundsCode::Slice3Low,
                (_, _, true) if capacity => BoundsCode::SliceCapacity,
                (_, _, true) => BoundsCode::SliceLength,
                _ => BoundsCode::SliceLow,
            })
        }
        "invalid memory address or nil pointer dereference" => ("nil_dereference", None),
        "integer divide by zero" => ("divide", None),
        "negative shift amount" => ("shift", None),
        "assignment to entry in nil map" => ("map_write", None),
        _ if text.starts_with("interface conversion") => ("type_assertion", None),
        _ if text.starts_with("makeslice:") => ("make_slice", None),
        _ if text.starts_with("makechan:") => ("make_chan", None),
        _ if text.starts_with("unsafe.") => ("unsafe", None),
        _ if text.starts_with("hash of unhashable") => ("map_key", None),
        _ if text.starts_with("comparing uncomparable") => ("compare", None),
        _ if text.contains("closed channel") || text.contains("nil channel") => ("channel", None),
        _ if text.starts_with("range function continued") => ("range_func", None),
        _ => ("panic", None),
    }
}

fn build(toolchain: &Toolchain, flags: &[&str], exe: &Path) -> GoBinary {
    toolchain.build(&fixture("raises"), flags, exe);
    // Read, not mapped: the next build overwrites the same file.
    let bytes = std::fs::read(exe).expect("the binary");
    GoBinary::parse(Arc::new(bytes)).unwrap_or_else(|e| panic!("go{}: {e}", toolchain.release))
}

/// Checks that every address that belongs to one raise gives the same result; returns how many were checked.
fn check_addresses(bin: &GoBinary, said: &RaisedBy, what: &str) -> usize {
    let checks = said.checks.iter().flat_map(|c| [Some(c.jump), c.compare]).flatten();
    let mut asked = 0;
    for pc in checks.chain([said.at]) {
        let again = raised_by(bin, pc).unwrap_or_else(|e| panic!("{what}: {pc:#x}: {e}"));
        let readings = [Some(&again), again.otherwise.as_deref()];
        assert!(readings.into_iter().flatten().any(|r| r.at == said.at), "{what}: {pc:#x}: {again:#x?}");
        asked += 1;
    }
    asked
}

/// Checks that a constant operand is a number in the error's text, and that names and texts are the
/// program's.
fn check_facts(case: &Case, said: &RaisedBy, what: &str) -> usize {
    let mut facts = 0;
    let constants = said.operands.iter().filter(|_| matches!(said.kind, Kind::Bounds { .. }));
    for o in constants.filter(|o| o.what.parse::<i64>().is_ok()) {
        let numbers: Vec<_> = case.text.split(|c: char| !c.is_ascii_digit() && c != '-').collect();
        assert!(numbers.contains(&o.what.as_str()), "{what}: {} is not in {:?}", o.what, case.text);
        facts += 1;
    }
    if let Some(text) = &said.message {
        assert_eq!(*text, case.text, "{what}");
        facts += 1;
    }
    match (&said.type_name, said.kind) {
        (Some(name), Kind::Panic) => assert_eq!(*name, case.go_type, "{what}"),
        (Some(name), Kind::Assertion) => {
            let ends = [format!("not {name}"), format!("is not {name}: missing method Shout")];
            assert!(ends.iter().any(|e| case.text.ends_with(e)), "{what}: {name}");
        }
        (None, Kind::Assertion) => panic!("{what}: no type: {said:#?}"),
        _ => return facts,
    }
    facts + 1
}

fn check_truth(bin: &GoBinary, case: &Case, what: &str) -> (usize, usize, usize) {
    let said = raised_by(bin, case.pc).unwrap_or_else(|e| panic!("{what}: {case:?}: {e}"));
    let (kind, code) = kind_of(case);
    let said_code = match said.kind {
        Kind::Bounds { code, .. } => code,
        _ => None,
    };
    assert_eq!((said.kind.as_str(), said_code), (kind, code), "{what}: {case:?}\n{said:#x?}");
    assert_eq!(said.certainty == Certainty::Fault, case.fault, "{what}: {said:#x?}");
    if case.fault {
        assert_eq!(said.at + 1, case.pc, "{what}: {said:#x?}");
    } else {
        let length = bin.code(said.at, case.pc).expect("code").len();
        assert!((2..8).contains(&length), "{what}: the call in front of the return address");
        assert!(said.by.is_some(), "{what}");
    }
    let start = format!("main.{}", case.name);
    assert!(said.function.as_deref().is_some_and(|f| f.starts_with(&start)), "{what}: {said:#?}");
    assert!(said.file.is_some() && said.line.is_some(), "{what}");
    let func = bin.find_func(case.pc).expect("a function");
    let all = all_in(bin, func);
    assert!(all.is_sorted_by_key(|r| r.at), "{what}: by address");
    let listed = all.iter().find(|r| r.at == said.at).unwrap_or_else(|| panic!("{what}: not in {all:#x?}"));
    assert_eq!(listed.words, said.words, "{what}");
    (check_addresses(bin, &said, what), check_facts(case, &said, what), all.len())
}

const MODES: [(&str, &[&str]); 4] = [
    ("default", &[]),
    ("unoptimised", &["-gcflags=all=-N -l"]),
    ("stripped", &["-ldflags=-s -w"]),
    ("pie", &["-buildmode=pie"]),
];

/// The default mode with every release, the others with some old and new ones.
fn modes(toolchain: &Toolchain) -> &'static [(&'static str, &'static [&'static str])] {
    if matches!(toolchain.version().minor(), 19 | 23 | 26) { &MODES } else { &MODES[..1] }
}

#[test]
fn the_kind_said_is_the_kind_raised() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        for (mode, flags) in modes(&toolchain) {
            let exe = dir.path().join("raises");
            let bin = build(&toolchain, flags, &exe);
            let cases = run(&exe, &bin);
            let (mut addresses, mut facts, mut places) = (0, 0, 0);
            for case in &cases {
                let what = format!("go{} {mode} {}", toolchain.release, case.name);
                let (a, f, p) = check_truth(&bin, case, &what);
                (addresses, facts, places) = (addresses + a, facts + f, places + p);
            }
            println!(
                "go{} {mode}: {} panics, {addresses} addresses of theirs, {facts} constants and types, {places} places",
                toolchain.release,
                cases.len()
            );
            assert!(cases.len() >= 49 && facts >= 10, "go{} {mode}", toolchain.release);
        }
    }
}

/// Case, callee up to Go 1.25, and operands as the optimizing compiler has them in every release.
type Expected = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const OPERANDS: &[Expected] = &[
    ("kIndex", "runtime.panicIndex", &[("index", "%rdi"), ("length", "%rbx")]),
    ("kIndexUnsigned", "runtime.panicIndexU", &[("index", "%rdi"), ("length", "%rbx")]),
    ("kIndexConst", "runtime.panicIndex", &[("index", "3"), ("length", "%rbx")]),
    ("kIndexFirst", "runtime.panicIndex", &[("index", "0"), ("length", "%rbx")]),
    ("kIndexLast", "runtime.panicIndex", &[("length", "%rbx")]),
    ("kIndexArray", "runtime.panicIndex", &[("index", "%rax"), ("length", "8")]),
    ("kIndexString", "runtime.panicIndex", &[("index", "%rcx"), ("length", "%rbx")]),
    ("kIndexByte", "runtime.panicIndex", &[("length", "8")]),
    ("kIndexCopied", "runtime.panicIndex", &[("length", "%rdi")]),
    ("kSliceString", "runtime.panicSliceAlen", &[("high", "%rcx"), ("length", "%rbx")]),
    ("kSliceCap", "runtime.panicSliceAcap", &[("high", "%rdi"), ("capacity", "%rcx")]),
    ("kSliceOrder", "runtime.panicSliceB", &[("low", "%rdi"), ("high", "%rsi")]),
    ("kSliceFrom", "runtime.panicSliceB", &[("low", "%rdi"), ("high", "%rbx")]),
    ("kSlice3Cap", "runtime.panicSlice3Acap", &[("max", "%rdi"), ("capacity", "%rcx")]),
    ("kSlice3Len", "runtime.panicSlice3Alen", &[("max", "%rbx"), ("length", "8")]),
    ("kSlice3Middle", "runtime.panicSlice3B", &[("high", "%rdi"), ("max", "%rsi")]),
    ("kSlice3Low", "runtime.panicSlice3C", &[("low", "%rdi"), ("high", "%rsi")]),
    ("kConvert", "runtime.panicSliceConvert", &[("array length", "4"), ("length", "%rbx")]),
    ("kNilRead", "", &[("pointer", "%rax")]),
    ("kNilWrite", "", &[("pointer", "%rax")]),
    ("kNilFar", "", &[("pointer", "%rax")]),
    ("kNilCheck", "", &[("pointer", "%rax")]),
    ("kNilCopy", "", &[("pointer", "%rsi")]),
    ("kDivide", "runtime.panicdivide", &[("divisor", "%rbx")]),
    ("kModulo", "runtime.panicdivide", &[("divisor", "%ebx")]),
    ("kShift", "runtime.panicshift", &[("shift count", "%rbx")]),
    ("kPanicInt", "runtime.gopanic", &[("left", "%rax"), ("right", "3")]),
    ("kAssertConcrete", "runtime.panicdottypeE", &[("dynamic type", "%rax")]),
    ("kAssertFromIface", "runtime.panicdottypeI", &[("itab", "%rax")]),
    ("kMakeSlice", "runtime.makeslice", &[("length", "%rbx"), ("capacity", "%rcx")]),
    ("kMakeChan", "runtime.makechan", &[("size", "%rbx")]),
    ("kMapAssign", "runtime.mapassign_fast64", &[("map", "%rbx")]),
    ("kCloseNil", "runtime.closechan", &[("channel", "%rax")]),
    ("kSendClosed", "runtime.chansend1", &[("channel", "%rax")]),
];

#[test]
fn operands_are_where_the_register_abi_puts_the_parameters() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        let exe = dir.path().join("raises");
        let bin = build(&toolchain, &[], &exe);
        let cases = run(&exe, &bin);
        let by_name: BTreeMap<_, _> = cases.iter().map(|c| (c.name.as_str(), c)).collect();
        let mut checked = 0;
        for (name, by, operands) in OPERANDS {
            let case = by_name.get(name).unwrap_or_else(|| panic!("no case {name}"));
            let what = format!("go{} {name}", toolchain.release);
            let said = raised_by(&bin, case.pc).unwrap_or_else(|e| panic!("{what}: {e}"));
            let bounds = matches!(said.kind, Kind::Bounds { .. });
            let by =
                if bounds && toolchain.version().has_panic_bounds() { "runtime.panicBounds" } else { by };
            assert_eq!(said.by.as_deref().unwrap_or(""), by, "{what}: {said:#x?}");
            for (role, register) in *operands {
                let found = said.operands.iter().any(|o| o.role == *role && o.what == *register);
                assert!(found, "{what}: {role} {register}: {said:#x?}");
                checked += 1;
            }
            if bounds {
                let compared = said.operands.iter().filter(|o| o.seen == Seen::Compare).count();
                assert_eq!(compared, 2, "{what}: {said:#x?}");
                assert!(said.check().is_some() && said.compare().is_some(), "{what}");
            }
        }
        println!("go{}: {checked} operands of {} panics", toolchain.release, OPERANDS.len());
        assert!(checked >= 50);
    }
}

/// Returns the numbers in a text.
fn numbers(text: &str) -> Vec<i64> {
    text.split(|c: char| !c.is_ascii_digit() && c != '-').filter_map(|n| n.parse().ok()).collect()
}

/// Checks the values of the operands' registers where the operands were seen; returns how many were checked.
fn check_values(exe: &Path, case: &Case, said: &RaisedBy, what: &str) -> Option<usize> {
    let seen = said.operands.first()?.seen;
    let at = match seen {
        Seen::Compare => said.compare().expect("seen there"),
        Seen::Call | Seen::Fault => said.at,
    };
    if !said.operands.iter().all(|o| o.seen == seen) {
        return None;
    }
    let registers = debugger::registers_at(exe, &case.name, at);
    let registers = registers.unwrap_or_else(|e| panic!("{what}: {at:#x} is not reached: {e}"));
    let value = |role: &str| {
        let all = said.operands.iter().filter(|o| o.role == role);
        let mut values = all.map(|o| match o.what.parse::<i64>() {
            Ok(constant) => Some(constant),
            Err(_) => registers.value(&o.what),
        });
        values.next().flatten()
    };
    match said.kind {
        Kind::Bounds { code: Some(code), .. } => {
            let (x_role, y_role) = code.roles();
            let (x, y) = (value(x_role)?, value(y_role)?);
            let ours = code.pattern().replace("{x}", &x.to_string()).replace("{y}", &y.to_string());
            let theirs = numbers(&case.text);
            assert_eq!(numbers(&ours)[..theirs.len()], theirs, "{what}: {ours}; {said:#x?}");
            // For a negative index Go prints nothing else.
            assert!(theirs.len() == 2 || x < 0, "{what}");
            Some(2)
        }
        Kind::Divide => {
            assert_eq!(value("divisor")?, 0, "{what}");
            Some(1)
        }
        Kind::Shift => {
            assert_eq!(value("shift count")?, -1, "{what}");
            Some(1)
        }
        Kind::Nil => {
            let nil = |o: &str| registers.value(o).is_some_and(|v| (0..4096).contains(&v));
            assert!(said.operands.iter().any(|o| nil(&o.what)), "{what}: {said:#x?}");
            Some(1)
        }
        Kind::Assertion if case.text.contains("is nil, not") && seen == Seen::Compare => {
            assert_eq!(value("dynamic type").or_else(|| value("itab"))?, 0, "{what}");
            Some(1)
        }
        Kind::MakeSlice | Kind::MakeChan | Kind::MapWrite | Kind::Channel => {
            let wanted: &[(&str, i64)] = match case.name.as_str() {
                "kMakeSlice" => &[("length", -1), ("capacity", -1)],
                "kMakeSliceCap" => &[("length", 2), ("capacity", 1)],
                "kMakeChan" => &[("size", -1)],
                "kMapAssign" | "kMapStrAssign" => &[("map", 0)],
                "kCloseNil" => &[("channel", 0)],
                _ => &[],
            };
            for (role, number) in wanted {
                assert_eq!(value(role), Some(*number), "{what}: {role}");
            }
            Some(wanted.len())
        }
        _ => None,
    }
}

#[test]
fn the_operands_hold_what_the_error_says() {
    if let Err(e) = debugger::works() {
        println!("skipped: {e}");
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        for (mode, flags) in &modes(&toolchain)[..modes(&toolchain).len().min(2)] {
            let exe = dir.path().join("raises");
            let bin = build(&toolchain, flags, &exe);
            let mut values = 0;
            for case in run(&exe, &bin) {
                let what = format!("go{} {mode} {}", toolchain.release, case.name);
                let said = raised_by(&bin, case.pc).unwrap_or_else(|e| panic!("{what}: {e}"));
                values += check_values(&exe, &case, &said, &what).unwrap_or(0);
            }
            println!("go{} {mode}: {values} operands held what the error says", toolchain.release);
            assert!(values >= 45, "go{} {mode}: {values}", toolchain.release);
        }
    }
}

#[test]
fn what_raises_nothing_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(toolchain) = toolchains().pop() else { return };
    let bin = build(&toolchain, &[], &dir.path().join("raises"));
    let quiet = bin.function("main.quietOne").expect("in the program");
    let words = raised_by(&bin, quiet.entry()).expect_err("an addition").to_string();
    assert!(words.ends_with("raises nothing"), "{words}");
    assert_eq!(all_in(&bin, quiet), []);
    assert_eq!(raised_by(&bin, 8).expect_err("nowhere").to_string(), "0x8 is in no Go function");
}

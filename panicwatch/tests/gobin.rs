//! The decoder, compared with the runtime's own answers, for every installed Go release and several build
//! modes.

mod support;

use std::{path::Path, process::Command};

use panicwatch::{
    gobin::{self, FuncId},
    memory::Memory,
};
use support::{Toolchain, fixture, toolchains};

/// Build modes: a name, and flags of `go build`.
const MODES: [(&str, &[&str]); 7] = [
    ("default", &[]),
    ("stripped", &["-ldflags=-s -w"]),
    ("unoptimised", &["-gcflags=all=-N -l"]),
    ("trimpath", &["-trimpath"]),
    ("pie", &["-buildmode=pie"]),
    ("external", &["-ldflags=-linkmode=external"]),
    ("external pie stripped", &["-buildmode=pie", "-ldflags=-linkmode=external -s -w"]),
];

#[test]
fn functions_files_lines_and_inlining_as_the_runtime_says() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        for (mode, flags) in MODES {
            let exe = dir.path().join("lines");
            // The fixture accesses runtime internals.
            let linker = flags.iter().find(|f| f.starts_with("-ldflags=")).copied().unwrap_or("-ldflags=");
            let linker = match toolchain.version().linker_checks_linknames() {
                true => format!("{linker} -checklinkname=0"),
                false => linker.to_owned(),
            };
            let flags: Vec<_> = flags.iter().copied().chain([linker.as_str()]).collect();
            toolchain.build(&fixture("lines"), &flags, &exe);
            let compared = compare(&toolchain, mode, &exe);
            println!("go{} {mode}: {compared} program counters", toolchain.release);
            assert!(compared > 20_000, "{compared}");
        }
    }
}

#[test]
fn functions_and_addresses_as_the_symbol_table_has_them() {
    let dir = tempfile::tempdir().expect("a directory");
    for toolchain in toolchains() {
        for (mode, flags) in MODES.into_iter().filter(|(mode, _)| !mode.contains("stripped")) {
            let exe = dir.path().join("stacks");
            toolchain.build(&fixture("stacks"), flags, &exe);
            let compared = compare_symbols(&toolchain, mode, &exe);
            println!("go{} {mode}: {compared} symbols", toolchain.release);
        }
    }
}

/// Compares functions and addresses with `go tool nm`; returns how many symbols were compared.
fn compare_symbols(toolchain: &Toolchain, mode: &str, exe: &Path) -> usize {
    let bin = gobin::open(exe).unwrap_or_else(|e| panic!("go{} {mode}: {e}", toolchain.release));
    let output = Command::new(&toolchain.go).args(["tool", "nm"]).arg(exe).output().expect("nm starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let module = bin.moduledata();
    let constant = bin.constant_range(module.text);
    for (name, address, is_constant) in [
        ("text", module.text, true),
        ("rodata", module.rodata, true),
        ("types", module.types, true),
        ("the last type", module.etypes - 1, true),
        ("noptrdata", module.noptrdata.0, false),
        ("the end of data", module.data.1 - 1, false),
        ("bss", module.bss.0, false),
    ] {
        let what = format!("go{} {mode}: {name} at {address:#x}, {constant:x?}", toolchain.release);
        assert_eq!(constant.contains(&address), is_constant, "{what}");
    }
    let (mut functions, mut places) = (0, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let address = words.next().and_then(|w| u64::from_str_radix(w, 16).ok());
        let (Some(address), Some(kind)) = (address, words.next()) else { continue };
        let name = words.collect::<Vec<_>>().join(" ");
        let what = format!("go{} {mode}: {name} at {address:#x}", toolchain.release);
        let place = match name.as_str() {
            "runtime.text" => Some(module.text),
            "runtime.firstmoduledata" => Some(module.addr),
            "runtime.noptrdata" => Some(module.noptrdata.0),
            "runtime.edata" => Some(module.data.1),
            "runtime.bss" => Some(module.bss.0),
            "runtime.rodata" => Some(module.rodata),
            "runtime.types" => Some(module.types),
            "runtime.etypes" => Some(module.etypes),
            "go:func.*" | "go.func.*" => Some(module.gofunc),
            _ => None,
        };
        if let Some(place) = place {
            assert_eq!(place, address, "{what}");
            places += 1;
        }
        let code = kind.eq_ignore_ascii_case("t") && (module.text..module.etext).contains(&address);
        // Go 1.19 elides type arguments in pclntab.
        if !code || matches!(name.as_str(), "runtime.text" | "runtime.etext") || name.contains('[') {
            continue;
        }
        let Some(f) = bin.find_func(address) else { panic!("{what}: no function") };
        assert_eq!(f.entry(), address, "{what}");
        // The linker writes compiler-generated names with a plain dot into the symbol table.
        assert_eq!(f.name().replace('·', "."), name.strip_suffix(".abi0").unwrap_or(&name), "{what}");
        functions += 1;
    }
    assert!(places >= 5 && functions > 1000, "go{} {mode}: {places}, {functions}", toolchain.release);
    for name in ["runtime.gopanic", "runtime.newproc", "runtime.goexit1", "runtime.asyncPreempt2"] {
        let f = bin.function(name).expect(name);
        assert_ne!(f.func_id(), FuncId::Wrapper, "{name}: the body, not the adapter");
    }
    functions + places
}

fn compare(toolchain: &Toolchain, mode: &str, exe: &Path) -> usize {
    let bin = gobin::open(exe).unwrap_or_else(|e| panic!("go{} {mode}: {e}", toolchain.release));
    assert_eq!(bin.version().raw, format!("go{}", toolchain.release));
    assert_eq!(bin.is_pie(), mode.contains("pie"));
    assert_eq!(bin.has_symtab(), !mode.contains("stripped"));
    assert_eq!(bin.has_dwarf(), !mode.contains("stripped"));
    let output = Command::new(exe).output().expect("it runs");
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut lines = text.lines().peekable();
    let main: u64 =
        lines.next().and_then(|l| l.strip_prefix("main.main\t")).expect("main").parse().expect("pc");
    let bias = main.wrapping_sub(bin.function("main.main").expect("main.main").entry());
    let mut words = lines.next().and_then(|l| l.strip_prefix("type\t")).expect("a type").split('\t');
    let at: u64 = words.next().expect("an address").parse().expect("a number");
    let descriptor = bin.read_only_memory(bias).bytes(at, 48).expect("in the file");
    let hex: String = descriptor.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(Some(hex.as_str()), words.next(), "go{} {mode}: type descriptor", toolchain.release);
    assert!(bin.read_only_memory(bias).u64(bin.moduledata().data.0.wrapping_add(bias)).is_none(), "writable");
    let mut compared = 0;
    while let Some(line) = lines.next() {
        let pc: u64 = line.strip_prefix("pc\t").expect("pc").parse().expect("pc");
        let mut theirs = Vec::new();
        while let Some(frame) = lines.next_if(|l| l.starts_with("f\t")) {
            theirs.push(frame.to_owned());
        }
        let frames = bin.frames(pc.wrapping_sub(bias), false);
        // The runtime leaves wrappers out of this list; which ones it shows depends on the callee.
        if frames.iter().any(|f| f.func_id == FuncId::Wrapper) {
            continue;
        }
        let ours: Vec<_> = frames
            .iter()
            .map(|f| {
                let file = f.file.as_deref().unwrap_or("?");
                format!("f\t{}\t{file}\t{}\t{}", f.function, f.line.unwrap_or(0), f.inlined)
            })
            .collect();
        assert_eq!(ours, theirs, "go{} {mode} pc {pc:#x}", toolchain.release);
        compared += 1;
    }
    compared
}

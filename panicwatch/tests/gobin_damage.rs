//! Damaged and truncated binaries: an error or an answer, never a panic, a hang or a large allocation.
//!
//! Tests many prefixes and many flipped bits of real programs; damage that only a search finds is left to the
//! targets of `panicwatch/fuzz`.

#[path = "support/alloc.rs"]
mod alloc;
#[path = "support/exercise.rs"]
mod exercise;
mod support;

use std::{
    ops::Range,
    sync::{Arc, LazyLock},
};

use expect_test::expect;
use panicwatch::{
    gobin::{Error, GoBinary, SharedBytes, offsets::InitTask, tables},
    gotype::TypeContext,
    inittasks,
    memory::{Memory, Snapshot},
};
use support::{fixture, toolchains};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

const MODES: [(&str, &[&str]); 3] = [
    ("default", &[]),
    ("pie stripped", &["-buildmode=pie", "-ldflags=-s -w -checklinkname=0"]),
    ("external pie", &["-buildmode=pie", "-ldflags=-linkmode=external -checklinkname=0"]),
];

/// Bound of the memory for reading headers and tables, whatever they claim; three decoded tables of one
/// function are the largest part.
const MAX_TABLES: usize = 24 << 20;
/// Bound of the memory with values, stacks and debug information.
const MAX_ALL: usize = 64 << 20;

/// The first bytes of a file: its contents and the length.
struct Cut(Arc<Vec<u8>>, usize);

impl AsRef<[u8]> for Cut {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// An undamaged program and the addresses of type descriptors in it.
struct Program {
    what: String,
    bytes: Vec<u8>,
    types: Vec<u64>,
}

/// Programs of the oldest, a middle and the newest installed release.
static PROGRAMS: LazyLock<Vec<Program>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().expect("a directory");
    let found = toolchains();
    let picked = [found.first(), found.iter().find(|t| t.version().minor() == 24), found.last()];
    let mut out = Vec::new();
    for toolchain in picked.into_iter().flatten() {
        for (mode, flags) in MODES {
            let exe = dir.path().join("stacks");
            let checked = toolchain.version().linker_checks_linknames();
            let flags: Vec<_> = flags
                .iter()
                .map(|f| if checked { (*f).to_owned() } else { f.replace(" -checklinkname=0", "") })
                .collect();
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            toolchain.build(&fixture("stacks"), &flags, &exe);
            let bytes = std::fs::read(&exe).expect("the program");
            let bin = GoBinary::parse(Arc::new(bytes.clone())).expect("undamaged");
            let mut types = exercise::type_addresses(&bin, 12);
            types.truncate(24);
            assert!(types.len() > 20, "{} types", types.len());
            out.push(Program { what: format!("go{} {mode}", toolchain.release), bytes, types });
        }
    }
    out
});

/// Queries on a damaged program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// Reads the headers, and the code at this many addresses.
    Code(u64),
    /// Iterates over all functions: the probe plan and the init tasks.
    Whole,
    Types,
    Debug,
}

/// Runs the queries. Returns the number of frames found for [`Ask::Code`], otherwise 1; 0 if reading fails.
fn ask(bytes: &SharedBytes, types: &[u64], what: Ask) -> usize {
    if what == Ask::Debug {
        return usize::from(exercise::debug_info((**bytes).as_ref()).is_ok());
    }
    let Ok(bin) = exercise::open(Arc::clone(bytes)) else { return 0 };
    match what {
        Ask::Code(n) => return exercise::spread(&bin, n).map(|pc| exercise::code_at(&bin, pc)).sum(),
        Ask::Whole => exercise::whole(&bin),
        Ask::Types | Ask::Debug => {
            let context = TypeContext::of(&bin, 0);
            let mut heap = Snapshot::new();
            heap.add(exercise::HEAP, exercise::hostile_memory(types));
            exercise::labels_in(&heap);
            types.iter().for_each(|&addr| exercise::type_at(&bin, &context, addr, &heap));
        }
    }
    1
}

/// Like [`ask`], and checks the peak of the allocated memory.
fn ask_bounded(bytes: &SharedBytes, types: &[u64], what: Ask, how: &str) -> usize {
    let (found, height) = alloc::height(|| ask(bytes, types, what));
    let most = if matches!(what, Ask::Code(_) | Ask::Whole) { MAX_TABLES } else { MAX_ALL };
    assert!(height <= most, "{how}, {what:?}: {height} bytes of memory");
    found
}

#[test]
fn every_prefix_is_read_or_refused() {
    for Program { what, bytes, types } in PROGRAMS.iter() {
        let data = Arc::new(bytes.clone());
        let cut = |len: usize| -> SharedBytes { Arc::new(Cut(Arc::clone(&data), len.min(data.len()))) };
        let whole = ask_bounded(&cut(data.len()), types, Ask::Code(97), what);
        assert!(whole > 90, "{what}: {whole} frames");
        let head = (0..0x400).chain((0x400..0x4000).step_by(61));
        let rest = (1..400).map(|i| data.len() / 400 * i);
        let mut read = 0;
        for (i, len) in head.chain(rest).enumerate() {
            let how = format!("{what}, the first {len} bytes");
            read += usize::from(ask_bounded(&cut(len), types, Ask::Code(12), &how) > 0);
            if i % 8 == 0 {
                for what in [Ask::Whole, Ask::Types, Ask::Debug] {
                    ask_bounded(&cut(len), types, what, &how);
                }
            }
        }
        println!("{what}: {read} of the prefixes could still be read");
    }
}

/// A part of a program whose bits are flipped, and the queries that read it.
struct Region {
    name: &'static str,
    range: Range<usize>,
    ask: Ask,
    /// Distance between two flips, in bits.
    step: usize,
}

/// Returns the regions where damage matters. In small tables every bit is flipped, in the others some hundred
/// bits.
fn regions(program: &Program) -> Vec<Region> {
    let bin = GoBinary::parse(Arc::new(program.bytes.clone())).expect("undamaged");
    let size = program.bytes.len();
    let at = |vaddr: u64, len: u64| {
        let at = bin.file_offset(vaddr).expect("in the file") as usize;
        at..(at + len as usize).min(size)
    };
    let section = |name: &str| {
        let start = |data: &[u8]| data.as_ptr() as usize - bin.file_bytes().as_ptr() as usize;
        bin.section_data(name).map(|data| start(data)..start(data) + data.len())
    };
    let module = bin.moduledata();
    let table = bin.word(module.addr).expect("pcHeader");
    let ftab = bin.word(module.addr + u64::from(bin.layout().moduledata.ftab)).expect("ftab");
    let functions = 8 * bin.function_count();
    let gopanic = bin.function("runtime.gopanic").expect("a function");
    let program_headers = usize::from(u16::from_le_bytes([program.bytes[56], program.bytes[57]])) * 56;
    let code = Ask::Code(4);
    let mut out = Vec::new();
    let mut add = |name, range: Range<usize>, ask, flips: usize| {
        let bits = range.len() * 8;
        out.push(Region { name, range, ask, step: (bits / flips).max(1) });
    };
    add("ELF header", 0..64, code, usize::MAX);
    add("program headers", 64..64 + program_headers, code, 800);
    add("pclntab header", at(table, 0x48), code, usize::MAX);
    add("pclntab header", at(table, 0x48), Ask::Whole, 100);
    add("moduledata", at(module.addr, bin.layout().moduledata.size.into()), code, 800);
    add("moduledata", at(module.addr, bin.layout().moduledata.size.into()), Ask::Whole, 100);
    add("ftab", at(ftab, functions), Ask::Code(97), 60);
    add("functions", at(ftab + functions, 0x8000), Ask::Code(97), 60);
    add("names and pc-value tables", at(table, ftab - table), Ask::Code(97), 60);
    add("inline trees", at(module.gofunc, 0x4000), Ask::Code(97), 60);
    add("gopanic's code", at(gopanic.entry(), gopanic.end() - gopanic.entry()), Ask::Whole, 100);
    add("types", at(module.types, module.etypes - module.types), Ask::Types, 50);
    for &addr in program.types.iter().take(20) {
        add("a type", at(addr, 0x80), Ask::Types, 10);
    }
    if let Some((list, count)) = module.inittasks {
        add("init tasks", at(list, 8 * count), Ask::Whole, 100);
    }
    for name in [".rela", ".rela.dyn", ".dynamic", ".shstrtab", ".go.buildinfo", ".note.go.buildid"] {
        section(name).into_iter().for_each(|range| add(name, range, code, 100));
    }
    let sections = (u64::from_le_bytes(program.bytes[40..48].try_into().expect("e_shoff"))) as usize;
    add("section headers", sections..(sections + 0x800).min(size), code, 400);
    if bin.has_dwarf() {
        add("section headers", sections..(sections + 0x800).min(size), Ask::Debug, 12);
    }
    for name in [".debug_info", ".debug_abbrev"] {
        section(name).into_iter().for_each(|range| add(name, range, Ask::Debug, 12));
    }
    out
}

#[test]
fn every_flipped_bit_of_the_oldest_is_survived() {
    flip(0);
}

#[test]
fn every_flipped_bit_of_the_middle_is_survived() {
    flip(1);
}

#[test]
fn every_flipped_bit_of_the_newest_is_survived() {
    flip(2);
}

/// Flips bits in all programs of one release.
#[expect(clippy::print_stdout, reason = "counts, and a skip that is said aloud")]
fn flip(release: usize) {
    let Some(programs) = PROGRAMS.chunks(MODES.len()).nth(release) else {
        return println!("skipped: no third Go toolchain");
    };
    for program in programs {
        let what = &program.what;
        let mut data = Arc::new(program.bytes.clone());
        let (mut flips, mut refused) = (0, 0);
        for Region { name, range, ask, step } in regions(program) {
            for bit in (0..range.len() * 8).step_by(step) {
                // First flips a single bit, then sets all bytes of the word: counts and offsets become huge.
                let at = range.start + bit / 8;
                for huge in [false, true] {
                    let len = if huge { 8.min(program.bytes.len() - at) } else { 1 };
                    let bytes = Arc::get_mut(&mut data).expect("nobody holds it");
                    if huge {
                        bytes[at..at + len].fill(0xff)
                    } else {
                        bytes[at] ^= 1 << (bit % 8)
                    }
                    let shared: SharedBytes = Arc::clone(&data) as SharedBytes;
                    let how = format!("{what}, {name}, bit {} of byte {at:#x}", bit % 8);
                    refused += usize::from(ask_bounded(&shared, &program.types, ask, &how) == 0);
                    flips += 1;
                    drop(shared);
                    let bytes = Arc::get_mut(&mut data).expect("nobody holds it");
                    bytes[at..at + len].copy_from_slice(&program.bytes[at..at + len]);
                    // A word of all ones is the same whichever bit selects it.
                    if bit % 64 >= step {
                        break;
                    }
                }
            }
        }
        println!("{what}: {refused} of {flips} refused");
        assert!(refused > 0, "{what}: no damage noticed at all");
    }
}

/// Returns the error for a program with `patch` at offset `at`.
fn error_with(program: &Program, at: usize, patch: &[u8]) -> String {
    let mut bytes = program.bytes.clone();
    bytes[at..at + patch.len()].copy_from_slice(patch);
    error(bytes)
}

/// Returns the parse error without addresses and sizes, which differ from release to release.
fn error(bytes: Vec<u8>) -> String {
    let Err(error) = GoBinary::parse(Arc::new(bytes)) else { return "no error".to_owned() };
    let mut text = String::new();
    for word in error.to_string().split(' ') {
        let (word, end) = word.strip_suffix(';').map_or((word, ""), |word| (word, ";"));
        let hex = word.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16).ok());
        let number = hex.unwrap_or_else(|| word.parse().ok()).filter(|&n| n > 64);
        // Removes the rest of the release number behind the replaced part.
        let word = word.split("99").next().unwrap_or_default();
        text.push_str(if number.is_some() { "N" } else { word });
        text.push_str(end);
        text.push(' ');
    }
    text.trim_end().to_owned()
}

#[test]
fn the_error_names_what_is_damaged() {
    let Some(program) = PROGRAMS.first() else { return println!("skipped: no Go toolchain") };
    let bin = GoBinary::parse(Arc::new(program.bytes.clone())).expect("undamaged");
    let at = |vaddr: u64| bin.file_offset(vaddr).expect("in the file") as usize;
    let table = bin.word(bin.moduledata().addr).expect("pcHeader");
    let buildinfo = bin.section_data(".go.buildinfo").expect("a section");
    let buildinfo = buildinfo.as_ptr() as usize - bin.file_bytes().as_ptr() as usize;
    let (first, module) = (at(table), at(bin.moduledata().addr));
    let ends = |len: usize| error(program.bytes[..len].to_vec());
    let errors = [
        ("empty", ends(0)),
        ("cut off behind the ELF header", ends(64)),
        ("cut off in the pclntab", ends(first + 0x20)),
        ("cut off in moduledata", ends(module + 0x20)),
        ("another machine", error_with(program, 18, &[0xb, 0xb])),
        ("a segment round the end of memory", error_with(program, 64 + 2 * 56 + 16, &[0xff; 16])),
        ("a release of the future", error_with(program, buildinfo + 33, b"go1.99")),
        ("a release without end", error_with(program, buildinfo + 32, &[0xff; 8])),
        ("another magic", error_with(program, first, &[0xaa; 4])),
        ("2^64 functions", error_with(program, first + 8, &[0xff; 8])),
        ("2^32 functions", error_with(program, first + 8, &[0, 0, 0, 0, 1, 0, 0, 0])),
        ("names behind the other tables", error_with(program, first + 0x20, &[0xff; 8])),
        ("moduledata of another pclntab", error_with(program, module, &[0xff; 8])),
    ];
    let text: String = errors.iter().map(|(how, error)| format!("{how}: {error}\n")).collect();
    expect![[r#"
        empty: not a 64-bit little-endian ELF file: Invalid ELF header size or alignment
        cut off behind the ELF header: not a 64-bit little-endian ELF file: Invalid ELF program header size or alignment
        cut off in the pclntab: not a Go program: it has no Go build information, which Go 1.13 and later write; the file is truncated, it has N of the N bytes that its headers name
        cut off in moduledata: malformed moduledata (none found for the pclntab) at N; the file is truncated, it has N of the N bytes that its headers name
        another machine: unsupported ELF machine: N
        a segment round the end of memory: malformed program header at N
        a release of the future: unsupported Go release (the layout of its runtime's structs is unknown): go1.
        a release without end: malformed build information at N
        another magic: unsupported pclntab magic: N
        2^64 functions: malformed pclntab (more functions than it has room for) at N
        2^32 functions: malformed pclntab (more functions than it has room for) at N
        names behind the other tables: malformed pclntab header at N
        moduledata of another pclntab: malformed moduledata (none found for the pclntab) at N
    "#]].assert_eq(&text);
}

#[test]
fn an_inline_tree_that_goes_in_circles_ends() {
    for Program { what, bytes, .. } in PROGRAMS.iter() {
        let bin = GoBinary::parse(Arc::new(bytes.clone())).expect("undamaged");
        let (size, parent) = if bin.version().release.inline_tree_is_compact() { (16, 8) } else { (20, 16) };
        let inlined = bin.functions().find_map(|f| {
            let tree = bin.file_offset(f.funcdata(tables::FUNCDATA_INL_TREE)?)?;
            let pc = (f.entry()..f.end()).find(|&pc| f.frames_at(pc).len() > 1)?;
            let index = f.pcdata(tables::PCDATA_INL_TREE, pc)?;
            Some((pc, pc - f.entry(), tree as usize + size * index as usize + parent))
        });
        let (pc, offset, at) = inlined.expect("a function with inlined calls");
        let mut damaged = bytes.clone();
        damaged[at..at + 4].copy_from_slice(&(offset as u32).to_le_bytes());
        let damaged = GoBinary::parse(Arc::new(damaged)).expect("the rest is whole");
        let (frames, height) = alloc::height(|| damaged.frames(pc, true).len());
        assert!((3..=257).contains(&frames), "{what}: {frames} frames");
        assert!(height < 1 << 20, "{what}: {height} bytes");
    }
}

/// Memory with an init task that lists the same function many times.
struct Endless {
    task: u64,
    layout: InitTask,
    function: u64,
}

impl Memory for Endless {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        let field = addr.wrapping_sub(self.task);
        let value = if addr >> 40 == 0 {
            self.task
        } else if field == u64::from(self.layout.state) {
            1
        } else if field == u64::from(self.layout.nfns) {
            1 << 16
        } else {
            self.function
        };
        buf.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        true
    }
}

#[test]
fn a_task_of_the_same_function_many_times_costs_no_gigabyte() {
    for Program { what, bytes, .. } in PROGRAMS.iter() {
        let bin = GoBinary::parse(Arc::new(bytes.clone())).expect("undamaged");
        if bin.moduledata().inittasks.is_none() {
            println!("SKIPPED {what}: no list of init tasks in this release");
            continue;
        }
        let longest = bin.functions().max_by_key(|f| f.name().len()).expect("a function");
        let memory = Endless { task: 1 << 40, layout: bin.layout().init_task, function: longest.entry() };
        let (found, height) = alloc::height(|| inittasks::progress(&memory, &bin, 0));
        assert!(found.is_err_and(|reason| reason.contains("names that are too long")), "{what}");
        assert!(height < MAX_TABLES, "{what}: {height} bytes");
    }
}

#[test]
fn what_is_no_go_program_is_refused_with_a_reason() {
    let parse = |b: &[u8]| GoBinary::parse(Arc::new(b.to_vec())).map(|_| ()).unwrap_err();
    assert!(matches!(parse(b""), Error::NotElf { .. }));
    assert!(matches!(parse(b"#!/bin/sh\n"), Error::NotElf { .. }));
    let own = std::fs::read("/proc/self/exe").expect("this test");
    assert!(matches!(parse(&own), Error::NotGo), "a Rust program");
}

//! Damaged and cut-off binaries: an error or an answer, never a panic, a hang or a large allocation.

mod support;

use std::sync::Arc;

use panicwatch::{
    gobin::{Error, GoBinary, SharedBytes, identify, tables},
    memory::Snapshot,
    traceback::{Stack, Start, Visibility, creator, traceback},
};
use support::{fixture, toolchains};

const MODES: [(&str, &[&str]); 3] = [
    ("default", &[]),
    ("pie stripped", &["-buildmode=pie", "-ldflags=-s -w -checklinkname=0"]),
    ("external pie", &["-buildmode=pie", "-ldflags=-linkmode=external -checklinkname=0"]),
];

/// The first bytes of a file.
struct Cut(Arc<Vec<u8>>, usize);

impl AsRef<[u8]> for Cut {
    fn as_ref(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

/// Binaries of the oldest, a middle and the newest release found.
fn binaries() -> Vec<(String, Vec<u8>)> {
    let dir = tempfile::tempdir().expect("a directory");
    let found = toolchains();
    let picked = [found.first(), found.iter().find(|t| t.minor() == 24), found.last()];
    let mut out = Vec::new();
    for toolchain in picked.into_iter().flatten() {
        for (mode, flags) in MODES {
            let exe = dir.path().join("stacks");
            let flags: Vec<_> = flags
                .iter()
                .map(|f| {
                    if toolchain.minor() < 23 { f.replace(" -checklinkname=0", "") } else { (*f).to_owned() }
                })
                .collect();
            let flags: Vec<_> = flags.iter().map(String::as_str).collect();
            toolchain.build(&fixture("stacks"), &flags, &exe);
            out.push((format!("go{} {mode}", toolchain.release), std::fs::read(&exe).expect("the binary")));
        }
    }
    out
}

/// Asks everything; what it answers does not matter. The number of frames found.
fn exercise(bytes: SharedBytes) -> usize {
    let _ = identify(Arc::clone(&bytes));
    let Ok(bin) = GoBinary::parse(bytes) else { return 0 };
    let _ = (bin.build_info(), bin.gnu_build_id(), bin.go_build_id(), bin.has_dwarf());
    let _ = (bin.symbol("runtime.g0"), bin.function("main.main"), bin.inlined_call_count());
    let module = bin.moduledata().clone();
    for at in [module.types, module.rodata, module.gofunc, module.addr, u64::MAX - 3] {
        let _ = (bin.read_static(at, 64), bin.word(at), bin.file_offset(at));
    }
    let step = (module.etext.wrapping_sub(module.text) / 97).max(1);
    let mut frames = 0;
    for i in 0..97u64 {
        let pc = module.text.wrapping_add(step.wrapping_mul(i));
        let Some(f) = bin.find_func(pc) else { continue };
        frames += bin.frames(pc, false).len();
        let _ = (f.display_name(), f.spdelta(pc), f.pcdata(tables::PCDATA_STACK_MAP, pc), f.deferreturn());
        let _ = (f.funcdata(tables::FUNCDATA_OPEN_CODED_DEFER), f.start_line(), f.args(), f.func_id());
        let _ = bin.code(f.entry(), f.end());
        let mut memory = Snapshot::new();
        memory.add(0x1000, [pc.to_le_bytes(); 64].concat());
        let stack = Stack { bin: &bin, bias: 0, memory: &memory };
        let _ = traceback(&stack, Start::returning_to(pc, 0x1000), Visibility::USER);
        let _ = creator(&bin, 0, pc);
    }
    frames
}

#[test]
fn every_prefix_is_read_or_refused() {
    for (what, data) in binaries() {
        let data = Arc::new(data);
        let whole = exercise(Arc::new(Cut(Arc::clone(&data), data.len())));
        assert!(whole > 90, "{what}: {whole} frames");
        let head = (0..0x400).chain((0x400..0x4000).step_by(61));
        let rest = (1..400).map(|i| data.len() / 400 * i);
        let mut read = 0;
        for len in head.chain(rest) {
            read += usize::from(exercise(Arc::new(Cut(Arc::clone(&data), len.min(data.len())))) > 0);
        }
        println!("{what}: {read} of the prefixes could still be read");
    }
}

#[test]
fn every_kind_of_damage_is_survived() {
    for (what, data) in binaries() {
        let bin = GoBinary::parse(Arc::new(data.clone())).expect("undamaged");
        // Where damage matters: headers at both ends, and the tables this decoder reads.
        let at = |vaddr| bin.file_offset(vaddr).expect("in the file") as usize;
        let table = bin.word(bin.moduledata().addr).expect("pcHeader");
        let ftab = bin.word(bin.moduledata().addr + 128).expect("ftab");
        let regions = [
            (0, 0x400),
            (data.len() - 0x1000, 0x1000),
            (at(table), 0x50),
            (at(ftab), 0x4000),
            (at(bin.moduledata().addr), 0x200),
            (at(bin.moduledata().gofunc), 0x4000),
        ];
        drop(bin);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut refused = 0;
        for round in 0..1500 {
            let mut damaged = data.clone();
            let (start, len) = regions[round % regions.len()];
            let at = start + next() as usize % len;
            match next() % 4 {
                0 => damaged[at..(at + 8).min(data.len())].fill(0xff),
                1 => damaged[at..(at + 8).min(data.len())].fill(0),
                2 => damaged[at] = next() as u8,
                _ => damaged[at] ^= 1 << (next() % 8),
            }
            refused += usize::from(exercise(Arc::new(damaged)) == 0);
        }
        println!("{what}: {refused} of 1500 refused");
        assert!(refused > 0, "{what}: no damage noticed at all");
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

//! Targets that damage whole Go programs: the first byte of an input selects the program.

use std::{
    ops::Range,
    sync::{Arc, LazyLock, Mutex},
};

use panicwatch::go::{
    gobin::{GoBinary, SharedBytes, tables},
    gotype::TypeContext,
    memory::Snapshot,
};

use crate::{
    base::{self, Base, Survey},
    exercise,
};

/// Number of addresses looked up per run.
const ADDRESSES: usize = 12;

/// Programs, loaded on first use. libFuzzer runs one input at a time, so the lock is never contended.
struct Programs(LazyLock<Mutex<Vec<Base>>>);

impl Programs {
    const fn new(load: fn() -> Mutex<Vec<Base>>) -> Self {
        Self(LazyLock::new(load))
    }

    fn run(&self, input: &[u8], run: impl FnOnce(SharedBytes, &[u64], &[u8])) {
        let Some((&which, rest)) = input.split_first() else { return };
        let mut programs = self.0.lock().expect("no run panicked before");
        let count = programs.len();
        programs[usize::from(which) % count].patched(rest, run);
    }
}

macro_rules! programs {
    ($name:ident, $prefix:literal, $survey:expr) => {
        static $name: Programs = Programs::new(|| Mutex::new(base::load($prefix, $survey as Survey)));
    };
}

/// Returns the file range of the `len` bytes at `vaddr`, clamped to the file; empty if no segment contains
/// `vaddr`.
fn at(bin: &GoBinary, vaddr: u64, len: u64) -> Range<usize> {
    match bin.file_offset(vaddr).and_then(|at| usize::try_from(at).ok()) {
        Some(at) => at..(at + len as usize).min(bin.file_bytes().len()),
        None => 0..0,
    }
}

/// Returns the file range of a section; empty if there is no such section.
fn section(bin: &GoBinary, name: &str) -> Range<usize> {
    let file = bin.file_bytes();
    bin.section_data(name).map_or(0..0, |data| {
        let start = data.as_ptr() as usize - file.as_ptr() as usize;
        start..start + data.len()
    })
}

fn spread(bin: &GoBinary) -> Vec<u64> {
    exercise::spread(bin, ADDRESSES as u64).collect()
}

programs!(ELF, "tables", |bin| {
    let head = bin.file_bytes();
    let word = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
    let (phoff, shoff) = (word(32) as usize, word(40) as usize);
    let size = head.len();
    let table = |at: usize| at.min(size)..(at + 0x800).min(size);
    let regions = vec![0..64, table(phoff), table(shoff), section(bin, ".shstrtab")];
    let more = [".dynamic", ".rela", ".rela.dyn", ".note.go.buildid", ".note.gnu.build-id", ".go.buildinfo"];
    (regions.into_iter().chain(more.map(|name| section(bin, name))).collect(), spread(bin))
});

/// Fuzzes ELF parsing: an input with the ELF magic is parsed as a file; any other input patches a program's
/// headers.
pub fn elf(input: &[u8]) {
    if input.starts_with(b"\x7fELF") {
        if let Ok(bin) = exercise::open(Arc::new(input.to_vec())) {
            exercise::whole(&bin);
        }
        let _ = exercise::debug_info(input);
        return;
    }
    ELF.run(input, |bytes, addresses, _| {
        let Ok(bin) = exercise::open(bytes) else { return };
        for &pc in addresses.iter().take(4) {
            exercise::code_at(&bin, pc);
        }
    });
}

/// Returns the address of ftab, as moduledata has it.
fn ftab(bin: &GoBinary) -> u64 {
    let offset = bin.layout().moduledata.ftab;
    bin.word(bin.moduledata().addr.wrapping_add(offset.into())).unwrap_or_default()
}

fn pclntab_start(bin: &GoBinary) -> u64 {
    bin.word(bin.moduledata().addr).unwrap_or_default()
}

programs!(PCLNTAB, "tables", |bin| {
    let (table, ftab) = (pclntab_start(bin), ftab(bin));
    let functions = bin.function_count() * 8;
    let regions = vec![
        at(bin, table, 0x48),
        at(bin, ftab, functions),
        at(bin, ftab + functions, 0x8000),
        // funcnametab, cutab, filetab, pctab
        at(bin, table, ftab - table),
    ];
    (regions, spread(bin))
});

/// Fuzzes the pclntab: header, ftab, _func records, names and pc-value tables.
pub fn pclntab(input: &[u8]) {
    PCLNTAB.run(input, |bytes, addresses, rest| {
        let Ok(bin) = exercise::open(bytes) else { return };
        for &pc in addresses {
            exercise::code_at(&bin, pc);
        }
        if rest.first().is_some_and(|b| b % 8 == 0) {
            exercise::whole(&bin);
        }
    });
}

/// Finds addresses with inlined calls, and the file ranges of the tables that describe those calls.
fn inlined(bin: &GoBinary) -> (Vec<Range<usize>>, Vec<u64>) {
    let mut regions = vec![at(bin, ftab(bin) + 8 * bin.function_count(), 0x4000)];
    let mut addresses = Vec::new();
    for f in bin.functions() {
        let Some(tree) = f.funcdata(tables::FUNCDATA_INL_TREE) else { continue };
        let Some(pc) = (f.entry()..f.end()).step_by(7).find(|&pc| bin.frames(pc, true).len() > 2) else {
            continue;
        };
        regions.push(at(bin, tree, 0x80));
        addresses.push(pc);
        if addresses.len() == ADDRESSES {
            break;
        }
    }
    let table = pclntab_start(bin);
    let pctab = bin.word(table + 0x38).unwrap_or_default();
    regions.push(at(bin, table.wrapping_add(pctab), 0x8000));
    (regions, addresses)
}

programs!(INLINE, "tables", inlined);

/// Fuzzes inline trees and the tables that index them.
pub fn inline_tree(input: &[u8]) {
    INLINE.run(input, |bytes, addresses, _| {
        let Ok(bin) = GoBinary::parse(bytes) else { return };
        for &pc in addresses {
            let _ = bin.frames(pc, true);
            exercise::code_at(&bin, pc);
        }
    });
}

programs!(MODULEDATA, "tables", |bin| {
    let module = bin.moduledata();
    let tasks = module.inittasks.map_or(0..0, |(list, count)| at(bin, list, 8 * count));
    let size = u64::from(bin.layout().moduledata.size);
    let relocations = [".rela", ".rela.dyn"].map(|name| section(bin, name));
    let regions = [at(bin, module.addr, size), tasks, section(bin, ".go.module")];
    (regions.into_iter().chain(relocations).collect(), spread(bin))
});

/// Fuzzes moduledata and the init tasks it lists.
pub fn moduledata(input: &[u8]) {
    MODULEDATA.run(input, |bytes, addresses, _| {
        let Ok(bin) = exercise::open(bytes) else { return };
        for &pc in addresses.iter().take(8) {
            exercise::code_at(&bin, pc);
        }
        exercise::whole(&bin);
    });
}

programs!(TYPES, "types", |bin| {
    let addresses = exercise::type_addresses(bin, 100);
    let module = bin.moduledata();
    // One region around each descriptor, then one region for all of them.
    let mut regions: Vec<_> = addresses.iter().map(|&addr| at(bin, addr, 0x100)).collect();
    regions.push(at(bin, module.types, module.etypes - module.types));
    (regions, addresses)
});

/// Fuzzes type data and the values decoded with it. After the patches, one byte selects the type, and the
/// remaining bytes overwrite the memory that holds the values.
pub fn gotype(input: &[u8]) {
    TYPES.run(input, |bytes, addresses, rest| {
        let Ok(bin) = GoBinary::parse(bytes) else { return };
        let context = TypeContext::of(&bin, 0);
        let (which, memory) = rest.split_first().map_or((0, rest), |(&b, tail)| (usize::from(b), tail));
        let mut page = exercise::hostile_memory(addresses);
        let len = memory.len().min(page.len());
        page[..len].copy_from_slice(&memory[..len]);
        let mut heap = Snapshot::new();
        heap.add(exercise::HEAP, page);
        exercise::labels_in(&heap);
        for i in 0..4 {
            exercise::type_at(&bin, &context, addresses[(which + i) % addresses.len()], &heap);
        }
    });
}

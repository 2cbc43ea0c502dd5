//! Calls every query on a binary that may be damaged. The answers do not matter, only that each call returns.
//!
//! Shared by the sweeps (`gobin_damage`) and the fuzz targets (`panicwatch/fuzz`). Must not depend on how the
//! bytes were damaged.

use std::{num::NonZero, sync::Arc};

use panicwatch::{
    go::{
        defers,
        disasm::{self, Code, Raise},
        gobin::{Error, GoBinary, GoVersion, RuntimeLayout, SharedBytes, dwarf, identify, tables},
        gotype::{TypeContext, Types},
        inittasks,
        memory::{Layered, Snapshot},
        raises,
        release::Release,
        traceback::{Stack, Start, Unwinder, Visibility, creator, shows_creator, traceback},
        value::{Decoder, Eface, labels},
    },
    plan,
    symbolize::{Lookup, Symbolizer, batch::Batch},
};

/// Address of [`hostile_memory`].
pub(crate) const HEAP: u64 = 0x7000_0000;

/// Parses the headers and calls everything that needs no more than them; returns the program, or why it is
/// not one.
pub(crate) fn open(bytes: SharedBytes) -> Result<GoBinary, Error> {
    let _ = identify(Arc::clone(&bytes));
    let bin = GoBinary::parse(bytes)?;
    let _ = (bin.build_info(), bin.gnu_build_id(), bin.go_build_id(), bin.has_dwarf(), bin.has_symtab());
    let _ = (bin.symbol("runtime.g0"), bin.section_data(".note.go.buildid"), bin.is_pie());
    let module = bin.moduledata().clone();
    for at in [module.types, module.rodata, module.gofunc, module.addr, u64::MAX - 3] {
        let _ = (bin.read_static(at, 64), bin.word(at), bin.file_offset(at));
    }
    Ok(bin)
}

/// Returns `n` addresses spread over the program's text, as moduledata has it.
pub(crate) fn spread(bin: &GoBinary, n: u64) -> impl Iterator<Item = u64> + use<> {
    let module = bin.moduledata();
    let (text, step) = (module.text, (module.etext.wrapping_sub(module.text) / n).max(1));
    (0..n).map(move |i| text.wrapping_add(step.wrapping_mul(i)))
}

/// Calls everything about the code at `pc` and returns the number of frames there.
pub(crate) fn code_at(bin: &GoBinary, pc: u64) -> usize {
    let Some(f) = bin.find_func(pc) else { return 0 };
    let frames = bin.frames(pc, false).len();
    let _ = (f.display_name(), f.spdelta(pc), f.pcdata(tables::PCDATA_STACK_MAP, pc), f.deferreturn());
    let _ = (f.funcdata(tables::FUNCDATA_OPEN_CODED_DEFER), f.start_line(), f.args(), f.func_id());
    if let Some(bytes) = bin.code(f.entry(), f.end()) {
        let name = |at| bin.find_func(at).map(|f| f.name().into_owned());
        let code = Code { entry: f.entry(), bytes };
        let _ = disasm::around(code, Raise::CallReturningTo(pc), 3, 3, &name);
    }
    // A stack on which this address is every return address.
    let mut memory = Snapshot::new();
    memory.add(0x1000, [pc.to_le_bytes(); 64].concat());
    let stack = Stack { bin, bias: 0, memory: &memory };
    let start = Start::returning_to(pc, 0x1000);
    let _ = traceback(&stack, start, Visibility::USER);
    let activations = Unwinder::new(&stack, start, 100).map(Into::into);
    let _ = defers::pending(&memory, bin, 0, 0x1008, activations, true);
    let _ = (creator(bin, 0, pc), shows_creator(bin, 0, pc, 1, Visibility::USER));
    let _ = raises::raised_by(bin, pc);
    let mut text = Vec::new();
    let symbolizer = Symbolizer::new(bin, 0);
    let mut batch = Batch::new(&symbolizer, Lookup::Return, NonZero::<usize>::MIN.saturating_add(1));
    [pc, f.entry(), f.end()].into_iter().for_each(|pc| batch.push(pc));
    batch.write(&mut text).expect("memory has room");
    frames
}

/// Calls everything that iterates over all functions or init tasks.
pub(crate) fn whole(bin: &GoBinary) {
    let _ = (bin.function("main.main"), bin.uses_cgo(), plan::plan(bin), bin.inlined_call_count());
    let _ = inittasks::progress(&bin.read_only_memory(0), bin, 0);
    // With every init task in progress.
    let memory = Layered { first: bin.read_only_memory(0), second: Repeated(1) };
    let _ = inittasks::progress(&memory, bin, 0);
}

/// Memory in which every read returns this byte followed by zeros.
struct Repeated(u8);

impl panicwatch::go::memory::Memory for Repeated {
    fn read(&self, _: u64, buf: &mut [u8]) -> bool {
        buf.fill(0);
        if let Some(first) = buf.first_mut() {
            *first = self.0;
        }
        true
    }
}

/// Returns the addresses of type descriptors: all errors and Stringers, and at most `others` other types.
pub(crate) fn type_addresses(bin: &GoBinary, others: usize) -> Vec<u64> {
    let (context, memory) = (TypeContext::of(bin, 0), bin.read_only_memory(0));
    let types = Types::new(&memory, &context);
    let module = bin.moduledata();
    let (mut speaking, mut silent) = (Vec::new(), Vec::new());
    for addr in (module.types..module.etypes).step_by(8) {
        let Ok(t) = types.get(addr) else { continue };
        let known = types.name(&t).is_ok_and(|n| n.contains('.') && n.chars().all(|c| c.is_ascii_graphic()));
        match types.role(&t) {
            Ok(role) if known && (role.error || role.stringer) => speaking.push(addr),
            Ok(_) if known => silent.push(addr),
            _ => {}
        }
    }
    let step = (silent.len() / others.max(1)).max(1);
    speaking.extend(silent.into_iter().step_by(step).take(others));
    speaking
}

/// Returns a page in which each word is an address in the page itself, a small number, or one of `words`.
pub(crate) fn hostile_memory(words: &[u64]) -> Vec<u8> {
    let mut next = words.iter().copied().cycle();
    let word = |i: u64| match i % 4 {
        0 | 3 => HEAP + i * 40 % 4096,
        1 => i % 64,
        _ => next.next().unwrap_or_default(),
    };
    (0..512).map(word).flat_map(u64::to_le_bytes).collect()
}

/// Calls everything about the type at `addr`, and decodes values of it in `heap` (see [`hostile_memory`]).
pub(crate) fn type_at(bin: &GoBinary, context: &TypeContext, addr: u64, heap: &Snapshot) {
    let memory = Layered { first: heap, second: bin.read_only_memory(0) };
    let types = Types::new(&memory, context);
    if let Ok(t) = types.get(addr) {
        let _ = (types.name(&t), types.package(&t), types.methods(&t), types.role(&t), types.elem(&t));
        let _ = (types.fields(&t), types.array_len(&t), types.interface_methods(&t), types.pointer_to(&t));
    }
    let decoder = Decoder::new(&memory, context).with_code(bin);
    for data in [0, HEAP, HEAP + 8, HEAP + 0x100] {
        let eface = Eface { type_word: addr, data_word: data };
        let raised = decoder.decode(eface);
        let _ = decoder.unresolved(eface);
        let _ = decoder.resolved(&raised, eface);
    }
}

/// Decodes profiler labels from hostile memory.
pub(crate) fn labels_in(heap: &Snapshot) {
    for release in [22, 24].map(Release::new) {
        let _ = labels(heap, release, HEAP);
        let _ = labels(heap, release, HEAP + 16);
    }
}

/// Checks the struct layouts in the debug information. The rest of `dwarf::parse` is exercised elsewhere.
pub(crate) fn debug_info(bytes: &[u8]) -> Result<(), dwarf::DwarfError> {
    let version =
        GoVersion { major: 1, release: Release::new(24), patch: 0, devel: false, raw: String::new() };
    let Some(table) = RuntimeLayout::for_version(&version) else { return Ok(()) };
    dwarf::check(bytes, &table).map(|_| ())
}

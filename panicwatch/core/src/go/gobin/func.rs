//! One function of the pclntab and its tables.

use std::{borrow::Cow, fmt};

use super::{
    FuncId, GoBinary, bytes, name,
    pclntab::{RawFunc, Values},
};

/// PCDATA tables and FUNCDATA items by number.
/// <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/symtab.go>
pub mod tables {
    /// PCDATA: whether a goroutine may be preempted at this pc.
    pub const PCDATA_UNSAFE_POINT: u32 = 0;
    /// PCDATA: index into the stack maps.
    pub const PCDATA_STACK_MAP: u32 = 1;
    /// PCDATA: index into the inline tree.
    pub const PCDATA_INL_TREE: u32 = 2;
    /// PCDATA: index into the argument liveness map.
    pub const PCDATA_ARG_LIVE: u32 = 3;
    /// PCDATA: operands of a failed bounds check (1.26 and later).
    pub const PCDATA_PANIC_BOUNDS: u32 = 4;
    /// FUNCDATA: the inline tree.
    pub const FUNCDATA_INL_TREE: u8 = 3;
    /// FUNCDATA: open-coded defers.
    pub const FUNCDATA_OPEN_CODED_DEFER: u8 = 4;
    /// FUNCDATA: argument layout for tracebacks.
    pub const FUNCDATA_ARG_INFO: u8 = 5;
}

/// A function, borrowed from its binary. Addresses are link-time.
#[derive(Clone, Copy)]
pub struct Func<'a> {
    bin: &'a GoBinary,
    number: u64,
    entry: u64,
    end: u64,
    pub(super) raw: RawFunc,
}

impl fmt::Debug for Func<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Func({} {:#x}..{:#x})", self.name(), self.entry, self.end)
    }
}

impl PartialEq for Func<'_> {
    fn eq(&self, other: &Self) -> bool {
        (self.entry, self.raw) == (other.entry, other.raw)
    }
}

impl<'a> Func<'a> {
    /// Returns function `i` of ftab; `None` when the table is damaged there.
    pub(super) fn nth(bin: &'a GoBinary, i: u64) -> Option<Self> {
        let data = bin.pcln_data();
        let entry = bin.module.text_addr(bin.pclntab.entry_off(data, i)?);
        let end = bin.module.text_addr(bin.pclntab.entry_off(data, i + 1)?);
        let raw = bin.pclntab.func(data, i)?;
        (entry < end).then_some(Self { bin, number: i, entry, end, raw })
    }

    /// Returns its index in ftab, the order of [`GoBinary::functions`].
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the address of the first instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Returns the address at which the next function begins; padding after the last instruction belongs to
    /// this function.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Returns the machine code.
    pub fn code(&self) -> Option<&'a [u8]> {
        self.bin.code(self.entry, self.end)
    }

    /// Returns the name in funcnametab: as in the symbol table, but without ".abi0". Empty when damaged.
    pub fn name(&self) -> Cow<'a, str> {
        self.bin.name_at(self.raw.name_off)
    }

    /// Returns the offset of the name in funcnametab, for [`GoBinary::name_at`].
    pub fn name_off(&self) -> i32 {
        self.raw.name_off
    }

    /// Returns the name as Go prints it: type arguments elided; runtime.gopanic is not yet replaced with
    /// "panic".
    pub fn display_name(&self) -> Cow<'a, str> {
        self.bin.display_name(self.name())
    }

    /// Returns the FuncID assigned by the linker.
    pub fn func_id(&self) -> FuncId {
        self.bin.layout.func_ids.get(self.raw.func_id)
    }

    /// Reports whether it is the outermost frame of its stack.
    pub fn is_top_frame(&self) -> bool {
        self.raw.flag & 1 != 0
    }

    /// Reports whether it writes SP in a way that its tables do not describe.
    pub fn writes_sp(&self) -> bool {
        self.raw.flag & 2 != 0
    }

    /// Reports whether it is written in assembly.
    pub fn is_asm(&self) -> bool {
        self.raw.flag & 4 != 0
    }

    /// Returns the size of the stack arguments in bytes; `None` when the assembly source does not declare it.
    pub fn args(&self) -> Option<u32> {
        // ArgsSizeUnknown is the minimum int32.
        u32::try_from(self.raw.args).ok()
    }

    /// Returns the address of the `call runtime.deferreturn`; `None` for a function without defers.
    pub fn deferreturn(&self) -> Option<u64> {
        (self.raw.deferreturn != 0).then(|| self.entry.wrapping_add(u64::from(self.raw.deferreturn)))
    }

    /// Returns the line of the func keyword (Go 1.20 and later).
    pub fn start_line(&self) -> Option<u32> {
        u32::try_from(self.raw.start_line?).ok().filter(|&l| l != 0)
    }

    /// Reports whether it has stack-pointer information; foreign code linked into the binary has none.
    pub fn has_spdelta(&self) -> bool {
        self.raw.pcsp != 0
    }

    fn value(&self, table: u32, pc: u64) -> Option<i32> {
        if pc < self.entry || pc >= self.end {
            return None;
        }
        self.bin.pclntab.value(self.bin.pcln_data(), table, pc - self.entry)
    }

    /// Returns how many bytes the stack pointer at `pc` is below its value at the entry.
    pub fn spdelta(&self, pc: u64) -> Option<i32> {
        self.value(self.raw.pcsp, pc)
    }

    /// Returns the maximum size of the frame in bytes, below the return address.
    pub fn frame_size(&self) -> Option<u64> {
        let values = self.bin.pclntab.values(self.bin.pcln_data(), self.raw.pcsp);
        values.map(|(_, delta)| delta).max().and_then(|delta| u64::try_from(delta).ok())
    }

    /// Returns the value of PCDATA table `table` at `pc` (see [`tables`]); `None` when there is no such
    /// table, for which Go uses -1.
    pub fn pcdata(&self, table: u32, pc: u64) -> Option<i32> {
        self.value(self.bin.pclntab.pcdata_start(self.bin.pcln_data(), &self.raw, table)?, pc)
    }

    /// Returns the number of calls inlined into this function: the nodes of its inline tree up to the last
    /// one that an instruction belongs to, because the tree's length is not recorded. Each step through the
    /// table takes one from `budget`; `None` when it is exhausted.
    fn inlined_calls(&self, budget: &mut u64) -> Option<u64> {
        let data = self.bin.pcln_data();
        let table = self.bin.pclntab.pcdata_start(data, &self.raw, tables::PCDATA_INL_TREE);
        let (Some(table), Some(tree)) = (table, self.funcdata(tables::FUNCDATA_INL_TREE)) else {
            return Some(0);
        };
        let mut last = -1;
        for (_, index) in self.bin.pclntab.values(data, table) {
            *budget = budget.checked_sub(1)?;
            last = last.max(index);
        }
        // An index beyond the file is damage, not a call.
        let real = u64::try_from(last).ok().filter(|i| InlinedCall::read(self.bin, tree, *i).is_some());
        Some(real.map_or(0, |i| i + 1))
    }

    /// Returns the address of FUNCDATA item `i` (see [`tables`]).
    pub fn funcdata(&self, i: u8) -> Option<u64> {
        let off = self.bin.pclntab.funcdata_off(self.bin.pcln_data(), &self.raw, i)?;
        self.bin.module.gofunc.checked_add(u64::from(off))
    }

    /// Returns file and line of the instruction at `pc`, in the innermost inlined call.
    pub fn file_line(&self, pc: u64) -> Option<(Cow<'a, str>, u32)> {
        let place = Place::find(self, pc, &|table, pc| self.value(table, pc));
        Some((self.bin.file_name(place.file?), place.line?))
    }

    /// Returns the source-level calls active at `pc`, innermost first; the last one is this function itself.
    /// `pc` is the executed instruction; for a return address, pass one less.
    pub fn frames_at(&self, pc: u64) -> Vec<CodeFrame<'a>> {
        let mut frames = Vec::with_capacity(1);
        self.walk(pc, &|table, pc| self.value(table, pc), &mut |place| frames.push(self.frame(place)));
        frames
    }

    /// Like [`Self::frames_at`], with `value` to look up a pc-value table (by its offset in pctab) at a pc.
    pub(super) fn walk(
        &self,
        pc: u64,
        value: &dyn Fn(u32, u64) -> Option<i32>,
        found: &mut dyn FnMut(Place),
    ) {
        let [_, _, table] = self.place_tables();
        let mut at = pc;
        let mut left = MAX_WORK;
        // In valid tables parentPc always precedes the calls of the inlined body; damaged ones may loop.
        for _ in 0..MAX_INLINE {
            let Some(node) = value(table, at).and_then(|index| self.inlined(index)) else { break };
            let name = self.bin.pclntab.name(self.bin.pcln_data(), node.name_off).map_or(0, <[u8]>::len);
            let cost = at.saturating_sub(self.entry).saturating_add(NAME_WORK * name as u64);
            let Some(rest) = left.checked_sub(cost) else { break };
            left = rest;
            let place = Place::find(self, at, value);
            found(Place { name_off: node.name_off, inlined: true, func_id: node.func_id, ..place });
            at = self.entry.wrapping_add(u64::from(node.parent_pc));
        }
        found(Place::find(self, at, value));
    }

    /// Iterates over the pc-value table at `offset` of pctab.
    pub(super) fn values(&self, offset: u32) -> Values<'a> {
        self.bin.pclntab.values(self.bin.pcln_data(), offset)
    }

    /// Returns node `index` of the inline tree.
    pub(super) fn inlined(&self, index: i32) -> Option<InlinedCall> {
        let index = u64::try_from(index).ok()?;
        InlinedCall::read(self.bin, self.funcdata(tables::FUNCDATA_INL_TREE)?, index)
    }

    /// Returns the name of the inlined function.
    pub(super) fn name_of(&self, call: &InlinedCall) -> Cow<'a, str> {
        self.bin.name_at(call.name_off)
    }

    /// Converts a value of the pcfile table to an offset in filetab.
    pub(super) fn file_off(&self, value: i32) -> Option<u32> {
        self.bin.pclntab.file_off(self.bin.pcln_data(), &self.raw, value)
    }

    /// Returns the offsets in pctab of the line, file and inline tables; 0 for none.
    pub(super) fn place_tables(&self) -> [u32; 3] {
        let inlining =
            self.bin.pclntab.pcdata_start(self.bin.pcln_data(), &self.raw, tables::PCDATA_INL_TREE);
        [self.raw.pcln, self.raw.pcfile, inlining.unwrap_or(0)]
    }

    fn frame(&self, place: Place) -> CodeFrame<'a> {
        let raw_name = self.bin.name_at(place.name_off);
        // Go sets either both or neither.
        let known = place.file.zip(place.line);
        CodeFrame {
            function: self.bin.display_name(raw_name.clone()),
            raw_name,
            file: known.map(|(file, _)| self.bin.file_name(file)),
            line: known.map(|(_, line)| line),
            inlined: place.inlined,
            func_id: self.bin.layout.func_ids.get(place.func_id),
            entry: self.entry,
        }
    }
}

/// One source-level call at a program counter. Strings are stored as offsets: see [`GoBinary::name_at`] and
/// [`GoBinary::file_name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Offset of the function name in funcnametab.
    pub name_off: i32,
    /// Offset of the file name in filetab.
    pub file: Option<u32>,
    /// Line in the source file.
    pub line: Option<u32>,
    /// Whether this call is inlined into the next one.
    pub inlined: bool,
    func_id: u8,
}

impl Place {
    /// Returns the innermost position at `pc`, attributed to `func` itself.
    fn find(func: &Func<'_>, pc: u64, value: &dyn Fn(u32, u64) -> Option<i32>) -> Self {
        let raw = &func.raw;
        let file = value(raw.pcfile, pc);
        Self {
            name_off: raw.name_off,
            file: file.and_then(|file| func.file_off(file)),
            line: value(raw.pcln, pc).and_then(|line| u32::try_from(line).ok()),
            inlined: false,
            func_id: raw.func_id,
        }
    }
}

/// Maximum depth of inlining; the compiler never reaches it, so a deeper tree is damaged.
const MAX_INLINE: usize = 256;
/// Work limit for the inlined calls at one address: each byte of code that a table walk covers costs one,
/// each byte of a name [`NAME_WORK`]. Tables beyond it are damaged: every call in a huge function, or with a
/// huge name.
const MAX_WORK: u64 = 1 << 24;
const NAME_WORK: u64 = 64;

/// A node of the inline tree.
pub(super) struct InlinedCall {
    func_id: u8,
    pub(super) name_off: i32,
    /// Offset of an instruction at the call site, from the entry of the function that contains the code.
    pub(super) parent_pc: u32,
}

impl InlinedCall {
    /// Layout up to 1.19: <https://github.com/golang/go/blob/go1.19.8/src/runtime/symtab.go> inlinedCall
    /// {parent, funcID, file, line, func_, parentPc}; since 1.20 {funcID, nameOff, parentPc, startLine}:
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtabinl.go>
    fn read(bin: &GoBinary, tree: u64, index: u64) -> Option<Self> {
        let compact = bin.version.release.inline_tree_is_compact();
        let (size, id, name, parent) = if compact { (16, 0, 4, 8) } else { (20, 2, 12, 16) };
        let node = bin.image.raw(tree.checked_add(index.checked_mul(size)?)?, size)?;
        Some(Self {
            func_id: *node.get(id)?,
            name_off: bytes::i32_at(node, name)?,
            parent_pc: u32::try_from(bytes::i32_at(node, parent)?).ok()?,
        })
    }
}

/// One source-level call at a program counter, with resolved strings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeFrame<'a> {
    /// Name as Go prints it, except that "runtime.gopanic" is not replaced with "panic".
    pub function: Cow<'a, str>,
    /// Name in funcnametab.
    pub raw_name: Cow<'a, str>,
    /// Path of the source file, as recorded by the compiler.
    pub file: Option<Cow<'a, str>>,
    /// Line in `file`.
    pub line: Option<u32>,
    /// Whether this call is inlined into the next one.
    pub inlined: bool,
    /// FuncID assigned by the linker.
    pub func_id: FuncId,
    /// Entry of the function that contains the code.
    pub entry: u64,
}

/// Maximum number of pc-value pairs read to count all inlined calls; a binary of 100 MB has some three
/// million.
const MAX_INLINE_STEPS: u64 = 100_000_000;

impl GoBinary {
    /// Returns the number of calls inlined into all functions. `None` for a file whose tables share so much
    /// that counting would take seconds: no linker writes such a file.
    pub fn inlined_call_count(&self) -> Option<u64> {
        let mut budget = MAX_INLINE_STEPS;
        self.functions().try_fold(0_u64, |sum, f| sum.checked_add(f.inlined_calls(&mut budget)?))
    }

    /// Returns the function name at `off` of funcnametab if it is plain: ASCII letters and punctuation that
    /// need neither eliding nor escaping.
    pub fn plain_name_at(&self, off: i32) -> Option<&str> {
        let name = self.pclntab.name(self.pcln_data(), off)?;
        let plain = name.iter().all(|b| matches!(b, b'!'..=b'Z' | b'^'..=b'~'));
        if plain { std::str::from_utf8(name).ok() } else { None }
    }

    /// Returns the function name at `off` of funcnametab, unchanged; empty when damaged.
    pub fn name_at(&self, off: i32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.pclntab.name(self.pcln_data(), off).unwrap_or_default())
    }

    /// Returns the file name at `off` of filetab; empty when damaged.
    pub fn file_name(&self, off: u32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.pclntab.file(self.pcln_data(), off).unwrap_or_default())
    }

    /// Returns a function name as Go prints it: type arguments elided.
    pub fn display_name<'a>(&self, raw: Cow<'a, str>) -> Cow<'a, str> {
        let two_groups = self.version.release.has_generic_methods();
        match raw {
            Cow::Borrowed(raw) => name::for_print(raw, two_groups),
            Cow::Owned(raw) => Cow::Owned(name::for_print(&raw, two_groups).into_owned()),
        }
    }
}

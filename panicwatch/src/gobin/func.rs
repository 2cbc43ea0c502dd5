//! One function of the pclntab, and everything asked about it.

use std::{borrow::Cow, fmt};

use super::{FuncId, GoBinary, bytes, name, pclntab::RawFunc};

/// PCDATA tables and FUNCDATA items by number.
/// <https://github.com/golang/go/blob/go1.24.11/src/internal/abi/symtab.go>
pub mod tables {
    /// PCDATA: whether a goroutine may be preempted here.
    pub const PCDATA_UNSAFE_POINT: u32 = 0;
    /// PCDATA: index into the stack maps.
    pub const PCDATA_STACK_MAP: u32 = 1;
    /// PCDATA: index into the inline tree.
    pub const PCDATA_INL_TREE: u32 = 2;
    /// PCDATA: index into the argument liveness.
    pub const PCDATA_ARG_LIVE: u32 = 3;
    /// PCDATA: operands of a bounds failure (1.26 and later).
    pub const PCDATA_PANIC_BOUNDS: u32 = 4;
    /// FUNCDATA: the inline tree.
    pub const FUNCDATA_INL_TREE: u8 = 3;
    /// FUNCDATA: open-coded defers.
    pub const FUNCDATA_OPEN_CODED_DEFER: u8 = 4;
    /// FUNCDATA: how a traceback prints the arguments.
    pub const FUNCDATA_ARG_INFO: u8 = 5;
}

/// A function, borrowed from its binary. Addresses are link-time.
#[derive(Clone, Copy)]
pub struct Func<'a> {
    bin: &'a GoBinary,
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
    /// Function `i` of ftab; `None` when the table is damaged there.
    pub(super) fn nth(bin: &'a GoBinary, i: u64) -> Option<Self> {
        let data = bin.pcln_data();
        let entry = bin.module.text_addr(bin.pclntab.entry_off(data, i)?);
        let end = bin.module.text_addr(bin.pclntab.entry_off(data, i + 1)?);
        let raw = bin.pclntab.func(data, i)?;
        (entry < end).then_some(Self { bin, entry, end, raw })
    }

    /// First instruction.
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// Where the next function begins; padding after the last instruction counts as this one's.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Its machine code.
    pub fn code(&self) -> Option<&'a [u8]> {
        self.bin.code(self.entry, self.end)
    }

    /// The name in the table: as in the symbol table but without ".abi0". "" when damaged.
    pub fn name(&self) -> Cow<'a, str> {
        self.bin.name_at(self.raw.name_off)
    }

    /// The name as Go prints it: type arguments elided, but not yet "panic" for runtime.gopanic.
    pub fn display_name(&self) -> Cow<'a, str> {
        self.bin.display_name(self.name())
    }

    /// What the linker marked it as.
    pub fn func_id(&self) -> FuncId {
        self.bin.layout.func_ids.get(self.raw.func_id)
    }

    /// The outermost frame of its stack.
    pub fn is_top_frame(&self) -> bool {
        self.raw.flag & 1 != 0
    }

    /// Writes SP in a way its tables do not describe.
    pub fn writes_sp(&self) -> bool {
        self.raw.flag & 2 != 0
    }

    /// Written in assembly.
    pub fn is_asm(&self) -> bool {
        self.raw.flag & 4 != 0
    }

    /// Bytes of arguments on the stack; `None` when the assembly did not say.
    pub fn args(&self) -> Option<u32> {
        // ArgsSizeUnknown is the smallest int32.
        u32::try_from(self.raw.args).ok()
    }

    /// The `call runtime.deferreturn`, for a function with defers.
    pub fn deferreturn(&self) -> Option<u64> {
        (self.raw.deferreturn != 0).then(|| self.entry.wrapping_add(u64::from(self.raw.deferreturn)))
    }

    /// Line of the func keyword (Go 1.20 and later).
    pub fn start_line(&self) -> Option<u32> {
        u32::try_from(self.raw.start_line?).ok().filter(|&l| l != 0)
    }

    /// Has stack-pointer information at all; foreign code linked in has none.
    pub fn has_spdelta(&self) -> bool {
        self.raw.pcsp != 0
    }

    fn value(&self, table: u32, pc: u64) -> Option<i32> {
        if pc < self.entry || pc >= self.end {
            return None;
        }
        self.bin.pclntab.value(self.bin.pcln_data(), table, pc - self.entry)
    }

    /// Bytes the stack pointer at `pc` is below where it was at the entry.
    pub fn spdelta(&self, pc: u64) -> Option<i32> {
        self.value(self.raw.pcsp, pc)
    }

    /// Value of PCDATA table `table` at `pc` (see [`tables`]); `None` also where Go takes -1 for "no table".
    pub fn pcdata(&self, table: u32, pc: u64) -> Option<i32> {
        self.value(self.bin.pclntab.pcdata_start(self.bin.pcln_data(), &self.raw, table)?, pc)
    }

    /// PCDATA table `table` as ranges: where each ends, as an offset from the entry, and its value. Empty without a
    /// table; what reaches beyond the function is damage and left out.
    pub(super) fn pcdata_ranges(&self, table: u32) -> Vec<(u64, i32)> {
        let start = self.bin.pclntab.pcdata_start(self.bin.pcln_data(), &self.raw, table);
        let len = self.end - self.entry;
        start.map_or_else(Vec::new, |start| self.bin.pclntab.ranges(self.bin.pcln_data(), start, len))
    }

    /// The name and the call's offset of node `index` of the inline tree at `tree`.
    pub(super) fn inlined_call(&self, tree: u64, index: i32) -> Option<(Cow<'a, str>, u64)> {
        let node = InlinedCall::read(self.bin, tree, u64::try_from(index).ok()?)?;
        Some((self.bin.name_at(node.name_off), u64::from(node.parent_pc)))
    }

    /// Address of FUNCDATA item `i` (see [`tables`]).
    pub fn funcdata(&self, i: u8) -> Option<u64> {
        let off = self.bin.pclntab.funcdata_off(self.bin.pcln_data(), &self.raw, i)?;
        self.bin.module.gofunc.checked_add(u64::from(off))
    }

    /// File and line of the instruction at `pc`, of the innermost inlined call.
    pub fn file_line(&self, pc: u64) -> Option<(Cow<'a, str>, u32)> {
        let file = self.value(self.raw.pcfile, pc)?;
        let line = self.value(self.raw.pcln, pc)?;
        let file = self.bin.pclntab.file(self.bin.pcln_data(), &self.raw, file)?;
        Some((String::from_utf8_lossy(file), u32::try_from(line).ok()?))
    }

    /// The source-level calls under way at `pc`, innermost first; the last is this function itself.
    /// `pc` is the instruction executed, for a return address one less.
    pub fn frames_at(&self, pc: u64) -> Vec<CodeFrame<'a>> {
        let tree = self.funcdata(tables::FUNCDATA_INL_TREE);
        let mut frames = Vec::with_capacity(1);
        let mut at = pc;
        // parentPc always lies before the inlined body's own calls in sane tables; damaged ones may loop.
        while frames.len() < MAX_INLINE {
            let index = self.pcdata(tables::PCDATA_INL_TREE, at).and_then(|i| u64::try_from(i).ok());
            let Some(node) = tree.zip(index).and_then(|(t, i)| InlinedCall::read(self.bin, t, i)) else {
                break;
            };
            frames.push(self.frame(at, self.bin.name_at(node.name_off), true, node.func_id));
            at = self.entry.wrapping_add(u64::from(node.parent_pc));
        }
        frames.push(self.frame(at, self.name(), false, self.raw.func_id));
        frames
    }

    fn frame(&self, at: u64, raw_name: Cow<'a, str>, inlined: bool, func_id: u8) -> CodeFrame<'a> {
        let (file, line) = self.file_line(at).unzip();
        CodeFrame {
            function: self.bin.display_name(raw_name.clone()),
            raw_name,
            file,
            line,
            inlined,
            func_id: self.bin.layout.func_ids.get(func_id),
            entry: self.entry,
        }
    }
}

/// Deeper inlining than the compiler does: damage.
const MAX_INLINE: usize = 256;

/// A node of the inline tree.
struct InlinedCall {
    func_id: u8,
    name_off: i32,
    /// Offset of an instruction at the call, from the entry of the function that holds the code.
    parent_pc: u32,
}

impl InlinedCall {
    /// <https://github.com/golang/go/blob/go1.19.8/src/runtime/symtab.go> inlinedCall {parent, funcID, file, line,
    /// func_, parentPc}; since 1.20 {funcID, nameOff, parentPc, startLine}:
    /// <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtabinl.go>
    fn read(bin: &GoBinary, tree: u64, index: u64) -> Option<Self> {
        let old = !bin.version.at_least(20);
        let (size, id, name, parent) = if old { (20, 2, 12, 16) } else { (16, 0, 4, 8) };
        let node = bin.image.raw(tree.checked_add(index.checked_mul(size)?)?, size)?;
        Some(Self {
            func_id: *node.get(id)?,
            name_off: bytes::i32_at(node, name)?,
            parent_pc: u32::try_from(bytes::i32_at(node, parent)?).ok()?,
        })
    }
}

/// One source-level call at a program counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeFrame<'a> {
    /// Name as Go prints it; "runtime.gopanic" is still that.
    pub function: Cow<'a, str>,
    /// Name in the table.
    pub raw_name: Cow<'a, str>,
    /// Source file.
    pub file: Option<Cow<'a, str>>,
    /// Source line.
    pub line: Option<u32>,
    /// Inlined into the next one.
    pub inlined: bool,
    /// What the linker marked it as.
    pub func_id: FuncId,
    /// Entry of the function that holds the code.
    pub entry: u64,
}

impl GoBinary {
    pub(super) fn name_at(&self, off: i32) -> Cow<'_, str> {
        String::from_utf8_lossy(self.pclntab.name(self.pcln_data(), off).unwrap_or_default())
    }

    pub(super) fn display_name<'a>(&self, raw: Cow<'a, str>) -> Cow<'a, str> {
        let two_groups = self.version.at_least(27);
        match raw {
            Cow::Borrowed(raw) => name::for_print(raw, two_groups),
            Cow::Owned(raw) => Cow::Owned(name::for_print(&raw, two_groups).into_owned()),
        }
    }
}

//! A Go binary as its runtime sees it: functions, lines, stack deltas, struct layouts. Pure over the file's
//! bytes.
//!
//! Knows the file only: no process, no load address. Every address is link-time ("link"); for a
//! position-independent program the caller first subtracts the load bias from run-time addresses. Everything
//! is decoded on demand, from bytes that may be damaged or hostile: such input yields `None` or an [`Error`],
//! never a panic.

mod buildinfo;
mod bytes;
pub mod dwarf;
mod error;
mod file;
mod func;
mod funcid;
mod image;
mod inlining;
mod lines;
mod moduledata;
mod name;
mod names;
pub mod offsets;
mod pclntab;
mod relocs;
mod version;

use std::{borrow::Cow, ops::Range, sync::OnceLock};

pub use self::{
    buildinfo::{BuildInfo, Module},
    error::Error,
    file::{GoFile, identify},
    func::{CodeFrame, Func, Place, tables},
    funcid::{FuncId, FuncIds},
    image::{LoadSegment, Section, SharedBytes, StaticBytes},
    inlining::Inlining,
    lines::{Lines, Values},
    moduledata::ModuleInfo,
    offsets::{LayoutSource, RuntimeLayout},
    version::GoVersion,
};
use self::{image::Image, names::NameIndex, pclntab::PcLnTab};
use crate::go::memory::Memory;

/// Instruction set of a binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// `GOARCH=amd64`.
    Amd64,
    /// `GOARCH=arm64`.
    Arm64,
}

impl Arch {
    /// Returns the GOARCH name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// A Go program's binary, with its tables located.
#[derive(Debug)]
pub struct GoBinary {
    image: Image,
    arch: Arch,
    version: GoVersion,
    layout: RuntimeLayout,
    layout_source: LayoutSource,
    pclntab: PcLnTab,
    module: ModuleInfo,
    names: OnceLock<NameIndex>,
}

fn release(image: &Image) -> Result<GoVersion, Error> {
    let (version, _) = buildinfo::locate(image).map_err(|e| image.explain(e))?;
    parse_version(version)
}

fn parse_version(raw: &str) -> Result<GoVersion, Error> {
    GoVersion::parse(raw).ok_or_else(|| Error::Unsupported { what: "Go release", found: raw.to_owned() })
}

impl GoBinary {
    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.image.data()
    }

    /// Parses the headers and locates the tables.
    ///
    /// # Errors
    /// Returns an error when the file is not Go, is of an unsupported release, or is damaged.
    pub fn parse(bytes: SharedBytes) -> Result<Self, Error> {
        let image = Image::parse(bytes)?;
        let version = release(&image)?;
        let layout = RuntimeLayout::for_version(&version).ok_or_else(|| Error::Unsupported {
            what: "Go release (the layout of its runtime's structs is unknown)",
            found: version.raw.clone(),
        })?;
        Self::with_layout(image, version, layout, LayoutSource::Table)
    }

    /// Like [`Self::parse`], with the runtime's layout from another source, for releases that have no row in
    /// the table.
    ///
    /// # Errors
    /// Returns an error when the file is not Go, or is damaged.
    pub fn parse_with_layout(
        bytes: SharedBytes,
        layout: RuntimeLayout,
        source: LayoutSource,
    ) -> Result<Self, Error> {
        let image = Image::parse(bytes)?;
        let version = release(&image)?;
        Self::with_layout(image, version, layout, source)
    }

    fn with_layout(
        image: Image,
        version: GoVersion,
        layout: RuntimeLayout,
        layout_source: LayoutSource,
    ) -> Result<Self, Error> {
        let arch = match image.machine {
            object::elf::EM_X86_64 => Arch::Amd64,
            object::elf::EM_AARCH64 => Arch::Arm64,
            other => return Err(Error::Unsupported { what: "ELF machine", found: other.to_string() }),
        };
        let pclntab = PcLnTab::locate(&image).map_err(|e| image.explain(e))?;
        let module = ModuleInfo::locate(&image, &pclntab, &layout).map_err(|e| image.explain(e))?;
        Ok(Self { image, arch, version, layout, layout_source, pclntab, module, names: OnceLock::new() })
    }

    /// Returns the Go release of the build.
    pub fn version(&self) -> &GoVersion {
        &self.version
    }

    /// Returns the layouts of the runtime's structs in that release.
    pub fn layout(&self) -> &RuntimeLayout {
        &self.layout
    }

    /// Returns the source of [`Self::layout`].
    pub fn layout_source(&self) -> LayoutSource {
        self.layout_source
    }

    /// Returns the instruction set.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Reports whether the program uses cgo: it can call C code or be called by it.
    pub fn uses_cgo(&self) -> bool {
        self.function("crosscall2").is_some()
    }

    /// Returns address and size of a symbol; `None` also in a stripped binary. A linear search.
    pub fn symbol(&self, name: &str) -> Option<(u64, u64)> {
        self.image.symbol(name)
    }

    /// Iterates over all symbols: name, address and size; none in a stripped binary.
    pub fn symbols(&self) -> impl Iterator<Item = (Cow<'_, str>, u64, u64)> {
        self.image.symbols().map(|(name, addr, size)| (String::from_utf8_lossy(name), addr, size))
    }

    /// Returns the name of the symbol whose range contains `vaddr`; `None` also in a stripped binary. A
    /// linear search.
    pub fn symbol_at(&self, vaddr: u64) -> Option<Cow<'_, str>> {
        self.symbols().find(|&(_, at, size)| vaddr.checked_sub(at).is_some_and(|off| off < size)).map(|s| s.0)
    }

    /// Returns a section's contents as in the file, without decompression. Used for debug information.
    pub fn section_data(&self, name: &str) -> Option<&[u8]> {
        let s = self.image.section(name).filter(|s| s.kind != object::elf::SHT_NOBITS)?;
        bytes::slice(self.image.data(), s.offset, s.size)
    }

    /// Returns the bytes of the whole file.
    pub fn file_bytes(&self) -> &[u8] {
        self.image.data()
    }

    /// Returns the address of runtime.text.
    pub fn text_start(&self) -> u64 {
        self.module.text
    }

    /// Returns the addresses in runtime.firstmoduledata.
    pub fn moduledata(&self) -> &ModuleInfo {
        &self.module
    }

    /// Returns the bytes from the pclntab to the end of its segment.
    fn pcln_data(&self) -> &[u8] {
        self.image.data().get(self.pclntab.in_file.clone()).unwrap_or_default()
    }

    /// Returns the number of functions.
    pub fn function_count(&self) -> u64 {
        self.pclntab.nfunc
    }

    /// Iterates over all functions, by ascending address.
    pub fn functions(&self) -> impl Iterator<Item = Func<'_>> {
        (0..self.pclntab.nfunc).filter_map(|i| Func::nth(self, i))
    }

    /// Returns the function named `name` in the pclntab; if there is an ABI adapter of the same name, the
    /// function's body.
    pub fn function(&self, name: &str) -> Option<Func<'_>> {
        let mut adapter = None;
        let data = self.pcln_data();
        let names = self.names.get_or_init(|| self.index_names());
        for i in names.candidates(name.as_bytes()) {
            let Some(off) = self.pclntab.name_off(data, i) else { continue };
            if !self.pclntab.name_is(data, off, name.as_bytes()) {
                continue;
            }
            match Func::nth(self, i) {
                Some(f) if f.func_id() == FuncId::Wrapper => adapter = adapter.or(Some(f)),
                Some(f) => return Some(f),
                None => {}
            }
        }
        adapter
    }

    fn index_names(&self) -> NameIndex {
        let data = self.pcln_data();
        let count = u32::try_from(self.pclntab.nfunc).unwrap_or(u32::MAX);
        NameIndex::new((0..count).filter_map(|i| {
            let off = self.pclntab.name_off(data, u64::from(i))?;
            Some((i, self.pclntab.name_start(data, off, names::HASHED)?))
        }))
    }

    /// Returns the function whose code contains `pc`.
    pub fn find_func(&self, pc: u64) -> Option<Func<'_>> {
        let i = self.pclntab.find(self.pcln_data(), self.module.text_off(pc)?)?;
        // If the map of text sections is damaged, the entry may be anywhere.
        Func::nth(self, i).filter(|f| (f.entry()..f.end()).contains(&pc))
    }

    /// Returns the function whose code contains `pc`, if it is one of the next few after `func`.
    pub fn find_func_behind(&self, func: &Func<'_>, pc: u64) -> Option<Func<'_>> {
        const FEW: usize = 4;
        (func.number() + 1..)
            .take(FEW)
            .map_while(|i| Func::nth(self, i).filter(|f| f.entry() <= pc))
            .find(|f| pc < f.end())
    }

    /// Returns the symbolic name of `pc` as a disassembly prints it: `main.f+0x10`, or `main.f` for the first
    /// instruction.
    pub fn place_name(&self, pc: u64) -> Option<String> {
        let func = self.find_func(pc)?;
        let (name, offset) = (func.display_name(), pc - func.entry());
        Some(if offset == 0 { name.into_owned() } else { format!("{name}+{offset:#x}") })
    }

    /// Returns the source-level calls active at `pc`, innermost first; empty outside Go code. If `exact`,
    /// `pc` is the instruction itself; otherwise it is a return address, and the call before it is looked up.
    pub fn frames(&self, pc: u64, exact: bool) -> Vec<CodeFrame<'_>> {
        let Some(f) = self.find_func(pc) else { return Vec::new() };
        let call = if exact || pc == f.entry() { pc } else { pc - 1 };
        f.frames_at(call)
    }

    /// Returns the machine code at `lo..hi`.
    pub fn code(&self, lo: u64, hi: u64) -> Option<&[u8]> {
        self.image.raw(lo, hi.checked_sub(lo)?)
    }

    /// Returns the page address of the lowest segment: the origin of file-relative addresses.
    pub fn lowest_address(&self) -> u64 {
        self.image.segments.iter().map(|s| s.vaddr & !0xfff).min().unwrap_or(0)
    }

    /// Returns the file offset of the byte at `vaddr`, which is how a uprobe is placed.
    pub fn file_offset(&self, vaddr: u64) -> Option<u64> {
        self.image.file_offset(vaddr)
    }

    /// Returns `len` bytes at `vaddr` as in the file, and whether the loader or the program may change them.
    pub fn read_static(&self, vaddr: u64, len: u64) -> Option<StaticBytes<'_>> {
        self.image.read_static(vaddr, len)
    }

    /// Returns the range of link-time addresses around `vaddr` whose bytes never change while the program
    /// runs (see [`GoBinary::read_only_memory`]); empty when `vaddr` itself is writable or not mapped.
    pub fn constant_range(&self, vaddr: u64) -> Range<u64> {
        self.image.constant_range(vaddr)
    }

    /// Returns the word at `vaddr` after relocation with a load bias of 0.
    pub fn word(&self, vaddr: u64) -> Option<u64> {
        self.image.word(vaddr)
    }

    /// Returns the memory that (after relocation) never changes while the program runs with load bias `bias`.
    pub fn read_only_memory(&self, bias: u64) -> ReadOnlyMemory<'_> {
        ReadOnlyMemory { bin: self, bias }
    }
}

/// The binary's own read-only bytes as a [`Memory`] of a process.
#[derive(Debug, Clone, Copy)]
pub struct ReadOnlyMemory<'a> {
    bin: &'a GoBinary,
    bias: u64,
}

impl Memory for ReadOnlyMemory<'_> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        let vaddr = addr.wrapping_sub(self.bias);
        let found = self.bin.read_static(vaddr, buf.len() as u64);
        found.is_some_and(|s| !s.writable) && self.bin.image.read_loaded(vaddr, self.bias, buf)
    }
}

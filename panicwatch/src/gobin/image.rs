//! The ELF file as the loader will lay it out: addresses to bytes, and which of those bytes stay as they are.
//!
//! Knows ELF, not Go. All addresses are link-time. Holds headers only; contents stay in the shared bytes.

use std::{fmt, ops::Range, sync::Arc};

use object::{
    LittleEndian as LE,
    elf::{self, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _},
};

use super::{Error, bytes, relocs::Relocs};

/// Bytes shared by everything that reads them: a mapping, a buffer.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// More headers than any linker writes: beyond it the file is taken for hostile.
const MAX_HEADERS: usize = 20_000;

/// Longest symbol name looked at.
const MAX_SYMBOL: usize = 1 << 16;

/// A part of the file that the loader maps.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) vaddr: u64,
    pub(super) memsz: u64,
    pub(super) offset: u64,
    /// Bytes present in the file; the rest of `memsz` is zero at start.
    pub(super) filesz: u64,
    pub(super) write: bool,
    pub(super) exec: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) name: String,
    pub(super) kind: u32,
    pub(super) addr: u64,
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) link: u32,
}

/// Bytes of the file at a link-time address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticBytes<'a> {
    /// As in the file: words that the loader relocates are not yet relocated.
    pub bytes: &'a [u8],
    /// The program may change them: not to be taken for what a live process holds.
    pub writable: bool,
    /// The loader changes words in them before the program runs.
    pub relocated: bool,
}

pub(super) struct Image {
    bytes: SharedBytes,
    pub(super) machine: u16,
    pub(super) elf_type: u16,
    pub(super) segments: Vec<Segment>,
    pub(super) sections: Vec<Section>,
    /// Written by the loader's relocation only, then made read-only.
    relro: Vec<Range<u64>>,
    notes: Vec<Range<u64>>,
    relocs: Relocs,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image").field("segments", &self.segments).finish_non_exhaustive()
    }
}

fn not_elf(e: &object::read::Error) -> Error {
    Error::NotElf { reason: e.to_string() }
}

impl Image {
    pub(super) fn parse(shared: SharedBytes) -> Result<Self, Error> {
        let data: &[u8] = (*shared).as_ref();
        let header = FileHeader64::<LE>::parse(data).map_err(|e| not_elf(&e))?;
        if !header.is_little_endian() || !header.is_class_64() {
            return Err(Error::NotElf { reason: "other byte order or word size".to_owned() });
        }
        let mut image = Self {
            machine: header.e_machine.get(LE),
            elf_type: header.e_type.get(LE),
            segments: Vec::new(),
            sections: Vec::new(),
            relro: Vec::new(),
            notes: Vec::new(),
            relocs: Relocs::default(),
            bytes: Arc::clone(&shared),
        };
        image.read_segments(header, data)?;
        image.read_sections(header, data);
        Ok(image)
    }

    fn read_segments(&mut self, header: &FileHeader64<LE>, data: &[u8]) -> Result<(), Error> {
        let headers = header.program_headers(LE, data).map_err(|e| not_elf(&e))?;
        if headers.len() > MAX_HEADERS {
            return Err(Error::Malformed { what: "program headers", at: header.e_phoff.get(LE) });
        }
        let mut dynamic = None;
        for h in headers {
            // From here on, addresses inside a segment do not overflow.
            let end = h.p_vaddr(LE).checked_add(h.p_memsz(LE));
            let end = end.ok_or(Error::Malformed { what: "program header", at: h.p_vaddr(LE) })?;
            let range = h.p_vaddr(LE)..end;
            match h.p_type(LE) {
                elf::PT_LOAD => self.segments.push(Segment {
                    vaddr: h.p_vaddr(LE),
                    memsz: h.p_memsz(LE),
                    offset: h.p_offset(LE),
                    filesz: h.p_filesz(LE).min(h.p_memsz(LE)),
                    write: h.p_flags(LE) & elf::PF_W != 0,
                    exec: h.p_flags(LE) & elf::PF_X != 0,
                }),
                elf::PT_GNU_RELRO => self.relro.push(range),
                elf::PT_NOTE => self.notes.push(range),
                elf::PT_DYNAMIC => dynamic = h.dynamic(LE, data).ok().flatten(),
                _ => {}
            }
        }
        if let Some(entries) = dynamic {
            let value = |tag| entries.iter().find(|d| d.tag32(LE) == Some(tag)).map(|d| d.d_val.get(LE));
            if let (Some(at), Some(size)) = (value(elf::DT_RELA), value(elf::DT_RELASZ)) {
                self.relocs = Relocs::new(self.file_offset(at), size / 24);
            }
        }
        Ok(())
    }

    /// Section headers are a help, not a need: damaged ones are as good as none.
    fn read_sections(&mut self, header: &FileHeader64<LE>, data: &[u8]) {
        let Ok(table) = header.sections(LE, data) else { return };
        for section in table.iter().take(MAX_HEADERS) {
            let name = table.section_name(LE, section).unwrap_or_default();
            let name = String::from_utf8_lossy(&name[..name.len().min(64)]).into_owned();
            self.sections.push(Section {
                name,
                kind: section.sh_type(LE),
                addr: section.sh_addr(LE),
                offset: section.sh_offset(LE),
                size: section.sh_size(LE),
                link: section.sh_link(LE),
            });
        }
    }

    pub(super) fn data(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|s| s.name == name)
    }

    fn segment(&self, vaddr: u64) -> Option<&Segment> {
        self.segments.iter().find(|s| vaddr >= s.vaddr && vaddr - s.vaddr < s.memsz)
    }

    /// Where in the file the byte at `vaddr` is.
    pub(super) fn file_offset(&self, vaddr: u64) -> Option<u64> {
        let s = self.segment(vaddr).filter(|s| vaddr - s.vaddr < s.filesz)?;
        s.offset.checked_add(vaddr - s.vaddr)
    }

    /// From `vaddr` to the end of its segment's bytes in the file.
    pub(super) fn rest_of_segment(&self, vaddr: u64) -> Option<&[u8]> {
        let s = self.segment(vaddr).filter(|s| vaddr - s.vaddr < s.filesz)?;
        let end = s.offset.checked_add(s.filesz)?.min(self.data().len() as u64);
        bytes::range(self.data(), s.offset.checked_add(vaddr - s.vaddr)?..end)
    }

    /// `len` bytes at `vaddr`, as in the file.
    pub(super) fn raw(&self, vaddr: u64, len: u64) -> Option<&[u8]> {
        bytes::slice(self.rest_of_segment(vaddr)?, 0, len)
    }

    pub(super) fn read_static(&self, vaddr: u64, len: u64) -> Option<StaticBytes<'_>> {
        let bytes = self.raw(vaddr, len)?;
        let end = vaddr.checked_add(len)?;
        let relro = self.relro.iter().any(|r| vaddr >= r.start && end <= r.end);
        let writable = self.segment(vaddr)?.write && !relro;
        let relocated = self.relocs.in_range(self.data(), vaddr..end).next().is_some();
        Some(StaticBytes { bytes, writable, relocated })
    }

    /// Fills `buf` with what the loader leaves at `vaddr` when it loads the file `bias` above its link addresses.
    /// False when a byte is not in the file or depends on another object.
    pub(super) fn read_loaded(&self, vaddr: u64, bias: u64, buf: &mut [u8]) -> bool {
        let Some(raw) = self.raw(vaddr, buf.len() as u64) else { return false };
        buf.copy_from_slice(raw);
        let end = vaddr.wrapping_add(buf.len() as u64);
        for reloc in self.relocs.in_range(self.data(), vaddr..end) {
            let Some(value) = reloc.relative_value(self.machine) else { return false };
            for (i, byte) in value.wrapping_add(bias).to_le_bytes().into_iter().enumerate() {
                let at = reloc.offset.wrapping_add(i as u64).wrapping_sub(vaddr);
                if let Some(b) = usize::try_from(at).ok().and_then(|at| buf.get_mut(at)) {
                    *b = byte;
                }
            }
        }
        true
    }

    /// The word at `vaddr`, addresses in it being link-time.
    pub(super) fn word(&self, vaddr: u64) -> Option<u64> {
        let mut buf = [0; 8];
        self.read_loaded(vaddr, 0, &mut buf).then(|| u64::from_le_bytes(buf))
    }

    /// Places whose word the loader sets to `value` (plus bias).
    pub(super) fn relocated_to(&self, value: u64) -> impl Iterator<Item = u64> {
        self.relocs
            .all(self.data())
            .filter(move |r| r.relative_value(self.machine) == Some(value))
            .map(|r| r.offset)
    }

    /// Descriptor of the first note with this owner and type.
    pub(super) fn note(&self, owner: &[u8], kind: u32) -> Option<&[u8]> {
        for range in &self.notes {
            let mut at = range.start;
            // 12 bytes of header each; a hostile file may hold very many.
            for _ in 0..64 {
                let head = self.raw(at, 12)?;
                let (namesz, descsz) = (bytes::u32_at(head, 0)?, bytes::u32_at(head, 4)?);
                let name_at = at.checked_add(12)?;
                let desc_at = name_at.checked_add(u64::from(namesz.checked_next_multiple_of(4)?))?;
                if bytes::u32_at(head, 8)? == kind
                    && self.raw(name_at, u64::from(namesz)).is_some_and(|n| n == owner)
                {
                    return self.raw(desc_at, u64::from(descsz));
                }
                at = desc_at.checked_add(u64::from(descsz.checked_next_multiple_of(4)?))?;
                if at >= range.end {
                    break;
                }
            }
        }
        None
    }

    /// The symbol table and its strings.
    fn symtab(&self) -> Option<(&[u8], &[u8])> {
        let table = self.sections.iter().find(|s| s.kind == elf::SHT_SYMTAB)?;
        let strings = self.sections.get(table.link as usize)?;
        let strings = bytes::slice(self.data(), strings.offset, strings.size)?;
        Some((bytes::slice(self.data(), table.offset, table.size)?, strings))
    }

    /// Every symbol: name, address, size.
    pub(super) fn symbols(&self) -> impl Iterator<Item = (&[u8], u64, u64)> {
        let (symbols, strings) = self.symtab().unwrap_or_default();
        symbols.as_chunks::<24>().0.iter().filter_map(move |s| {
            let name = bytes::c_str(strings, u64::from(bytes::u32_at(s, 0)?), MAX_SYMBOL)?;
            Some((name, bytes::u64_at(s, 8)?, bytes::u64_at(s, 16)?))
        })
    }

    /// Value and size of the first symbol called `name`; a linear search.
    pub(super) fn symbol(&self, name: &str) -> Option<(u64, u64)> {
        let (symbols, strings) = self.symtab()?;
        symbols.as_chunks::<24>().0.iter().find_map(|s| {
            let at = u64::from(bytes::u32_at(s, 0)?);
            let found = bytes::slice(strings, at, name.len() as u64 + 1)?;
            let (text, nul) = found.split_at(name.len());
            (text == name.as_bytes() && nul == [0]).then_some(())?;
            Some((bytes::u64_at(s, 8)?, bytes::u64_at(s, 16)?))
        })
    }
}

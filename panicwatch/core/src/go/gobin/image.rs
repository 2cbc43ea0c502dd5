//! The ELF file as the loader maps it: converts addresses to bytes, and determines which bytes stay constant.
//!
//! Knows ELF, not Go. All addresses are link-time. Holds headers only; contents stay in the shared bytes.

use std::{fmt, ops::Range, sync::Arc};

use object::{
    LittleEndian as LE,
    elf::{self, FileHeader64},
    read::{
        SectionIndex,
        elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _},
    },
};

use super::{Error, bytes, relocs::Relocs};

/// The file's bytes, a mapping or a buffer, shared by all readers.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// Maximum number of program headers that the kernel loads, 64 KiB of them:
/// <https://github.com/torvalds/linux/blob/v6.12/fs/binfmt_elf.c> load_elf_phdrs
const MAX_PROGRAM_HEADERS: usize = 65536 / 56;
/// Maximum number of sections read; no linker writes more.
const MAX_SECTIONS: usize = 20_000;
/// Maximum length of a section name in bytes; a longer one is read as empty.
const MAX_SECTION_NAME: usize = 64;

/// Maximum length of a symbol name, in bytes.
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

/// Contents of a PT_LOAD program header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadSegment {
    /// Link-time address of the first byte.
    pub address: u64,
    /// File offset of the first byte.
    pub file_offset: u64,
    /// Number of bytes in the file.
    pub file_size: u64,
    /// Whether the segment is executable.
    pub executable: bool,
}

/// A section header, unvalidated.
#[derive(Debug, Clone)]
pub struct Section {
    /// Section name; empty if it is longer than 63 bytes.
    pub name: String,
    /// Section type (sh_type).
    pub kind: u32,
    /// Section flags (sh_flags).
    pub flags: u64,
    /// Link-time address; 0 for a section that is not loaded.
    pub addr: u64,
    /// Offset of the section in the file, bytes.
    pub offset: u64,
    /// Size in bytes: in the file, or in memory for a section without file contents.
    pub size: u64,
    pub(super) link: u32,
}

/// Bytes of the file at a link-time address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaticBytes<'a> {
    /// The bytes as in the file: words that the loader relocates are not yet relocated.
    pub bytes: &'a [u8],
    /// Whether the program may change them; if so, a live process may contain other bytes.
    pub writable: bool,
    /// Whether the loader changes words in them before the program runs.
    pub relocated: bool,
}

pub(super) struct Image {
    bytes: SharedBytes,
    pub(super) machine: u16,
    pub(super) elf_type: u16,
    pub(super) segments: Vec<Segment>,
    pub(super) sections: Vec<Section>,
    /// Address ranges that only the loader's relocation writes; read-only afterwards (PT_GNU_RELRO).
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
        if headers.len() > MAX_PROGRAM_HEADERS {
            return Err(Error::Malformed { what: "program headers", at: header.e_phoff.get(LE) });
        }
        let mut dynamic = None;
        for h in headers {
            // From here on, additions to addresses inside a segment do not overflow.
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

    /// Reads the section headers. They are optional: damaged ones are treated as absent.
    fn read_sections(&mut self, header: &FileHeader64<LE>, data: &[u8]) {
        let Ok(table) = header.sections(LE, data) else { return };
        let strings =
            header.shstrndx(LE, data).ok().and_then(|i| table.section(SectionIndex(i as usize)).ok());
        let strings =
            strings.and_then(|s| bytes::slice(data, s.sh_offset(LE), s.sh_size(LE))).unwrap_or_default();
        for section in table.iter().take(MAX_SECTIONS) {
            // Not `section_name`, which searches the whole string table for the end of the name.
            let name =
                bytes::c_str(strings, section.sh_name(LE).into(), MAX_SECTION_NAME).unwrap_or_default();
            let name = String::from_utf8_lossy(name).into_owned();
            self.sections.push(Section {
                name,
                kind: section.sh_type(LE),
                flags: section.sh_flags(LE),
                addr: section.sh_addr(LE),
                offset: section.sh_offset(LE),
                size: section.sh_size(LE),
                link: section.sh_link(LE),
            });
        }
        // Go's linker leaves the GNU build id out of the PT_NOTE segment (seen up to 1.27).
        let notes = self.sections.iter().filter(|s| s.kind == elf::SHT_NOTE && s.addr != 0);
        let ranges: Vec<_> = notes.filter_map(|s| Some(s.addr..s.addr.checked_add(s.size)?)).collect();
        self.notes.extend(ranges);
    }

    /// Returns `reason`, wrapped in [`Error::CutOff`] if the file is shorter than its headers declare.
    pub(super) fn explain(&self, reason: Error) -> Error {
        let ends = self.segments.iter().filter_map(|s| s.offset.checked_add(s.filesz));
        let (len, want) = (self.data().len() as u64, ends.max().unwrap_or_default());
        if want > len { Error::CutOff { reason: Box::new(reason), len, want } } else { reason }
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

    /// Returns the file offset of the byte at `vaddr`.
    pub(super) fn file_offset(&self, vaddr: u64) -> Option<u64> {
        let s = self.segment(vaddr).filter(|s| vaddr - s.vaddr < s.filesz)?;
        s.offset.checked_add(vaddr - s.vaddr)
    }

    /// Returns the file bytes from `vaddr` to the end of its segment.
    pub(super) fn rest_of_segment(&self, vaddr: u64) -> Option<&[u8]> {
        let s = self.segment(vaddr).filter(|s| vaddr - s.vaddr < s.filesz)?;
        let end = s.offset.checked_add(s.filesz)?.min(self.data().len() as u64);
        bytes::range(self.data(), s.offset.checked_add(vaddr - s.vaddr)?..end)
    }

    /// Returns the loaded data with its address, to search for tables that no section names: segments without
    /// code, writable ones first. Segments of a valid file do not overlap; for a hostile file the total is
    /// limited to twice its size.
    pub(super) fn data_segments(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.bounded(
            self.segments
                .iter()
                .filter(|s| !s.exec && s.write)
                .chain(self.segments.iter().filter(|s| !s.exec && !s.write)),
        )
    }

    /// Returns the writable segments of `data_segments`.
    pub(super) fn writable_data(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.bounded(self.segments.iter().filter(|s| !s.exec && s.write))
    }

    fn bounded<'a>(
        &'a self,
        segments: impl Iterator<Item = &'a Segment>,
    ) -> impl Iterator<Item = (u64, &'a [u8])> {
        let mut left = 2 * self.data().len() as u64;
        segments.map_while(move |s| {
            let data = self.rest_of_segment(s.vaddr).unwrap_or_default();
            left = left.checked_sub(data.len() as u64)?;
            Some((s.vaddr, data))
        })
    }

    /// Returns `len` bytes at `vaddr`, as in the file.
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

    /// Returns the range of addresses around `vaddr` whose bytes never change while the program runs:
    /// read-only segments and memory that becomes read-only after relocation, up to the next writable byte on
    /// either side. Empty when `vaddr` itself is writable or not mapped.
    pub(super) fn constant_range(&self, vaddr: u64) -> Range<u64> {
        let end = |s: &Segment| s.vaddr.saturating_add(s.memsz);
        let relro = |s: &Segment| self.relro.iter().find(|r| r.start <= s.vaddr && r.end > s.vaddr);
        let (mut constant, mut writable) = (Vec::new(), Vec::new());
        for s in &self.segments {
            let split = match (s.write, relro(s)) {
                (false, _) => end(s),
                (true, Some(r)) => r.end.min(end(s)),
                (true, None) => s.vaddr,
            };
            constant.push(s.vaddr..split);
            writable.push(split..end(s));
        }
        constant.retain(|r| !r.is_empty());
        writable.retain(|r| !r.is_empty());
        if !constant.iter().any(|r| r.contains(&vaddr)) || writable.iter().any(|r| r.contains(&vaddr)) {
            return vaddr..vaddr;
        }
        let floor = writable.iter().map(|r| r.end).filter(|end| *end <= vaddr).max().unwrap_or(0);
        let ceiling =
            writable.iter().map(|r| r.start).filter(|start| *start > vaddr).min().unwrap_or(u64::MAX);
        let first = constant.iter().map(|r| r.start).min().unwrap_or(vaddr);
        let last = constant.iter().map(|r| r.end).max().unwrap_or(vaddr);
        first.max(floor)..last.min(ceiling)
    }

    /// Fills `buf` with the bytes at `vaddr` after the loader has loaded the file with load bias `bias`.
    /// Returns false when a byte is not in the file or depends on another object.
    pub(super) fn read_loaded(&self, vaddr: u64, bias: u64, buf: &mut [u8]) -> bool {
        let Some(raw) = self.raw(vaddr, buf.len() as u64) else { return false };
        buf.copy_from_slice(raw);
        let end = vaddr.wrapping_add(buf.len() as u64);
        let mut next = 0;
        for reloc in self.relocs.in_range(self.data(), vaddr..end) {
            let Some(value) = reloc.relative_value(self.machine) else { return false };
            // Two relocations of one word contradict each other; a hostile file may contain millions.
            if reloc.offset < next {
                return false;
            }
            next = reloc.offset.saturating_add(8);
            for (i, byte) in value.wrapping_add(bias).to_le_bytes().into_iter().enumerate() {
                let at = reloc.offset.wrapping_add(i as u64).wrapping_sub(vaddr);
                if let Some(b) = usize::try_from(at).ok().and_then(|at| buf.get_mut(at)) {
                    *b = byte;
                }
            }
        }
        true
    }

    /// Returns the word at `vaddr` after relocation with a load bias of 0, so addresses in it are link-time.
    pub(super) fn word(&self, vaddr: u64) -> Option<u64> {
        let mut buf = [0; 8];
        self.read_loaded(vaddr, 0, &mut buf).then(|| u64::from_le_bytes(buf))
    }

    /// Returns the addresses of the words that the loader sets to `value` (plus the load bias).
    pub(super) fn relocated_to(&self, value: u64) -> impl Iterator<Item = u64> {
        self.relocs
            .all(self.data())
            .filter(move |r| r.relative_value(self.machine) == Some(value))
            .map(|r| r.offset)
    }

    /// Returns the descriptor of the first note with this owner and type.
    pub(super) fn note(&self, owner: &[u8], kind: u32) -> Option<&[u8]> {
        for range in &self.notes {
            if let Some(found) = self.note_in(range, owner, kind) {
                return Some(found);
            }
        }
        None
    }

    fn note_in(&self, range: &Range<u64>, owner: &[u8], kind: u32) -> Option<&[u8]> {
        let mut at = range.start;
        // Each note has a header of 12 bytes; a hostile file may contain very many.
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
        None
    }

    /// Returns the symbol table and its string table.
    fn symtab(&self) -> Option<(&[u8], &[u8])> {
        let table = self.sections.iter().find(|s| s.kind == elf::SHT_SYMTAB)?;
        let strings = self.sections.get(table.link as usize)?;
        let strings = bytes::slice(self.data(), strings.offset, strings.size)?;
        Some((bytes::slice(self.data(), table.offset, table.size)?, strings))
    }

    /// Iterates over all symbols: name, address, size.
    pub(super) fn symbols(&self) -> impl Iterator<Item = (&[u8], u64, u64)> {
        let (symbols, strings) = self.symtab().unwrap_or_default();
        symbols.as_chunks::<24>().0.iter().filter_map(move |s| {
            let name = bytes::c_str(strings, u64::from(bytes::u32_at(s, 0)?), MAX_SYMBOL)?;
            Some((name, bytes::u64_at(s, 8)?, bytes::u64_at(s, 16)?))
        })
    }

    /// Returns value and size of the first symbol named `name`; a linear search.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds an x86-64 file of one page with these segments (flags, vaddr, offset, size).
    fn file(segments: &[(u32, u64, u64, u64)]) -> Vec<u8> {
        let mut out = b"\x7fELF\x02\x01\x01".to_vec();
        out.resize(64, 0);
        let count = segments.len() as u8;
        out[16..21].copy_from_slice(&[3, 0, 62, 0, 1]);
        out[32] = 64;
        out[52..60].copy_from_slice(&[64, 0, 56, 0, count, 0, 64, 0]);
        for &(flags, vaddr, offset, size) in segments {
            out.extend([1, flags].into_iter().flat_map(u32::to_le_bytes));
            out.extend([offset, vaddr, vaddr, size, size, 8].into_iter().flat_map(u64::to_le_bytes));
        }
        out.resize(4096, 0);
        out
    }

    #[test]
    fn overlapping_segments_are_not_searched_again_and_again() {
        let segments: Vec<_> = (0..60).map(|i| (elf::PF_W, 0x10_0000 * i, 0, 4096)).collect();
        let image = Image::parse(Arc::new(file(&segments))).expect("an image");
        assert_eq!(image.segments.len(), 60);
        assert_eq!(image.data_segments().count(), 2);
    }

    #[test]
    fn two_relocations_of_one_word_are_damage() {
        let mut bytes = file(&[(elf::PF_R, 0x1000, 0, 4096)]);
        let rela = |offset: u64| [offset, u64::from(elf::R_X86_64_RELATIVE), 7];
        let entries = [0x1800, 0x1808, 0x1820, 0x1820, 0x1820].into_iter().flat_map(rela);
        let entries: Vec<_> = entries.flat_map(u64::to_le_bytes).collect();
        bytes[2048..2048 + entries.len()].copy_from_slice(&entries);
        let mut image = Image::parse(Arc::new(bytes)).expect("an image");
        image.relocs = Relocs::new(Some(2048), 5);
        assert_eq!((image.word(0x1800), image.word(0x1808)), (Some(7), Some(7)));
        assert_eq!(image.word(0x1820), None);
    }

    #[test]
    fn a_file_that_is_cut_off_says_so() {
        let image = |len| Image::parse(Arc::new(file(&[(elf::PF_R, 0, 0, 4096)])[..len].to_vec()));
        let explained = |len| image(len).expect("an image").explain(Error::NotGo).to_string();
        assert!(
            explained(1000)
                .ends_with("the file is truncated, it has 1000 of the 4096 bytes that its headers name")
        );
        assert_eq!(explained(4096), Error::NotGo.to_string());
    }
}

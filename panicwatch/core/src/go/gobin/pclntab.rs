//! Go's table from program counters to functions, files and lines (`.gopclntab`): locating it, and raw
//! decoding.
//!
//! Knows the format; does not interpret names. Format since Go 1.18:
//! <https://github.com/golang/go/blob/go1.19.8/src/runtime/symtab.go>,
//! <https://github.com/golang/go/blob/go1.21.13/src/runtime/symtab.go> (startLine added in 1.20, magic
//! 0xfffffff1),
//! <https://github.com/golang/go/blob/go1.26.6/src/runtime/symtab.go> (textStart no longer used)

use std::ops::Range;

use panicwatch_common::go::PC_HEADER_TEXT_START;

use super::{Error, bytes, image::Image};

/// Magic number of 1.18 and 1.19.
const MAGIC_1_18: u32 = 0xffff_fff0;
/// Magic number since 1.20.
const MAGIC_1_20: u32 = 0xffff_fff1;
/// Maximum length of a function or file name, in bytes.
const MAX_NAME: usize = 1 << 16;
/// Maximum offset within a function; longer functions are treated as damaged. Bounds the work of one table
/// walk.
const MAX_FUNC: u64 = 1 << 28;

/// Maximum length of a pc-value table, in bytes.
const MAX_TABLE: usize = 1 << 20;
/// Maximum number of addresses that resemble a header and are parsed.
pub(super) const MAX_CANDIDATES: usize = 4096;

/// Locations of the tables, as offsets from `at`.
#[derive(Debug, Clone)]
pub(super) struct PcLnTab {
    /// Link-time address of the header.
    pub(super) at: u64,
    /// File range from the header to the end of its segment.
    pub(super) in_file: Range<usize>,
    /// Unit of pc deltas: 1 on amd64, 4 on arm64.
    pub(super) quantum: u8,
    /// Number of entries of ftab, without the final one.
    pub(super) nfunc: u64,
    /// Link-time start of the text section; 0 since 1.26.
    pub(super) text_start: u64,
    /// Offset of funcnametab; also used to recognize moduledata.
    pub(super) funcname: u64,
    cutab: u64,
    filetab: u64,
    pctab: u64,
    /// Offset of ftab and the _func records (pclntable).
    pcln: u64,
    /// Size of a _func before its variable-length parts: 40, or 44 with startLine.
    func_size: u8,
}

/// A _func record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RawFunc {
    /// Offset from pclntable.
    pub(super) at: u64,
    pub(super) name_off: i32,
    pub(super) args: i32,
    pub(super) deferreturn: u32,
    pub(super) pcsp: u32,
    pub(super) pcfile: u32,
    pub(super) pcln: u32,
    pub(super) npcdata: u32,
    pub(super) cu_offset: u32,
    pub(super) start_line: Option<i32>,
    pub(super) func_id: u8,
    pub(super) flag: u8,
    pub(super) nfuncdata: u8,
}

impl PcLnTab {
    /// Finds the table by its section, else by its magic number in the loadable data.
    pub(super) fn locate(image: &Image) -> Result<Self, Error> {
        let mut found = Err(Error::Malformed { what: "pclntab (none found)", at: 0 });
        for name in [".gopclntab", ".data.rel.ro.gopclntab"] {
            if let Some(section) = image.section(name) {
                found = Self::parse(image, section.addr);
                if found.is_ok() {
                    return found;
                }
            }
        }
        for at in Self::candidates(image).take(MAX_CANDIDATES) {
            let table = Self::parse(image, at);
            if table.is_ok() {
                return table;
            }
            found = found.or(table);
        }
        found
    }

    /// Returns the addresses at which a header of a supported format may begin.
    fn candidates(image: &Image) -> impl Iterator<Item = u64> {
        image.data_segments().flat_map(|(vaddr, data)| {
            let skip = vaddr.wrapping_neg() % 8;
            let words = data.get(skip as usize..).unwrap_or_default().as_chunks::<8>().0.iter().enumerate();
            let begins = |word: &[u8; 8]| matches!(word, [0xf0 | 0xf1, 0xff, 0xff, 0xff, 0, 0, 1 | 4, 8]);
            words.filter(move |(_, word)| begins(word)).map(move |(i, _)| vaddr + skip + 8 * i as u64)
        })
    }

    fn parse(image: &Image, at: u64) -> Result<Self, Error> {
        let malformed = || Error::Malformed { what: "pclntab header", at };
        let data = image.rest_of_segment(at).ok_or_else(malformed)?;
        let magic = bytes::u32_at(data, 0).ok_or_else(malformed)?;
        let func_size = match magic {
            MAGIC_1_18 => 40,
            MAGIC_1_20 => 44,
            _ => return Err(Error::Unsupported { what: "pclntab magic", found: format!("{magic:#x}") }),
        };
        let (quantum, ptr_size) = (data.get(6).copied(), data.get(7).copied());
        let (Some(quantum @ (1 | 2 | 4)), Some(8)) = (quantum, ptr_size) else { return Err(malformed()) };
        let word = |i: u64| bytes::u64_at(data, 8 + 8 * i).ok_or_else(malformed);
        // The table is a sub-slice of the mapped file, so its length fits in usize.
        let start =
            image.file_offset(at).and_then(|start| usize::try_from(start).ok()).ok_or_else(malformed)?;
        let table = Self {
            at,
            in_file: start..start + data.len(),
            quantum,
            nfunc: word(0)?,
            text_start: image.word(at.wrapping_add(PC_HEADER_TEXT_START)).ok_or_else(malformed)?,
            funcname: word(3)?,
            cutab: word(4)?,
            filetab: word(5)?,
            pctab: word(6)?,
            pcln: word(7)?,
            func_size,
        };
        let ordered = [0x48, table.funcname, table.cutab, table.filetab, table.pctab, table.pcln]
            .is_sorted_by(|a, b| a <= b);
        if !ordered || table.nfunc == 0 {
            return Err(malformed());
        }
        // Iteration over all functions relies on this bound.
        let ftab_end = table.nfunc.checked_mul(8).and_then(|n| n.checked_add(table.pcln)?.checked_add(4));
        if ftab_end.is_none_or(|end| end > data.len() as u64) {
            return Err(Error::Malformed { what: "pclntab (more functions than it has room for)", at });
        }
        Ok(table)
    }

    /// Returns the entry of function `i` as an offset from text; `i == nfunc` gives the end of the last
    /// function.
    pub(super) fn entry_off(&self, data: &[u8], i: u64) -> Option<u32> {
        (i <= self.nfunc).then_some(())?;
        bytes::u32_at(data, self.pcln.checked_add(i.checked_mul(8)?)?)
    }

    /// Returns the function whose code contains text offset `off`: a binary search, because ftab is sorted.
    pub(super) fn find(&self, data: &[u8], off: u32) -> Option<u64> {
        let (mut lo, mut hi) = (0, self.nfunc);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if self.entry_off(data, mid)? <= off { lo = mid + 1 } else { hi = mid }
        }
        let i = lo.checked_sub(1)?;
        (off < self.entry_off(data, i + 1)?).then_some(i)
    }

    /// Decodes the _func record of function `i`.
    pub(super) fn func(&self, data: &[u8], i: u64) -> Option<RawFunc> {
        (i < self.nfunc).then_some(())?;
        let funcoff = bytes::u32_at(data, self.pcln.checked_add(i.checked_mul(8)? + 4)?)?;
        let at = self.pcln.checked_add(u64::from(funcoff))?;
        let f = bytes::slice(data, at, u64::from(self.func_size))?;
        // With startLine, the last four single-byte fields are 4 bytes further.
        let tail = u64::from(self.func_size) - 4;
        let byte = |i: u64| f.get(usize::try_from(tail + i).ok()?).copied();
        Some(RawFunc {
            at: u64::from(funcoff),
            name_off: bytes::i32_at(f, 4)?,
            args: bytes::i32_at(f, 8)?,
            deferreturn: bytes::u32_at(f, 12)?,
            pcsp: bytes::u32_at(f, 16)?,
            pcfile: bytes::u32_at(f, 20)?,
            pcln: bytes::u32_at(f, 24)?,
            npcdata: bytes::u32_at(f, 28)?,
            cu_offset: bytes::u32_at(f, 32)?,
            start_line: if tail == 40 { bytes::i32_at(f, 36) } else { None },
            func_id: byte(0)?,
            flag: byte(1)?,
            nfuncdata: byte(3)?,
        })
    }

    /// Returns nameOff of function `i`, without decoding the rest.
    pub(super) fn name_off(&self, data: &[u8], i: u64) -> Option<i32> {
        let funcoff = bytes::u32_at(data, self.pcln.checked_add(i.checked_mul(8)? + 4)?)?;
        bytes::i32_at(data, self.pcln.checked_add(u64::from(funcoff))?.checked_add(4)?)
    }

    /// Returns the name at `off` in funcnametab.
    pub(super) fn name<'a>(&self, data: &'a [u8], off: i32) -> Option<&'a [u8]> {
        bytes::c_str(data, self.funcname.checked_add(u64::try_from(off).ok()?)?, MAX_NAME)
    }

    /// Returns the name at `off`, or its first `max` bytes.
    pub(super) fn name_start<'a>(&self, data: &'a [u8], off: i32, max: usize) -> Option<&'a [u8]> {
        let at = self.funcname.checked_add(u64::try_from(off).ok()?)?;
        let rest = data.get(usize::try_from(at).ok()?..)?;
        let rest = &rest[..rest.len().min(max)];
        Some(rest.split(|byte| *byte == 0).next().unwrap_or(rest))
    }

    /// Reports whether the name at `off` is `name`.
    pub(super) fn name_is(&self, data: &[u8], off: i32, name: &[u8]) -> bool {
        let found = u64::try_from(off)
            .ok()
            .and_then(|off| bytes::slice(data, self.funcname.checked_add(off)?, name.len() as u64 + 1));
        found.and_then(<[u8]>::split_last) == Some((&0, name))
    }

    /// Converts a pcfile value to the file's offset in filetab.
    pub(super) fn file_off(&self, data: &[u8], f: &RawFunc, value: i32) -> Option<u32> {
        let i = u64::from(f.cu_offset).checked_add(u64::try_from(value).ok()?)?;
        bytes::u32_at(data, self.cutab.checked_add(i.checked_mul(4)?)?).filter(|&off| off != u32::MAX)
    }

    /// Returns the file name at `off` in filetab.
    pub(super) fn file<'a>(&self, data: &'a [u8], off: u32) -> Option<&'a [u8]> {
        bytes::c_str(data, self.filetab.checked_add(u64::from(off))?, MAX_NAME)
    }

    /// Returns the offset in pctab of PCDATA table `table`; 0 means none.
    pub(super) fn pcdata_start(&self, data: &[u8], f: &RawFunc, table: u32) -> Option<u32> {
        (table < f.npcdata).then_some(())?;
        let at = self.pcln.checked_add(f.at)? + u64::from(self.func_size) + 4 * u64::from(table);
        bytes::u32_at(data, at)
    }

    /// Returns FUNCDATA `i` as an offset from moduledata.gofunc.
    pub(super) fn funcdata_off(&self, data: &[u8], f: &RawFunc, i: u8) -> Option<u32> {
        (i < f.nfuncdata).then_some(())?;
        let at = self.pcln.checked_add(f.at)?
            + u64::from(self.func_size)
            + 4 * (u64::from(f.npcdata) + u64::from(i));
        bytes::u32_at(data, at).filter(|&off| off != u32::MAX)
    }

    /// Returns the value at `rel` (bytes from the function's entry) in the pc-value table at `off` of pctab.
    pub(super) fn value(&self, data: &[u8], off: u32, rel: u64) -> Option<i32> {
        (rel < MAX_FUNC).then_some(())?;
        self.values(data, off).find(|(end, _)| rel < *end).map(|(_, value)| value)
    }

    /// Iterates over the pc-value table at `off` of pctab: each value with the end of its range, in bytes
    /// from the function's entry. Stops at the end of the table, or where it is damaged. `off` 0 means no
    /// table.
    pub(super) fn values<'a>(&self, data: &'a [u8], off: u32) -> Values<'a> {
        let start = (off != 0).then(|| self.pctab.checked_add(u64::from(off))).flatten();
        let table = start.and_then(|at| data.get(usize::try_from(at).ok()?..)).unwrap_or_default();
        let quantum = u64::from(self.quantum);
        Values { table: &table[..table.len().min(MAX_TABLE)], quantum, pc: 0, value: -1, first: true }
    }
}

/// A pc-value table being decoded.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtab.go> pcvalue, step
pub(super) struct Values<'a> {
    table: &'a [u8],
    quantum: u64,
    pc: u64,
    value: i32,
    first: bool,
}

impl Iterator for Values<'_> {
    type Item = (u64, i32);

    fn next(&mut self) -> Option<(u64, i32)> {
        let delta = bytes::uvarint32(&mut self.table)?;
        if delta == 0 && !self.first {
            return None;
        }
        let delta = if delta & 1 != 0 { !(delta >> 1) } else { delta >> 1 };
        self.value = self.value.wrapping_add(delta.cast_signed());
        let step = u64::from(bytes::uvarint32(&mut self.table)?) * self.quantum;
        // In a well-formed table every pair advances the pc, except that the first may cover nothing.
        if step == 0 && !self.first {
            return None;
        }
        self.first = false;
        self.pc += step;
        Some((self.pc, self.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tab(quantum: u8) -> PcLnTab {
        PcLnTab {
            at: 0,
            in_file: 0..0,
            quantum,
            nfunc: 2,
            text_start: 0,
            funcname: 0,
            cutab: 0,
            filetab: 0,
            pctab: 0,
            pcln: 0,
            func_size: 44,
        }
    }

    #[test]
    fn pc_value_tables() {
        // Byte 0 is unused: offset 0 means "no table". Pairs: +1→0 for 4 bytes, +8 for 300, −8 for 2, end.
        let data = [0xff, 2, 4, 16, 0xac, 0x02, 15, 2, 0];
        let at = |rel| tab(1).value(&data, 1, rel);
        assert_eq!(at(0), Some(0));
        assert_eq!(at(3), Some(0));
        assert_eq!(at(4), Some(8));
        assert_eq!(at(303), Some(8));
        assert_eq!(at(304), Some(0));
        assert_eq!(at(306), None, "past the end");
        assert_eq!(tab(4).value(&data, 1, 15), Some(0), "4-byte instructions");
        assert_eq!(tab(1).value(&data, 0, 0), None, "no table");
        for cut in 1..data.len() {
            let _ = tab(1).value(&data[..cut], 1, 305);
        }
        assert_eq!(tab(1).value(&[0, 2, 0, 2, 0, 2, 0], 1, 9), None, "a table that stands still");
        let all: Vec<_> = tab(1).values(&data, 1).collect();
        assert_eq!(all, [(4, 0), (304, 8), (306, 0)]);
    }

    #[test]
    fn functions_are_found_by_their_range() {
        let data: Vec<u8> = [0u32, 7, 0x20, 7, 0x50].into_iter().flat_map(u32::to_le_bytes).collect();
        let find = |off| tab(1).find(&data, off);
        assert_eq!(find(0), Some(0));
        assert_eq!(find(0x1f), Some(0));
        assert_eq!(find(0x20), Some(1));
        assert_eq!(find(0x4f), Some(1));
        assert_eq!(find(0x50), None);
        assert_eq!(tab(1).find(&data[..10], 0x20), None, "cut short");
    }
}

//! Locates runtime.firstmoduledata in the file, and reads the addresses it contains.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtab.go> moduledata

use panicwatch_common::go::SLICE_LEN;

use super::{
    Error, RuntimeLayout,
    image::Image,
    pclntab::{MAX_CANDIDATES, PcLnTab},
};

/// Maximum number of text sections: normally one, more only in programs too large for a branch instruction.
const MAX_TEXT_SECTIONS: u64 = 1024;

/// Description of the main module, written by the linker for the runtime; addresses are link-time, ends
/// exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Address of moduledata itself.
    pub addr: u64,
    /// Address of runtime.text.
    pub text: u64,
    /// Address of runtime.etext.
    pub etext: u64,
    /// Start and end of initialized data without pointers.
    pub noptrdata: (u64, u64),
    /// Start and end of initialized data.
    pub data: (u64, u64),
    /// Start and end of zeroed data.
    pub bss: (u64, u64),
    /// Start and end of zeroed data without pointers.
    pub noptrbss: (u64, u64),
    /// Base of type and name offsets.
    pub types: u64,
    /// End of the type descriptors.
    pub etypes: u64,
    /// Address of runtime.rodata.
    pub rodata: u64,
    /// Base of FUNCDATA offsets.
    pub gofunc: u64,
    /// The packages' initTask pointers: address and count. `None` up to 1.20.
    pub inittasks: Option<(u64, u64)>,
    /// Text sections as (offset from text, end of the offsets, address); empty when there is only one.
    pub(super) text_sections: Vec<(u64, u64, u64)>,
}

impl ModuleInfo {
    pub(super) fn locate(image: &Image, table: &PcLnTab, layout: &RuntimeLayout) -> Result<Self, Error> {
        let section = image.section(".go.module").map(|s| s.addr);
        let symbol = || image.symbol("runtime.firstmoduledata").map(|(addr, _)| addr);
        if let Some(found) = section.and_then(|at| Self::read(image, table, layout, at)) {
            return Ok(found);
        }
        if let Some(found) = symbol().and_then(|at| Self::read(image, table, layout, at)) {
            return Ok(found);
        }
        // The first two words of moduledata are the addresses of pclntab and of funcnametab, either in the
        // file or written by the loader.
        let header = table.at.to_le_bytes();
        let in_file = image.data_segments().flat_map(|(vaddr, data)| {
            let skip = vaddr.wrapping_neg() % 8;
            let words = data.get(skip as usize..).unwrap_or_default().as_chunks::<8>().0.iter().enumerate();
            words.filter(|(_, w)| **w == header).map(move |(i, _)| vaddr + skip + 8 * i as u64)
        });
        in_file
            .take(MAX_CANDIDATES)
            .chain(image.relocated_to(table.at).take(MAX_CANDIDATES))
            .find_map(|at| Self::read(image, table, layout, at))
            .ok_or(Error::Malformed { what: "moduledata (none found for the pclntab)", at: table.at })
    }

    /// Reads a candidate for moduledata at `at`; `None` unless it agrees with the pclntab.
    fn read(image: &Image, table: &PcLnTab, layout: &RuntimeLayout, at: u64) -> Option<Self> {
        let md = &layout.moduledata;
        let word = |off: u16| image.word(at.checked_add(u64::from(off))?);
        let pair = |from: u16, to: u16| Some((word(from)?, word(to)?));
        let (text, etext) = pair(md.text, md.etext)?;
        let agrees = word(md.pc_header)? == table.at
            && word(md.funcnametab)? == table.at.checked_add(table.funcname)?
            && word(md.ftab + SLICE_LEN as u16)? == table.nfunc.checked_add(1)?
            && text < etext
            // 0 since 1.26
            && (table.text_start == 0 || table.text_start == text)
            && word(md.minpc)? >= text;
        agrees.then_some(())?;
        Some(Self {
            addr: at,
            text,
            etext,
            noptrdata: pair(md.noptrdata, md.enoptrdata)?,
            data: pair(md.data, md.edata)?,
            bss: pair(md.bss, md.ebss)?,
            noptrbss: pair(md.noptrbss, md.enoptrbss)?,
            types: word(md.types)?,
            etypes: word(md.etypes)?,
            rodata: word(md.rodata)?,
            gofunc: word(md.gofunc)?,
            inittasks: md.inittasks.and_then(|off| pair(off, off + SLICE_LEN as u16)),
            text_sections: text_sections(
                image,
                word(md.textsectmap)?,
                word(md.textsectmap + SLICE_LEN as u16)?,
            ),
        })
    }

    /// Converts text offset `off` to an address.
    pub(super) fn text_addr(&self, off: u32) -> u64 {
        let off = u64::from(off);
        let last = self.text_sections.len().wrapping_sub(1);
        for (i, &(start, end, base)) in self.text_sections.iter().enumerate() {
            if off >= start && off < end || i == last && off == end {
                return base.wrapping_add(off - start);
            }
        }
        self.text.wrapping_add(off)
    }

    /// Converts address `pc` to a text offset.
    pub(super) fn text_off(&self, pc: u64) -> Option<u32> {
        if pc < self.text || pc >= self.etext {
            return None;
        }
        for &(start, end, base) in &self.text_sections {
            if pc >= base && pc - base < end.saturating_sub(start) {
                return u32::try_from(start.checked_add(pc - base)?).ok();
            }
        }
        self.text_sections.is_empty().then_some(())?;
        u32::try_from(pc - self.text).ok()
    }
}

/// Reads the map of text sections: <https://github.com/golang/go/blob/go1.24.11/src/runtime/symtab.go>
/// textsect {vaddr, end, baseaddr}. A single section needs no map.
fn text_sections(image: &Image, at: u64, count: u64) -> Vec<(u64, u64, u64)> {
    if !(2..=MAX_TEXT_SECTIONS).contains(&count) {
        return Vec::new();
    }
    let nth = |i: u64| image.word(at.checked_add(8 * i)?);
    (0..count).map_while(|i| Some((nth(3 * i)?, nth(3 * i + 1)?, nth(3 * i + 2)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(text_sections: Vec<(u64, u64, u64)>) -> ModuleInfo {
        ModuleInfo {
            addr: 0,
            text: 0x1000,
            etext: 0x9000,
            noptrdata: (0, 0),
            data: (0, 0),
            bss: (0, 0),
            noptrbss: (0, 0),
            types: 0,
            etypes: 0,
            rodata: 0,
            gofunc: 0,
            inittasks: None,
            text_sections,
        }
    }

    #[test]
    fn text_offsets_with_one_and_with_several_sections() {
        let one = module(vec![]);
        assert_eq!((one.text_addr(0x20), one.text_off(0x1020)), (0x1020, Some(0x20)));
        assert_eq!((one.text_off(0xfff), one.text_off(0x9000)), (None, None));
        let two = module(vec![(0, 0x100, 0x1000), (0x100, 0x200, 0x5000)]);
        assert_eq!((two.text_addr(0x180), two.text_off(0x5080)), (0x5080, Some(0x180)));
        assert_eq!(two.text_addr(0x200), 0x5100, "the end of the last");
        assert_eq!(two.text_off(0x2000), None, "between sections");
    }
}

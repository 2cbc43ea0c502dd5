//! Builds minimal ELF files: one loaded segment, and sections.

/// Section flag: the contents begin with a compression header.
pub(crate) const SHF_COMPRESSED: u64 = 0x800;
const SHT_PROGBITS: u32 = 1;
const SHT_STRTAB: u32 = 3;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
/// Virtual address minus file offset of the segment.
const BASE: u64 = 0x40_0000;

/// A section: name, flags, contents.
pub(crate) type Section<'a> = (&'a str, u64, &'a [u8]);

/// Builds an x86-64 program whose only segment, which is writable, is `segment`, followed by `sections`.
pub(crate) fn build(segment: &[u8], sections: &[Section<'_>]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    let start = (HEADER + PROGRAM_HEADER).next_multiple_of(16);
    // p_type PT_LOAD, p_flags rw-, offset, vaddr, paddr, filesz, memsz, align
    out.extend([1u32, 6].into_iter().flat_map(u32::to_le_bytes));
    let (offset, vaddr, size) = (start as u64, BASE + start as u64, segment.len() as u64);
    out.extend([offset, vaddr, vaddr, size, size, 16].into_iter().flat_map(u64::to_le_bytes));
    out.resize(start, 0);
    out.extend(segment);

    let mut names = vec![0];
    let mut headers = vec![[0; 8]];
    for &(name, flags, data) in sections {
        headers.push([
            names.len() as u64,
            SHT_PROGBITS.into(),
            flags,
            0,
            out.len() as u64,
            data.len() as u64,
            0,
            1,
        ]);
        names.extend(name.bytes().chain([0]));
        out.extend(data);
    }
    headers.push([names.len() as u64, SHT_STRTAB.into(), 0, 0, out.len() as u64, 0, 0, 1]);
    names.extend(b".shstrtab\0");
    if let Some(last) = headers.last_mut() {
        last[5] = names.len() as u64;
    }
    out.extend(&names);
    let table = out.len() as u64;
    for [name, kind, flags, addr, offset, size, link, align] in &headers {
        out.extend([*name as u32, *kind as u32].into_iter().flat_map(u32::to_le_bytes));
        out.extend([*flags, *addr, *offset, *size].into_iter().flat_map(u64::to_le_bytes));
        out.extend([*link as u32, 0].into_iter().flat_map(u32::to_le_bytes));
        out.extend([*align, 0].into_iter().flat_map(u64::to_le_bytes));
    }
    header(&mut out[..HEADER], table, headers.len() as u16);
    out
}

fn header(out: &mut [u8], sections: u64, count: u16) {
    out[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    // e_type EXEC, e_machine x86-64, e_version
    put(16, &[2, 0, 62, 0, 1]);
    put(32, &(HEADER as u64).to_le_bytes());
    put(40, &sections.to_le_bytes());
    let sizes = [HEADER as u16, PROGRAM_HEADER as u16, 1, 64, count, count - 1];
    for (i, size) in sizes.into_iter().enumerate() {
        put(52 + 2 * i, &size.to_le_bytes());
    }
}

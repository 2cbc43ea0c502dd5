//! Targets whose input is the content of a small ELF file.

use std::sync::Arc;

use panicwatch::go::gobin::identify;

use crate::{
    elf_file::{self, SHF_COMPRESSED},
    exercise,
};

/// Parses the input as build information, with the magic in front of it and then alone.
pub fn buildinfo(input: &[u8]) {
    let mut segment = b"\xff Go buildinf:".to_vec();
    segment.extend(input);
    let _ = identify(Arc::new(elf_file::build(&segment, &[])));
    // Without the magic at the start of the segment, the parser searches for it.
    let _ = identify(Arc::new(elf_file::build(input, &[])));
}

/// Parses DWARF sections: one byte of flags (1, 2, 4: .debug_info, .debug_abbrev, .debug_str begin with a
/// compression header), the lengths of .debug_abbrev and .debug_str (two bytes each), the contents of both,
/// and the rest as .debug_info.
pub fn dwarf(input: &[u8]) {
    let Some((&[flags, a, b, c, d], rest)) = input.split_first_chunk::<5>() else { return };
    let cut = |bytes: &[u8], low, high| usize::from(u16::from_le_bytes([low, high])).min(bytes.len());
    let (abbrev, rest) = rest.split_at(cut(rest, a, b));
    let (strings, info) = rest.split_at(cut(rest, c, d));
    let flag = |bit| if flags & bit != 0 { SHF_COMPRESSED } else { 0 };
    let sections = [
        (".debug_info", flag(1), info),
        (".debug_abbrev", flag(2), abbrev),
        (".debug_str", flag(4), strings),
    ];
    let _ = exercise::debug_info(&elf_file::build(&[], &sections));
}

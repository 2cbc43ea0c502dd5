//! Files crafted to be expensive: each is small, but reading it naively takes hours or gigabytes.

#[path = "support/alloc.rs"]
mod alloc;
#[path = "support/elf_file.rs"]
mod elf_file;

use std::sync::Arc;

use elf_file::SHF_COMPRESSED;
use panicwatch::gobin::{
    Error,
    dwarf::{DwarfError, Wanted, offsets},
    identify,
};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// DW_TAG_compile_unit with children (1), DW_TAG_structure_type without (2), with a name from .debug_str (3),
/// with children and an inline name (4), DW_TAG_member with name and offset (5).
const ABBREVIATIONS: &[u8] = &[
    1, 0x11, 1, 0, 0, 2, 0x13, 0, 0, 0, 3, 0x13, 0, 0x03, 0x0e, 0, 0, 4, 0x13, 1, 0x03, 0x08, 0, 0, 5, 0x0d,
    0, 0x03, 0x08, 0x38, 0x0b, 0, 0, 0,
];

/// Builds a DWARF 4 unit with these entries.
fn unit(entries: &[u8]) -> Vec<u8> {
    let mut out = (entries.len() as u32 + 7).to_le_bytes().to_vec();
    out.extend([4, 0, 0, 0, 0, 0, 8]);
    out.extend(entries);
    out
}

fn wanted() -> Vec<Wanted> {
    vec![Wanted { names: vec!["runtime.g"], paths: vec!["goid", "m"] }]
}

/// Searches for a struct in a file with these sections; returns the number of fields found and the peak of
/// the allocated memory.
fn look(info: (u64, &[u8]), abbrev: &[u8], str: &[u8]) -> (Result<usize, DwarfError>, usize) {
    let sections = [(".debug_info", info.0, info.1), (".debug_abbrev", 0, abbrev), (".debug_str", 0, str)];
    let file = elf_file::build(&[], &sections);
    alloc::height(|| offsets(&file, &wanted()).map(|found| found.values().map(|paths| paths.len()).sum()))
}

/// Prepends an Elf64_Chdr: compression type, decompressed size, alignment.
fn compressed(kind: u32, size: u64, data: &[u8]) -> Vec<u8> {
    let mut out = [kind, 0].into_iter().flat_map(u32::to_le_bytes).collect::<Vec<_>>();
    out.extend([size, 1].into_iter().flat_map(u64::to_le_bytes));
    out.extend(data);
    out
}

#[test]
fn a_struct_is_found() {
    let entries = [&[1, 4][..], b"runtime.g\0", &[5], b"goid\0", &[152], &[0, 0]].concat();
    let (found, _) = look((0, &unit(&entries)), ABBREVIATIONS, &[]);
    assert!(matches!(found, Ok(1)), "{found:?}");
}

#[test]
fn a_section_that_claims_a_gigabyte_is_not_given_it() {
    for size in [1 << 20, 1 << 30, u64::MAX] {
        let (found, height) = look((SHF_COMPRESSED, &compressed(1, size, &[0x78, 0x9c])), ABBREVIATIONS, &[]);
        assert!(matches!(found, Err(DwarfError::TooLarge { section: ".debug_info", .. })), "{found:?}");
        assert!(height < 1 << 16, "{height} bytes");
    }
}

#[test]
fn compression_without_a_bound_is_refused() {
    // Zstandard: the output is not limited to the size in the header.
    let (found, _) =
        look((SHF_COMPRESSED, &compressed(2, 16, &[0x28, 0xb5, 0x2f, 0xfd])), ABBREVIATIONS, &[]);
    assert!(matches!(found, Err(DwarfError::Compression { section: ".debug_info" })), "{found:?}");
}

#[test]
fn entries_that_cost_more_than_they_are_long() {
    // Five thousand attributes without bytes (DW_FORM_flag_present) make billions of attributes out of a unit
    // of a megabyte.
    let mut abbrev = vec![1, 0x11, 1, 0, 0, 2, 0x34, 0];
    abbrev.extend([0x3f, 0x19].repeat(5000));
    abbrev.extend([0, 0, 0]);
    let mut entries = vec![1];
    entries.extend(vec![2; 1 << 20]);
    let (found, height) = look((0, &unit(&entries)), &abbrev, &[]);
    assert!(matches!(found, Err(DwarfError::TooMuch)), "{found:?}");
    assert!(height < 8 << 20, "{height} bytes");
}

#[test]
fn units_that_share_no_abbreviations() {
    // Thousands of abbreviations, and two hundred thousand units that start reading them at different
    // offsets.
    let mut abbrev = Vec::new();
    let mut starts = Vec::new();
    for code in 0x80..0x80 + 2500u32 {
        starts.push(abbrev.len() as u32);
        abbrev.extend([code as u8 | 0x80, (code >> 7) as u8, 0x34, 0, 0, 0]);
    }
    abbrev.push(0);
    let unit = |nth: usize| {
        let mut unit = unit(&[0]);
        unit[6..10].copy_from_slice(&starts[nth % 1000].to_le_bytes());
        unit
    };
    let info: Vec<u8> = (0..200_000).flat_map(unit).collect();
    let (found, _) = look((0, &info), &abbrev, &[]);
    assert!(matches!(found, Err(DwarfError::TooMuch)), "{found:?}");
}

#[test]
fn names_that_are_longer_than_any() {
    // A million structs that share one name of sixteen megabytes.
    let mut str = vec![b'x'; 16 << 20];
    str.push(0);
    let mut entries = vec![1];
    entries.extend([3, 0, 0, 0, 0].repeat(1 << 20));
    let (found, _) = look((0, &unit(&entries)), ABBREVIATIONS, &str);
    assert!(matches!(found, Ok(0)), "{found:?}");
}

/// Identifies a program with these build information strings; returns its number of dependencies.
fn build_info(version: &[u8], text: &[u8]) -> Result<usize, Error> {
    let mut segment = b"\xff Go buildinf:\x08\x02".to_vec();
    segment.resize(32, 0);
    for string in [version, text] {
        let mut len = string.len();
        while len >= 0x80 {
            segment.push(len as u8 | 0x80);
            len >>= 7;
        }
        segment.push(len as u8);
        segment.extend(string);
    }
    identify(Arc::new(elf_file::build(&segment, &[]))).map(|(_, info)| info.deps.len())
}

#[test]
fn build_information_of_any_length_costs_little() {
    let text = |n: usize| [&[0; 16][..], &b"dep\tx\n".repeat(n), &[0; 16]].concat();
    assert!(matches!(build_info(b"go1.24.3", &text(1000)), Ok(1000)));
    let huge = text(1 << 20);
    let (found, height) = alloc::height(|| build_info(b"go1.24.3", &huge));
    assert!(matches!(found, Ok(0)), "{found:?}");
    // The growing copy of the file itself, and no modules.
    assert!(height < 4 * huge.len(), "{height} bytes");
    let long = [b"go1.24.3 ".as_slice(), &[b'x'; 2000]].concat();
    let error = build_info(&long, &[]).expect_err("too long").to_string();
    assert!(error.starts_with("malformed build information at"), "{error}");
}

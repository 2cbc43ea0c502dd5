//! Struct layouts from a binary's own debug information: what the layout table is checked against, and what wins
//! where they disagree (a patched runtime, a development version).
//!
//! Knows DWARF as Go's linker writes it (<https://github.com/golang/go/blob/go1.24.11/src/cmd/link/internal/ld/dwarf.go>):
//! every type is a child of some unit's root, package types under `package.Name`. Reads no more than it must: it
//! stops at the last struct it was asked for. Pure over bytes that may be damaged or hostile.

mod compare;
mod open;

use std::{borrow::Cow, collections::BTreeMap};

use gimli::{
    Abbreviations, AttributeValue, DebuggingInformationEntry, EndianSlice, LittleEndian, UnitHeader,
    UnitOffset,
};
use object::{Object, ObjectSection};
use thiserror::Error;

pub use self::{
    compare::{Checked, Difference, check},
    open::{compare, open, open_bytes, parse, table_suffices},
};

/// Largest debug section that is read, decompressed.
const MAX_SECTION: u64 = 1 << 30;
/// A section that claims to grow more than this when decompressed is taken for hostile; Go's grow two- to sixfold.
const MAX_GROWTH: u64 = 100;
/// Most entries that are looked at.
const MAX_ENTRIES: u64 = 100_000_000;
/// Most typedefs in a row.
const MAX_TYPEDEFS: u32 = 8;

type Slice<'a> = EndianSlice<'a, LittleEndian>;
type Entry<'a, 'u> = DebuggingInformationEntry<'u, 'u, Slice<'a>, usize>;

/// Why debug information could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DwarfError {
    /// The file has none.
    #[error("the binary has no debug information (built with -s or -w, or stripped)")]
    None,
    /// It is larger than what is read.
    #[error("debug section {section} claims {size} bytes, more than are read")]
    TooLarge {
        /// Name of the section.
        section: &'static str,
        /// Its size.
        size: u64,
    },
    /// The ELF file is damaged.
    #[error("the file is damaged")]
    Object(#[from] object::Error),
    /// The debug information is damaged.
    #[error("the debug information is damaged")]
    Dwarf(#[from] gimli::Error),
}

/// What to look for: a struct under any of its names, and which paths in it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Go names, package path first (`runtime.g`); the first is the key of the result.
    pub names: Vec<&'static str>,
    /// Field paths (`sched.sp`); alternatives between `|`; `sizeof` for the whole.
    pub paths: Vec<&'static str>,
}

/// Offset of each path that was found, by the first name of its struct.
pub type Found = BTreeMap<&'static str, BTreeMap<&'static str, u64>>;

/// Reads the layouts of `wanted` from the ELF file `bytes`. Structs and fields that it does not know are absent.
///
/// # Errors
/// Without debug information, or when it is damaged before everything was found.
pub fn offsets(bytes: &[u8], wanted: &[Wanted]) -> Result<Found, DwarfError> {
    let file = object::File::parse(bytes)?;
    let sections = Sections::load(&file)?;
    let dwarf = sections.dwarf();
    let mut found = Found::new();
    let mut entries = 0;
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        // Not `Dwarf::unit`, which would want the line tables too.
        let abbreviations = header.abbreviations(&dwarf.debug_abbrev)?;
        let reader = Reader { dwarf: &dwarf, header: &header, abbreviations: &abbreviations };
        if reader.unit(wanted, &mut found, &mut entries)? {
            break;
        }
    }
    Ok(found)
}

/// The debug sections, decompressed.
struct Sections<'a>(BTreeMap<&'static str, Cow<'a, [u8]>>);

impl<'a> Sections<'a> {
    fn load(file: &object::File<'a>) -> Result<Self, DwarfError> {
        use gimli::SectionId::{DebugAbbrev, DebugInfo, DebugStr};
        let mut sections = BTreeMap::new();
        for id in [DebugInfo, DebugAbbrev, DebugStr] {
            // By `object`, also under the old name of compressed sections, .zdebug_info.
            let Some(section) = file.section_by_name(id.name()) else { continue };
            let compressed = section.compressed_data()?;
            let (size, stored) = (compressed.uncompressed_size, compressed.data.len() as u64);
            if size > MAX_SECTION || size / MAX_GROWTH > stored {
                return Err(DwarfError::TooLarge { section: id.name(), size });
            }
            sections.insert(id.name(), section.uncompressed_data()?);
        }
        if sections.contains_key(DebugInfo.name()) { Ok(Self(sections)) } else { Err(DwarfError::None) }
    }

    fn dwarf(&self) -> gimli::Dwarf<Slice<'_>> {
        let section = |id: gimli::SectionId| {
            let data = self.0.get(id.name()).map_or(&[][..], |data| data);
            Ok::<_, gimli::Error>(EndianSlice::new(data, LittleEndian))
        };
        // Loading from memory cannot fail; the error type is that of the closure.
        gimli::Dwarf::load(section).unwrap_or_default()
    }
}

struct Reader<'a, 'u> {
    dwarf: &'u gimli::Dwarf<Slice<'a>>,
    header: &'u UnitHeader<Slice<'a>>,
    abbreviations: &'u Abbreviations,
}

impl<'a> Reader<'a, '_> {
    /// Looks through one unit's types; true when nothing is wanted any more.
    fn unit(&self, wanted: &[Wanted], found: &mut Found, entries: &mut u64) -> Result<bool, DwarfError> {
        let mut tree = self.header.entries_tree(self.abbreviations, None)?;
        let mut children = tree.root()?.children();
        while let Some(child) = children.next()? {
            *entries += 1;
            if *entries > MAX_ENTRIES {
                return Ok(true);
            }
            let entry = child.entry();
            if entry.tag() != gimli::DW_TAG_structure_type {
                continue;
            }
            let Some(name) = self.name(entry)? else { continue };
            let Some(w) = wanted.iter().find(|w| w.names.contains(&name.as_ref())) else { continue };
            if found.contains_key(w.names[0]) {
                continue;
            }
            let offset = entry.offset();
            let paths = self.paths(offset, &w.paths)?;
            found.insert(w.names[0], paths);
            if found.len() == wanted.len() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn name(&self, entry: &Entry<'a, '_>) -> Result<Option<Cow<'a, str>>, DwarfError> {
        let Some(value) = entry.attr_value(gimli::DW_AT_name)? else { return Ok(None) };
        Ok(match value {
            AttributeValue::String(text) => Some(text.to_string_lossy()),
            AttributeValue::DebugStrRef(at) => Some(self.dwarf.debug_str.get_str(at)?.to_string_lossy()),
            // Names that only C's compilers write.
            _ => None,
        })
    }

    /// Offsets of `paths` in the struct at `at`.
    fn paths(
        &self,
        at: UnitOffset,
        paths: &[&'static str],
    ) -> Result<BTreeMap<&'static str, u64>, DwarfError> {
        let mut out = BTreeMap::new();
        for path in paths {
            for alternative in path.split('|') {
                let offset =
                    if alternative == "sizeof" { self.size(at)? } else { self.path(at, alternative)? };
                if let Some(offset) = offset {
                    out.insert(*path, offset);
                    break;
                }
            }
        }
        Ok(out)
    }

    fn size(&self, at: UnitOffset) -> Result<Option<u64>, DwarfError> {
        let entry = self.header.entry(self.abbreviations, at)?;
        Ok(entry.attr_value(gimli::DW_AT_byte_size)?.and_then(|v| v.udata_value()))
    }

    fn path(&self, at: UnitOffset, path: &str) -> Result<Option<u64>, DwarfError> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        let mut tree = self.header.entries_tree(self.abbreviations, Some(at))?;
        let mut members = tree.root()?.children();
        while let Some(member) = members.next()? {
            let entry = member.entry();
            if entry.tag() != gimli::DW_TAG_member || self.name(entry)?.as_deref() != Some(head) {
                continue;
            }
            let Some(offset) =
                entry.attr_value(gimli::DW_AT_data_member_location)?.and_then(|v| v.udata_value())
            else {
                return Ok(None);
            };
            let Some(rest) = rest else { return Ok(Some(offset)) };
            let Some(inner) = self.struct_of(entry)? else { return Ok(None) };
            return Ok(self.path(inner, rest)?.and_then(|inner| offset.checked_add(inner)));
        }
        Ok(None)
    }

    /// The struct that is a member's type, through typedefs; Go's linker keeps all types in one unit.
    fn struct_of(&self, member: &Entry<'a, '_>) -> Result<Option<UnitOffset>, DwarfError> {
        let mut at = self.reference(member)?;
        for _ in 0..MAX_TYPEDEFS {
            let Some(offset) = at else { return Ok(None) };
            let entry = self.header.entry(self.abbreviations, offset)?;
            if entry.tag() == gimli::DW_TAG_structure_type {
                return Ok(Some(offset));
            }
            if entry.tag() != gimli::DW_TAG_typedef {
                return Ok(None);
            }
            at = self.reference(&entry)?;
        }
        Ok(None)
    }

    fn reference(&self, entry: &Entry<'a, '_>) -> Result<Option<UnitOffset>, DwarfError> {
        Ok(match entry.attr_value(gimli::DW_AT_type)? {
            Some(AttributeValue::UnitRef(offset)) => Some(offset),
            Some(AttributeValue::DebugInfoRef(offset)) => offset.to_unit_offset(self.header),
            _ => None,
        })
    }
}

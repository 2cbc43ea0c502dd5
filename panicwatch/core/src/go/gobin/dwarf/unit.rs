//! One unit of debug information: its structs, and the offsets of their fields.
//!
//! Reads the entries sequentially instead of as a tree, and charges fuel for each one.

use std::collections::BTreeMap;

use gimli::{Abbreviation, Abbreviations, Attribute, AttributeValue, EntriesRaw, UnitHeader, UnitOffset};

use super::{DwarfError, Found, Fuel, Slice, Wanted, sections::Sections};

/// Maximum length of a chain of typedefs.
const MAX_TYPEDEFS: u32 = 8;
/// Maximum number of fields read per struct.
const MAX_MEMBERS: usize = 4096;

/// A unit, with the data needed to read it.
pub(super) struct Unit<'a, 'u> {
    pub(super) sections: &'u Sections<'a>,
    pub(super) header: &'u UnitHeader<Slice<'u>>,
    pub(super) abbreviations: &'u Abbreviations,
}

/// The relevant attributes of an entry.
#[derive(Debug, Clone, Copy, Default)]
struct Entry<'u> {
    name: Option<&'u [u8]>,
    size: Option<u64>,
    /// Byte offset in the struct (DW_AT_data_member_location).
    offset: Option<u64>,
    type_at: Option<UnitOffset>,
}

/// Size and fields of a struct.
struct Struct<'u> {
    size: Option<u64>,
    members: Vec<Entry<'u>>,
}

impl<'u> Unit<'_, 'u> {
    /// Searches the types of this unit; returns true when every wanted struct has been found.
    pub(super) fn search(
        &self,
        wanted: &[Wanted],
        found: &mut Found,
        fuel: &mut Fuel,
    ) -> Result<bool, DwarfError> {
        let mut entries = self.header.entries_raw(self.abbreviations, None)?;
        while !entries.is_empty() {
            let (at, depth) = (entries.next_offset(), entries.next_depth());
            let Some(abbreviation) = next(&mut entries, fuel)? else { continue };
            // Types are children of the unit's root.
            if depth != 1 || abbreviation.tag() != gimli::DW_TAG_structure_type {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let Some(name) = self.entry(&mut entries, abbreviation)?.name else { continue };
            let Some(w) = wanted.iter().find(|w| w.names.iter().any(|n| n.as_bytes() == name)) else {
                continue;
            };
            if found.contains_key(w.names[0]) {
                continue;
            }
            let paths = self.paths(at, &w.paths, fuel)?;
            found.insert(w.names[0], paths);
            if found.len() == wanted.len() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the attributes of an entry.
    fn entry(
        &self,
        entries: &mut EntriesRaw<'_, '_, Slice<'u>>,
        abbreviation: &Abbreviation,
    ) -> Result<Entry<'u>, DwarfError> {
        let mut out = Entry::default();
        for &spec in abbreviation.attributes() {
            let attribute = entries.read_attribute(spec)?;
            match attribute.name() {
                gimli::DW_AT_name => out.name = self.text(&attribute),
                gimli::DW_AT_byte_size => out.size = attribute.udata_value(),
                gimli::DW_AT_data_member_location => out.offset = attribute.udata_value(),
                gimli::DW_AT_type => out.type_at = self.reference(&attribute),
                _ => {}
            }
        }
        Ok(out)
    }

    fn text(&self, attribute: &Attribute<Slice<'u>>) -> Option<&'u [u8]> {
        match attribute.value() {
            AttributeValue::String(text) => Some(text.slice()),
            AttributeValue::DebugStrRef(at) => self.sections.text(at),
            // Other string forms are written only by C compilers.
            _ => None,
        }
    }

    fn reference(&self, attribute: &Attribute<Slice<'u>>) -> Option<UnitOffset> {
        match attribute.value() {
            AttributeValue::UnitRef(offset) => Some(offset),
            AttributeValue::DebugInfoRef(offset) => offset.to_unit_offset(self.header),
            _ => None,
        }
    }

    /// Returns the offsets of `paths` in the struct at `at`.
    fn paths(
        &self,
        at: UnitOffset,
        paths: &[&'static str],
        fuel: &mut Fuel,
    ) -> Result<BTreeMap<&'static str, u64>, DwarfError> {
        let own = self.read_struct(at, fuel)?;
        let mut out = BTreeMap::new();
        for path in paths {
            for alternative in path.split('|') {
                let offset =
                    if alternative == "sizeof" { own.size } else { self.path(&own, alternative, fuel)? };
                if let Some(offset) = offset {
                    out.insert(*path, offset);
                    break;
                }
            }
        }
        Ok(out)
    }

    fn path(&self, own: &Struct<'u>, path: &str, fuel: &mut Fuel) -> Result<Option<u64>, DwarfError> {
        let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
        let Some(member) = own.members.iter().find(|m| m.name == Some(head.as_bytes())) else {
            return Ok(None);
        };
        let (Some(offset), Some(rest)) = (member.offset, rest) else { return Ok(member.offset) };
        let Some(inner) = self.struct_of(member, fuel)? else { return Ok(None) };
        let inner = self.path(&self.read_struct(inner, fuel)?, rest, fuel)?;
        Ok(inner.and_then(|inner| offset.checked_add(inner)))
    }

    /// Returns the struct type of a member, through typedefs; Go's linker keeps all types in one unit.
    fn struct_of(&self, member: &Entry<'u>, fuel: &mut Fuel) -> Result<Option<UnitOffset>, DwarfError> {
        let mut at = member.type_at;
        for _ in 0..MAX_TYPEDEFS {
            let Some(offset) = at else { return Ok(None) };
            let mut entries = self.header.entries_raw(self.abbreviations, Some(offset))?;
            let Some(abbreviation) = next(&mut entries, fuel)? else { return Ok(None) };
            match abbreviation.tag() {
                gimli::DW_TAG_structure_type => return Ok(Some(offset)),
                gimli::DW_TAG_typedef => at = self.entry(&mut entries, abbreviation)?.type_at,
                _ => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Reads the struct whose entry is at `at`.
    fn read_struct(&self, at: UnitOffset, fuel: &mut Fuel) -> Result<Struct<'u>, DwarfError> {
        let mut out = Struct { size: None, members: Vec::new() };
        let mut entries = self.header.entries_raw(self.abbreviations, Some(at))?;
        let Some(abbreviation) = next(&mut entries, fuel)? else { return Ok(out) };
        out.size = self.entry(&mut entries, abbreviation)?.size;
        while entries.next_depth() > 0 && !entries.is_empty() && out.members.len() < MAX_MEMBERS {
            let depth = entries.next_depth();
            let Some(abbreviation) = next(&mut entries, fuel)? else { continue };
            if depth == 1 && abbreviation.tag() == gimli::DW_TAG_member {
                out.members.push(self.entry(&mut entries, abbreviation)?);
            } else {
                entries.skip_attributes(abbreviation.attributes())?;
            }
        }
        Ok(out)
    }
}

/// Reads the next entry's abbreviation and charges fuel for it; `None` at the end of a list of children.
fn next<'abbrev>(
    entries: &mut EntriesRaw<'abbrev, '_, Slice<'_>>,
    fuel: &mut Fuel,
) -> Result<Option<&'abbrev Abbreviation>, DwarfError> {
    let abbreviation = entries.read_abbreviation()?;
    fuel.spend(1 + abbreviation.map_or(0, |a| a.attributes().len() as u64))?;
    Ok(abbreviation)
}

//! Parameters and results of functions: names, types, and the registers in which the debug information
//! locates a parameter at a given instruction.
//!
//! Reads the units that contain the requested code, and the types of its parameters. Pure over bytes that may
//! be damaged or hostile.

use std::{borrow::Cow, collections::HashMap};

use gimli::{EndianSlice, LittleEndian, Operation, UnitHeader};
use object::Object as _;

use super::{
    DwarfError, FUEL, Fuel, Slice, sections,
    types::{GoTypes, Reader, TypeId, name, reference, udata},
};

/// Maximum number of parameters, and of results, of one function.
const MAX_PARAMETERS: usize = 256;

/// A parameter or result of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// Name; `~r0` for an unnamed result.
    pub name: String,
    /// Type of the value.
    pub of: TypeId,
    /// Location at the requested instruction; `None` when the debug information does not give it.
    pub location: Option<Location>,
}

/// Location of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// In these registers, by DWARF number, in the order of the value's bytes.
    Registers(Vec<u16>),
    /// In memory, at this offset in bytes from the canonical frame address: the stack pointer before the
    /// call.
    Frame(i64),
}

/// Parameters and results of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signature {
    /// Parameters in order, the receiver first.
    pub parameters: Vec<Parameter>,
    /// Results in order.
    pub results: Vec<Parameter>,
}

/// Signatures by function entry, and the types they refer to.
pub type Signatures = (HashMap<u64, Signature>, GoTypes);

/// Reads the signatures of the functions in `wanted`, a map from a function's entry to the instruction for
/// which locations are resolved. Functions missing from the debug information are absent.
///
/// # Errors
/// Returns an error without debug information, or when it is damaged.
pub fn signatures(bytes: &[u8], wanted: &HashMap<u64, u64>) -> Result<Signatures, DwarfError> {
    let file = object::File::parse(bytes)?;
    let mut left = sections::MAX_DECOMPRESSED;
    let sections = gimli::DwarfSections::load(|id| {
        Ok::<Cow<'_, [u8]>, DwarfError>(sections::load(&file, id.name(), &mut left)?.unwrap_or_default())
    })?;
    if file.section_by_name(".debug_info").is_none() || !file.is_little_endian() {
        return Err(DwarfError::None);
    }
    let mut dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    dwarf.populate_abbreviations_cache(gimli::AbbreviationsCacheStrategy::Duplicates);
    let mut headers = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        headers.push(header);
    }
    let mut search = Search {
        dwarf: &dwarf,
        wanted,
        types: Reader::new(&dwarf, headers.clone()),
        found: HashMap::new(),
        fuel: Fuel(FUEL),
    };
    for header in headers {
        search.unit(header)?;
        if search.found.len() == wanted.len() {
            break;
        }
    }
    let found = search.found;
    Ok((found, search.types.finish()?))
}

struct Search<'a, 'd> {
    dwarf: &'d gimli::Dwarf<Slice<'a>>,
    wanted: &'d HashMap<u64, u64>,
    types: Reader<'a, 'd>,
    found: HashMap<u64, Signature>,
    fuel: Fuel,
}

impl<'a> Search<'a, '_> {
    fn unit(&mut self, header: UnitHeader<Slice<'a>>) -> Result<(), DwarfError> {
        self.fuel.spend(64)?;
        let unit = self.dwarf.unit(header)?;
        if !self.has_wanted(&unit)? {
            return Ok(());
        }
        let mut entries = unit.entries();
        let mut depth = 0;
        // Entry, requested instruction and depth of the function whose parameters follow.
        let mut current: Option<(u64, u64, isize)> = None;
        while let Some((delta, entry)) = entries.next_dfs()? {
            self.fuel.spend(4)?;
            depth += delta;
            if current.is_some_and(|(.., at)| depth <= at) {
                current = None;
            }
            if entry.tag() == gimli::DW_TAG_subprogram {
                let low = match entry.attr_value(gimli::DW_AT_low_pc)? {
                    Some(value) => self.dwarf.attr_address(&unit, value)?,
                    None => None,
                };
                let site = low.and_then(|low| self.wanted.get(&low).map(|site| (low, *site)));
                current = site.map(|(low, site)| (low, site, depth));
                if let Some((low, _)) = site {
                    let signature = self.abstract_signature(&unit, entry)?;
                    self.found.insert(low, signature);
                }
            } else if entry.tag() == gimli::DW_TAG_formal_parameter
                && let Some((low, site, at)) = current
                && depth == at + 1
            {
                self.parameter(&unit, entry, low, site)?;
            }
        }
        Ok(())
    }

    fn has_wanted(&self, unit: &gimli::Unit<Slice<'a>>) -> Result<bool, DwarfError> {
        let mut ranges = self.dwarf.unit_ranges(unit)?;
        while let Some(range) = ranges.next()? {
            if self.wanted.keys().any(|entry| (range.begin..range.end).contains(entry)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the signature from the abstract entry of a function. If the function is inlined somewhere, its
    /// names and types are in a separate entry, and unused parameters may exist only there.
    fn abstract_signature(
        &mut self,
        unit: &gimli::Unit<Slice<'a>>,
        entry: &gimli::DebuggingInformationEntry<'_, '_, Slice<'a>>,
    ) -> Result<Signature, DwarfError> {
        let mut signature = Signature::default();
        let Some((origin, at)) = self.origin(unit, entry)? else { return Ok(signature) };
        let mut entries = origin.entries_at_offset(at)?;
        let mut depth = 0;
        entries.next_dfs()?;
        while let Some((delta, entry)) = entries.next_dfs()? {
            self.fuel.spend(4)?;
            depth += delta;
            if depth <= 0 {
                break;
            }
            if depth == 1 && entry.tag() == gimli::DW_TAG_formal_parameter {
                self.add(&origin, entry, &mut signature, None)?;
            }
        }
        Ok(signature)
    }

    /// Returns the unit and the entry that DW_AT_abstract_origin refers to.
    fn origin(
        &self,
        unit: &gimli::Unit<Slice<'a>>,
        entry: &gimli::DebuggingInformationEntry<'_, '_, Slice<'a>>,
    ) -> Result<Option<(gimli::Unit<Slice<'a>>, gimli::UnitOffset)>, DwarfError> {
        let Some(at) = reference(unit, entry, gimli::DW_AT_abstract_origin)? else { return Ok(None) };
        let Some(header) = self.types.header_of(at) else { return Ok(None) };
        let Some(offset) = gimli::DebugInfoOffset(at).to_unit_offset(&header) else { return Ok(None) };
        Ok(Some((self.dwarf.unit(header)?, offset)))
    }

    fn add(
        &mut self,
        unit: &gimli::Unit<Slice<'a>>,
        entry: &gimli::DebuggingInformationEntry<'_, '_, Slice<'a>>,
        signature: &mut Signature,
        location: Option<Location>,
    ) -> Result<(), DwarfError> {
        let Some(of) = reference(unit, entry, gimli::DW_AT_type)? else { return Ok(()) };
        let (name, of) = (name(self.dwarf, unit, entry)?, self.types.refer(of));
        let result = match entry.attr_value(gimli::DW_AT_variable_parameter)? {
            Some(gimli::AttributeValue::Flag(flag)) => flag,
            _ => udata(entry, gimli::DW_AT_variable_parameter)?.is_some_and(|flag| flag != 0),
        };
        let list = if result { &mut signature.results } else { &mut signature.parameters };
        if list.len() < MAX_PARAMETERS {
            list.push(Parameter { name, of, location });
        }
        Ok(())
    }

    /// Adds a parameter of the function at `low`, or sets its location if the abstract entry already provided
    /// it.
    fn parameter(
        &mut self,
        unit: &gimli::Unit<Slice<'a>>,
        entry: &gimli::DebuggingInformationEntry<'_, '_, Slice<'a>>,
        low: u64,
        site: u64,
    ) -> Result<(), DwarfError> {
        let location = self.location(unit, entry, site)?;
        let mut signature = self.found.remove(&low).unwrap_or_default();
        match self.origin(unit, entry)? {
            // Already in the list, under its name.
            Some((origin, at)) => {
                let name = name(self.dwarf, &origin, &origin.entry(at)?)?;
                let own = signature.parameters.iter_mut().find(|parameter| parameter.name == name);
                if let Some(own) = own {
                    own.location = location;
                }
            }
            None => self.add(unit, entry, &mut signature, location)?,
        }
        self.found.insert(low, signature);
        Ok(())
    }

    /// Returns the location at `site`; `None` when there is none, or of an unsupported kind.
    fn location(
        &self,
        unit: &gimli::Unit<Slice<'a>>,
        entry: &gimli::DebuggingInformationEntry<'_, '_, Slice<'a>>,
        site: u64,
    ) -> Result<Option<Location>, DwarfError> {
        let Some(value) = entry.attr_value(gimli::DW_AT_location)? else { return Ok(None) };
        // One location for the whole function; the value may get there only after the instruction at `site`.
        if let Some(expression) = value.exprloc_value() {
            return read_location(expression, unit.encoding());
        }
        let Some(mut locations) = self.dwarf.attr_locations(unit, value)? else { return Ok(None) };
        while let Some(location) = locations.next()? {
            if (location.range.begin..location.range.end).contains(&site) {
                return read_location(location.data, unit.encoding());
            }
        }
        Ok(None)
    }
}

fn read_location(
    expression: gimli::Expression<Slice<'_>>,
    encoding: gimli::Encoding,
) -> Result<Option<Location>, DwarfError> {
    let mut registers = Vec::new();
    let mut operations = expression.operations(encoding);
    while let Some(operation) = operations.next()? {
        match operation {
            Operation::Register { register } => registers.push(register.0),
            Operation::Piece { .. } => {}
            Operation::FrameOffset { offset } if registers.is_empty() => {
                return Ok(operations.next()?.is_none().then_some(Location::Frame(offset)));
            }
            // DW_OP_call_frame_cfa: offset 0 from the canonical frame address.
            Operation::CallFrameCFA if registers.is_empty() => {
                return Ok(match operations.next()? {
                    None => Some(Location::Frame(0)),
                    _ => None,
                });
            }
            _ => return Ok(None),
        }
    }
    Ok((!registers.is_empty()).then_some(Location::Registers(registers)))
}

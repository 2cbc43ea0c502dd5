//! Go types as described by the debug information: enough to lay out, fetch and print values.
//!
//! Types refer to each other by number, so cycles need no special handling. Must not know functions or
//! values. Go's own attributes:
//! <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/dwarf/dwarf.go#L1000>

use std::collections::HashMap;

use gimli::{AttributeValue, DwAt, UnitHeader};

use super::{DwarfError, FUEL, Fuel, Slice};

const DW_AT_GO_KIND: DwAt = DwAt(0x2900);
const DW_AT_GO_ELEM: DwAt = DwAt(0x2902);

/// `reflect.Kind` values of kinds that DWARF tags alone do not distinguish.
mod kind {
    pub(super) const BOOL: u64 = 1;
    pub(super) const INTS: std::ops::RangeInclusive<u64> = 2..=6;
    pub(super) const UINTS: std::ops::RangeInclusive<u64> = 7..=12;
    pub(super) const FLOATS: std::ops::RangeInclusive<u64> = 13..=14;
    pub(super) const COMPLEX: std::ops::RangeInclusive<u64> = 15..=16;
    pub(super) const CHAN: u64 = 18;
    pub(super) const MAP: u64 = 21;
    pub(super) const SLICE: u64 = 23;
    pub(super) const STRING: u64 = 24;
}

/// Maximum number of types read per program.
const MAX_TYPES: usize = 1 << 17;
/// Maximum number of fields read per struct.
const MAX_FIELDS: usize = 4096;

/// Maximum size of a value, and maximum offset of a field, in bytes; anything larger is rejected.
const MAX_SIZE: u64 = 1 << 32;
/// Maximum number of steps of one query about a type: a damaged type may contain itself a thousand times.
pub const BUDGET: u32 = 1 << 14;

/// Number of a type in [`GoTypes`].
pub type TypeId = u32;

/// Structure of a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// The type bool.
    Bool,
    /// A signed integer type.
    Int,
    /// An unsigned integer type.
    Uint,
    /// float32 or float64.
    Float,
    /// complex64 or complex128.
    Complex,
    /// A string type.
    String,
    /// A slice of this element type.
    Slice(TypeId),
    /// An array of this element type and length.
    Array(TypeId, u64),
    /// A struct with these fields, in order.
    Struct(Vec<Field>),
    /// A pointer to this type; `None` for an unsafe.Pointer.
    Pointer(Option<TypeId>),
    /// A map type.
    Map,
    /// A channel type.
    Chan,
    /// A function type.
    Func,
    /// An interface type without methods.
    Eface,
    /// An interface type with methods.
    Iface,
    /// Another name for this type.
    Alias(TypeId),
    /// A type whose debug information is not understood.
    Unknown,
}

/// A struct field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name of the field, as in the source.
    pub name: String,
    /// Type of the field.
    pub of: TypeId,
    /// Offset in bytes from the start of the struct.
    pub offset: u64,
}

/// A Go type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoType {
    /// Name as Go spells it, with full package paths.
    pub name: String,
    /// Size of a value in bytes.
    pub size: u64,
    /// Structure of the type.
    pub shape: Shape,
}

/// The types of one program that have been referred to.
#[derive(Debug, Clone, Default)]
pub struct GoTypes {
    types: Vec<GoType>,
}

impl GoTypes {
    /// Builds the types from a table indexed by type number, for tests.
    pub fn from_table(types: Vec<GoType>) -> GoTypes {
        GoTypes { types }
    }

    /// Returns the type, following aliases. `None` for an unknown number, and for circular aliases.
    pub fn get(&self, mut id: TypeId) -> Option<&GoType> {
        for _ in 0..16 {
            let found = self.types.get(id as usize)?;
            match found.shape {
                Shape::Alias(next) => id = next,
                _ => return Some(found),
            }
        }
        None
    }

    /// Returns the name as written in source: an alias's own name, unless the compiler generated it.
    pub fn name(&self, id: TypeId) -> &str {
        match self.types.get(id as usize) {
            Some(own) if !own.name.is_empty() && !own.name.starts_with(".param") => &own.name,
            _ => self.get(id).map_or("", |own| &own.name),
        }
    }

    /// Returns the alignment of the type's values, in bytes.
    pub fn align(&self, id: TypeId) -> u64 {
        self.align_within(id, &mut BUDGET.clone())
    }

    fn align_within(&self, id: TypeId, budget: &mut u32) -> u64 {
        *budget = budget.saturating_sub(1);
        let Some(own) = self.get(id).filter(|_| *budget > 0) else { return 8 };
        match &own.shape {
            Shape::Bool | Shape::Int | Shape::Uint | Shape::Float => own.size.clamp(1, 8),
            Shape::Complex => (own.size / 2).clamp(1, 8),
            Shape::Array(elem, _) => self.align_within(*elem, budget),
            Shape::Struct(fields) => {
                fields.iter().map(|field| self.align_within(field.of, budget)).max().unwrap_or(1)
            }
            _ => 8,
        }
    }
}

type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;
type Unit<'a> = gimli::Unit<Slice<'a>>;
type Entry<'a, 'u> = gimli::DebuggingInformationEntry<'u, 'u, Slice<'a>>;

/// Reads types as they are referred to.
pub(super) struct Reader<'a, 'd> {
    dwarf: &'d Dwarf<'a>,
    headers: Vec<UnitHeader<Slice<'a>>>,
    units: HashMap<usize, Unit<'a>>,
    known: HashMap<usize, TypeId>,
    /// Types referred to but not yet read, by their offsets in .debug_info.
    waiting: Vec<(usize, TypeId)>,
    types: GoTypes,
    fuel: Fuel,
}

impl<'a, 'd> Reader<'a, 'd> {
    pub(super) fn new(dwarf: &'d Dwarf<'a>, headers: Vec<UnitHeader<Slice<'a>>>) -> Self {
        let (units, known, waiting) = (HashMap::new(), HashMap::new(), Vec::new());
        Reader { dwarf, headers, units, known, waiting, types: GoTypes::default(), fuel: Fuel(FUEL) }
    }

    /// Returns the number of the type at `offset` of .debug_info, and schedules it for reading.
    pub(super) fn refer(&mut self, offset: usize) -> TypeId {
        if let Some(id) = self.known.get(&offset) {
            return *id;
        }
        let id = self.types.types.len() as TypeId;
        self.types.types.push(GoType { name: String::new(), size: 0, shape: Shape::Unknown });
        self.known.insert(offset, id);
        if (id as usize) < MAX_TYPES {
            self.waiting.push((offset, id));
        }
        id
    }

    /// Returns the unit that contains the entry at `offset` of .debug_info.
    pub(super) fn header_of(&self, offset: usize) -> Option<UnitHeader<Slice<'a>>> {
        let after = self.headers.partition_point(|header| start(header) <= offset);
        self.headers.get(after.checked_sub(1)?).copied()
    }

    /// Reads every type that was referred to, and the types those refer to.
    pub(super) fn finish(mut self) -> Result<GoTypes, DwarfError> {
        while let Some((offset, id)) = self.waiting.pop() {
            let read = self.read(offset)?;
            if let Some(place) = self.types.types.get_mut(id as usize) {
                *place = read;
            }
        }
        Ok(self.types)
    }

    fn read(&mut self, offset: usize) -> Result<GoType, DwarfError> {
        self.fuel.spend(16)?;
        let unknown = GoType { name: String::new(), size: 0, shape: Shape::Unknown };
        let after = self.headers.partition_point(|header| start(header) <= offset);
        let Some(nth) = after.checked_sub(1) else { return Ok(unknown) };
        // Removed from the map while it is read, because reading refers to further types.
        let unit = match self.units.remove(&nth) {
            Some(unit) => unit,
            None => self.dwarf.unit(self.headers[nth])?,
        };
        let read = self.read_in(&unit, offset - start(&self.headers[nth]));
        self.units.insert(nth, unit);
        Ok(read?.unwrap_or(unknown))
    }

    fn read_in(&mut self, unit: &Unit<'a>, offset: usize) -> Result<Option<GoType>, DwarfError> {
        let mut entries = unit.entries_at_offset(gimli::UnitOffset(offset))?;
        let Some((_, entry)) = entries.next_dfs()? else { return Ok(None) };
        let kind = udata(entry, DW_AT_GO_KIND)?.unwrap_or(0);
        let name = name(self.dwarf, unit, entry)?;
        let size = udata(entry, gimli::DW_AT_byte_size)?.unwrap_or(8);
        let target = reference(unit, entry, gimli::DW_AT_type)?;
        let shape = match entry.tag() {
            gimli::DW_TAG_base_type => basic(kind),
            gimli::DW_TAG_pointer_type => Shape::Pointer(target.map(|at| self.refer(at))),
            gimli::DW_TAG_subroutine_type => Shape::Func,
            gimli::DW_TAG_typedef if kind == kind::MAP => Shape::Map,
            gimli::DW_TAG_typedef if kind == kind::CHAN => Shape::Chan,
            gimli::DW_TAG_typedef => target.map_or(Shape::Unknown, |at| Shape::Alias(self.refer(at))),
            gimli::DW_TAG_structure_type if kind == kind::STRING => Shape::String,
            gimli::DW_TAG_structure_type if kind == kind::SLICE => {
                match reference(unit, entry, DW_AT_GO_ELEM)? {
                    Some(at) => Shape::Slice(self.refer(at)),
                    None => Shape::Unknown,
                }
            }
            gimli::DW_TAG_structure_type if name == "runtime.eface" => Shape::Eface,
            gimli::DW_TAG_structure_type if name == "runtime.iface" => Shape::Iface,
            gimli::DW_TAG_structure_type => {
                let mut fields = Vec::new();
                while let Some((_, member)) = entries.next_dfs()? {
                    self.fuel.spend(8)?;
                    if member.tag() != gimli::DW_TAG_member || fields.len() >= MAX_FIELDS {
                        break;
                    }
                    let Some(at) = reference(unit, member, gimli::DW_AT_type)? else { continue };
                    let of = self.refer(at);
                    let name = self::name(self.dwarf, unit, member)?;
                    let offset = udata(member, gimli::DW_AT_data_member_location)?.unwrap_or(0);
                    fields.push(Field { name, of, offset });
                }
                Shape::Struct(fields)
            }
            gimli::DW_TAG_array_type => {
                let elem = target.map(|at| self.refer(at));
                let bound = entries.next_dfs()?.map(|(_, bound)| udata(bound, gimli::DW_AT_count));
                match (elem, bound.transpose()?.flatten()) {
                    (Some(elem), Some(count)) => Shape::Array(elem, count),
                    _ => Shape::Unknown,
                }
            }
            _ => Shape::Unknown,
        };
        let far = |field: &Field| field.offset > MAX_SIZE;
        let absurd = size > MAX_SIZE || matches!(&shape, Shape::Struct(fields) if fields.iter().any(far));
        if absurd || matches!(shape, Shape::Unknown) {
            return Ok(Some(GoType { name, size: 0, shape: Shape::Unknown }));
        }
        Ok(Some(GoType { name, size, shape }))
    }
}

fn start(header: &UnitHeader<Slice<'_>>) -> usize {
    header.offset().as_debug_info_offset().map_or(0, |offset| offset.0)
}

fn basic(kind: u64) -> Shape {
    match kind {
        kind::BOOL => Shape::Bool,
        kind if kind::INTS.contains(&kind) => Shape::Int,
        kind if kind::UINTS.contains(&kind) => Shape::Uint,
        kind if kind::FLOATS.contains(&kind) => Shape::Float,
        kind if kind::COMPLEX.contains(&kind) => Shape::Complex,
        _ => Shape::Unknown,
    }
}

/// Returns the value of a numeric attribute.
pub(super) fn udata(entry: &Entry<'_, '_>, at: DwAt) -> Result<Option<u64>, DwarfError> {
    Ok(entry.attr(at)?.and_then(|attribute| attribute.udata_value()))
}

/// Returns the name of an entry; empty when it has none.
pub(super) fn name(dwarf: &Dwarf<'_>, unit: &Unit<'_>, entry: &Entry<'_, '_>) -> Result<String, DwarfError> {
    let Some(value) = entry.attr_value(gimli::DW_AT_name)? else { return Ok(String::new()) };
    let text = dwarf.attr_string(unit, value)?;
    Ok(String::from_utf8_lossy(text.slice()).into_owned())
}

/// Returns the offset in .debug_info of the entry that an attribute refers to.
pub(super) fn reference(
    unit: &Unit<'_>,
    entry: &Entry<'_, '_>,
    at: DwAt,
) -> Result<Option<usize>, DwarfError> {
    Ok(match entry.attr_value(at)? {
        Some(AttributeValue::UnitRef(offset)) => {
            offset.to_debug_info_offset(&unit.header).map(|offset| offset.0)
        }
        Some(AttributeValue::DebugInfoRef(offset)) => Some(offset.0),
        _ => None,
    })
}

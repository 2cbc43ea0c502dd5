//! Go types as the debug information describes them: enough to lay out, fetch and print values.
//!
//! Types refer to each other by number, so that cycles cost nothing. Must not know functions or values. Attributes of
//! Go's own: <https://github.com/golang/go/blob/go1.24.11/src/cmd/internal/dwarf/dwarf.go#L1000>

use std::collections::HashMap;

use gimli::{AttributeValue, DwAt, UnitHeader};

use super::{DwarfError, FUEL, Fuel, Slice};

const DW_AT_GO_KIND: DwAt = DwAt(0x2900);
const DW_AT_GO_ELEM: DwAt = DwAt(0x2902);

/// `reflect.Kind` of those that DWARF itself does not tell apart.
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

/// Most types of one program that are read.
const MAX_TYPES: usize = 1 << 17;
/// Most fields of one struct.
const MAX_FIELDS: usize = 4096;

/// Largest value, and farthest field, that is believed.
const MAX_SIZE: u64 = 1 << 32;
/// What one question about a type may cost: damaged ones hold themselves a thousand times over.
pub const BUDGET: u32 = 1 << 14;

/// Number of a type.
pub type TypeId = u32;

/// What sort of type it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shape {
    /// bool
    Bool,
    /// Signed integers.
    Int,
    /// Unsigned integers.
    Uint,
    /// float32, float64
    Float,
    /// complex64, complex128
    Complex,
    /// string
    String,
    /// A slice of these.
    Slice(TypeId),
    /// That many of these.
    Array(TypeId, u64),
    /// Fields, in order.
    Struct(Vec<Field>),
    /// A pointer; to what, unless it is an unsafe.Pointer.
    Pointer(Option<TypeId>),
    /// map
    Map,
    /// chan
    Chan,
    /// func
    Func,
    /// An interface without methods.
    Eface,
    /// An interface with methods.
    Iface,
    /// The same as another type.
    Alias(TypeId),
    /// The debug information says something that is not understood.
    Unknown,
}

/// A struct field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Type.
    pub of: TypeId,
    /// Bytes from the start of the struct.
    pub offset: u64,
}

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoType {
    /// As Go spells it, with the whole path of packages.
    pub name: String,
    /// Bytes of a value.
    pub size: u64,
    /// What it is made of.
    pub shape: Shape,
}

/// The types of one program, as far as they were asked for.
#[derive(Debug, Clone, Default)]
pub struct GoTypes {
    types: Vec<GoType>,
}

impl GoTypes {
    /// From a table, for tests: types by their numbers.
    pub fn from_table(types: Vec<GoType>) -> GoTypes {
        GoTypes { types }
    }

    /// The type itself; of an alias what it stands for. `None` for a number that is none, and for aliases in a circle.
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

    /// The name that people know it by: that of an alias, unless the compiler made it up.
    pub fn name(&self, id: TypeId) -> &str {
        match self.types.get(id as usize) {
            Some(own) if !own.name.is_empty() && !own.name.starts_with(".param") => &own.name,
            _ => self.get(id).map_or("", |own| &own.name),
        }
    }

    /// What addresses of its values are multiples of.
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
    /// Referred to, not yet read: offset in .debug_info.
    waiting: Vec<(usize, TypeId)>,
    types: GoTypes,
    fuel: Fuel,
}

impl<'a, 'd> Reader<'a, 'd> {
    pub(super) fn new(dwarf: &'d Dwarf<'a>, headers: Vec<UnitHeader<Slice<'a>>>) -> Self {
        let (units, known, waiting) = (HashMap::new(), HashMap::new(), Vec::new());
        Reader { dwarf, headers, units, known, waiting, types: GoTypes::default(), fuel: Fuel(FUEL) }
    }

    /// The number of the type at `offset` of .debug_info.
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

    /// The unit that has the entry at `offset` of .debug_info.
    pub(super) fn header_of(&self, offset: usize) -> Option<UnitHeader<Slice<'a>>> {
        let after = self.headers.partition_point(|header| start(header) <= offset);
        self.headers.get(after.checked_sub(1)?).copied()
    }

    /// Everything that was referred to, and what that refers to.
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
        // Taken out while it is read, because its types are referred to meanwhile.
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

/// A number in an attribute.
pub(super) fn udata(entry: &Entry<'_, '_>, at: DwAt) -> Result<Option<u64>, DwarfError> {
    Ok(entry.attr(at)?.and_then(|attribute| attribute.udata_value()))
}

/// The name of an entry; empty when it has none.
pub(super) fn name(dwarf: &Dwarf<'_>, unit: &Unit<'_>, entry: &Entry<'_, '_>) -> Result<String, DwarfError> {
    let Some(value) = entry.attr_value(gimli::DW_AT_name)? else { return Ok(String::new()) };
    let text = dwarf.attr_string(unit, value)?;
    Ok(String::from_utf8_lossy(text.slice()).into_owned())
}

/// Where in .debug_info another entry is that an attribute refers to.
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

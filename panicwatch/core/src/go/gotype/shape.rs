//! Components of composite types: element, length, fields, interface methods.

use panicwatch_common::go::{STRUCT_FIELD_OFFSET, STRUCT_FIELD_SIZE, STRUCT_FIELD_TYP};

use super::{Kind, MAX_NAMES, Type, TypeError, Types};

/// Maximum number of fields in one struct.
const MAX_FIELDS: u64 = 4096;

/// A struct field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Field name; for an embedded field, the name of its type.
    pub name: String,
    /// Address of the field's type descriptor.
    pub type_addr: u64,
    /// Offset in bytes from the start of the struct.
    pub offset: u64,
    /// Whether the field is embedded.
    pub embedded: bool,
}

impl Types<'_> {
    /// Returns the element type of an array, channel, map, pointer or slice.
    pub fn elem(&self, t: &Type) -> Result<Type, TypeError> {
        match t.kind {
            Kind::Array | Kind::Chan | Kind::Pointer | Kind::Slice => self.get(self.word_after(t, 0)?),
            // The key type is the first word.
            Kind::Map => self.get(self.word_after(t, 1)?),
            _ => Err(TypeError::Malformed { addr: t.addr, what: "no element type" }),
        }
    }

    /// Returns the type of a pointer to `t`; `None` when the program has no descriptor of it, or `t` does not
    /// link to it.
    pub fn pointer_to(&self, t: &Type) -> Option<Type> {
        let off = self.memory.u32(t.addr.checked_add(self.context.layout.abi_type.ptr_to_this.into())?)?;
        self.get(self.type_at_offset(t.addr, off as i32)?).ok()
    }

    /// Returns the number of elements of an array type.
    pub fn array_len(&self, t: &Type) -> Result<u64, TypeError> {
        // arrayType {Type; Elem, Slice *Type; Len uintptr}
        self.word_after(t, 2)
    }

    /// Returns the names of the methods that an interface type requires.
    pub fn interface_methods(&self, t: &Type) -> Result<Vec<String>, TypeError> {
        // interfaceType {Type; PkgPath name; Methods []imethod}; imethod {Name nameOff, Typ typeOff}
        let (first, count) = (self.word_after(t, 1)?, self.word_after(t, 2)?);
        if count > MAX_FIELDS {
            return Err(TypeError::Malformed { addr: t.addr, what: "too many methods" });
        }
        let mut total = 0;
        (0..count)
            .map(|i| {
                let at = first.wrapping_add(8 * i);
                let off = self.memory.u32(at).ok_or(TypeError::Unread(at))?;
                let name = self.name_at_offset(t.addr, off as i32)?;
                total += name.len();
                if total > MAX_NAMES {
                    return Err(TypeError::Malformed { addr: t.addr, what: "method names too long" });
                }
                Ok(name)
            })
            .collect()
    }

    /// Returns the fields of a struct type, in order.
    pub fn fields(&self, t: &Type) -> Result<Vec<Field>, TypeError> {
        if t.kind != Kind::Struct {
            return Err(TypeError::Malformed { addr: t.addr, what: "not a struct" });
        }
        // structType {Type; PkgPath name; Fields []structField}; structField {Name, Typ, Offset}.
        let word = |at: u64| self.memory.u64(at).ok_or(TypeError::Unread(at));
        let (first, count) = (self.word_after(t, 1)?, self.word_after(t, 2)?);
        if count > MAX_FIELDS {
            return Err(TypeError::Malformed { addr: t.addr, what: "too many fields" });
        }
        let mut total = 0;
        (0..count)
            .map(|i| {
                let at = first.wrapping_add(STRUCT_FIELD_SIZE * i);
                let name = self.name_at(word(at)?)?;
                let (type_addr, offset) =
                    (word(at.wrapping_add(STRUCT_FIELD_TYP))?, word(at.wrapping_add(STRUCT_FIELD_OFFSET))?);
                total += name.text.len();
                if total > MAX_NAMES {
                    return Err(TypeError::Malformed { addr: t.addr, what: "field names too long" });
                }
                if offset > t.size {
                    return Err(TypeError::Malformed { addr: t.addr, what: "field outside its struct" });
                }
                Ok(Field { name: name.text, type_addr, offset, embedded: name.embedded })
            })
            .collect()
    }
}

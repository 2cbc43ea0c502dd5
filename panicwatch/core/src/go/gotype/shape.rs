//! What a composite type is made of: element, length, fields, map slots.

use super::{Kind, MAX_NAMES, Type, TypeError, Types};

/// Most fields that are believed in one struct.
const MAX_FIELDS: u64 = 4096;

/// A struct field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Name; of an embedded field, its type's name.
    pub name: String,
    /// Address of the type descriptor.
    pub type_addr: u64,
    /// Bytes from the start of the struct.
    pub offset: u64,
    /// Embedded field.
    pub embedded: bool,
}

impl Types<'_> {
    /// The element type of an array, channel, map, pointer or slice.
    pub fn elem(&self, t: &Type) -> Result<Type, TypeError> {
        match t.kind {
            Kind::Array | Kind::Chan | Kind::Pointer | Kind::Slice => self.get(self.word_after(t, 0)?),
            // The key comes first.
            Kind::Map => self.get(self.word_after(t, 1)?),
            _ => Err(TypeError::Malformed { addr: t.addr, what: "no element type" }),
        }
    }

    /// The type of a pointer to it; `None` where the program has no descriptor of that, or does not link to it.
    pub fn pointer_to(&self, t: &Type) -> Option<Type> {
        let off = self.memory.u32(t.addr.checked_add(self.context.layout.abi_type.ptr_to_this.into())?)?;
        self.get(self.type_at_offset(t.addr, off as i32)?).ok()
    }

    /// The number of elements of an array type.
    pub fn array_len(&self, t: &Type) -> Result<u64, TypeError> {
        // arrayType {Type; Elem, Slice *Type; Len uintptr}
        self.word_after(t, 2)
    }

    /// The names of the methods an interface type asks for.
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

    /// The fields of a struct type, in order.
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
                let at = first.wrapping_add(24 * i);
                let name = self.name_at(word(at)?)?;
                let (type_addr, offset) = (word(at.wrapping_add(8))?, word(at.wrapping_add(16))?);
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

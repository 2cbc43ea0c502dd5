//! Methods that a struct has only because it embeds another value: their text is the embedded value's.
//!
//! The type does not record whether `Error` is the struct's own or promoted, but the compiler generates a
//! wrapper for a promoted method, and the pclntab marks it as such.

use super::{
    Decoder,
    place::{Place, Unknown},
};
use crate::go::{
    gobin::FuncId,
    gotype::{Kind, Type},
};

impl Decoder<'_> {
    /// Returns the text of `method` of a value of struct type `own` at `place`, whose methods were found
    /// through `outer` (the struct or a pointer to it); `None` unless the method is known to be promoted from
    /// an embedded field.
    pub(super) fn promoted(
        &self,
        outer: &Type,
        own: &Type,
        place: Place,
        method: &str,
    ) -> Option<Result<Vec<u8>, Unknown>> {
        if own.kind != Kind::Struct || !self.is_promoted(outer, own, method)? {
            return None;
        }
        let mut found = None;
        for field in self.fields(own).ok()?.into_iter().filter(|f| f.embedded) {
            let t = self.types.get(field.type_addr).ok()?;
            let at = place.offset(field.offset);
            let has = match t.kind {
                Kind::Interface => self.interface_methods(&t).ok()?.iter().any(|m| m == method),
                Kind::Pointer => self.has_method(&t, method)?,
                // Methods with a pointer receiver are promoted as well, to a pointer to the outer struct.
                _ if self.has_method(&t, method)? => true,
                _ if outer.kind == Kind::Pointer => self.has_method(&self.types.pointer_to(&t)?, method)?,
                _ => false,
            };
            if has {
                // One of the two fields has it from a deeper level; deciding which is not supported.
                if found.is_some() {
                    return None;
                }
                found = Some((t, at));
            }
        }
        let (t, at) = found?;
        Some(self.embedded_text(&t, at, method))
    }

    fn embedded_text(&self, t: &Type, at: Place, method: &str) -> Result<Vec<u8>, Unknown> {
        if t.kind == Kind::Interface {
            return self.error_at(at);
        }
        let mut t = *t;
        let mut role = self.role(&t)?;
        if !role.error && !role.stringer && t.kind != Kind::Pointer {
            t = self
                .types
                .pointer_to(&t)
                .ok_or_else(|| Unknown::new("no type for a pointer to the embedded type"))?;
            role = self.role(&t)?;
            let name = self.types.name(&t)?;
            if let Place::At(addr) = at {
                return self.method_text(&t, &name, role, addr);
            }
        }
        let name = self.types.name(&t)?;
        if (method == "Error") != role.error {
            return Err(Unknown(format!("the embedded {name} has another method of that name")));
        }
        match (t.kind, at) {
            (Kind::Pointer, _) => self.method_text(&t, &name, role, at.word(self.types.memory)?),
            (_, Place::At(addr) | Place::Word(addr)) => self.method_text(&t, &name, role, addr),
        }
    }

    fn has_method(&self, t: &Type, method: &str) -> Option<bool> {
        Some(self.methods(t).ok()?.iter().any(|m| m.name == method))
    }

    /// Reports whether the method is a wrapper around an embedded field's; `None` when that cannot be
    /// determined. A pointer type's method is a wrapper even if the struct itself declares it, so the
    /// struct's own method set is checked first.
    fn is_promoted(&self, outer: &Type, own: &Type, method: &str) -> Option<bool> {
        let binary = self.code?;
        // Instances of generic types have wrappers of another kind, which pass the type arguments on.
        if self.types.name(own).ok()?.contains('[') {
            return None;
        }
        let find = |t: &Type| self.methods(t).ok()?.into_iter().find(|m| m.name == method);
        let code = find(own).or_else(|| find(outer))?.code_offset?;
        let entry = binary.moduledata().text.checked_add(code.into())?;
        let func = binary.find_func(entry).filter(|f| f.entry() == entry)?;
        Some(func.func_id() == FuncId::Wrapper)
    }
}

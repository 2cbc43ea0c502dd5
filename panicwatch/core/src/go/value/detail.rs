//! Human-readable contents of a composite value, `{Code:5 Msg:"x"}`, and the underlying value of a string or
//! number whose type has methods. Not what Go prints, and not a message.
//!
//! Bounded in depth, width and length; omissions are shown as `…`. Pointers inside are not followed, so
//! rendering terminates.

use panicwatch_common::go::{INTERFACE_DATA, SLICE_LEN, STRING_LEN};

use super::{
    Decoder, VISIT,
    place::{Place, Unknown},
};
use crate::go::{
    gotype::{Kind, Type},
    memory::prefix,
};

/// Maximum length of a rendering in bytes, exceeded by at most one string.
const MAX_LEN: usize = 4 << 10;
/// Maximum number of bytes shown of a string.
const MAX_TEXT: usize = 256;
/// Maximum number of elements of a slice or array, and of fields of a struct.
const MAX_ITEMS: u64 = 32;
const MAX_DEPTH: u32 = 5;

/// Renders a struct, array, slice or map, or the one a pointer refers to; other values have no contents to
/// show.
pub(super) fn render(decoder: &Decoder<'_>, t: &Type, place: Place) -> Result<String, Unknown> {
    let (own, place, mut out) = match t.kind {
        Kind::Pointer => match place.word(decoder.types.memory)? {
            0 => return Err(Unknown::new("nil pointer")),
            addr => (decoder.types.elem(t)?, Place::At(addr), "&".to_owned()),
        },
        _ => (*t, place, String::new()),
    };
    if !matches!(own.kind, Kind::Struct | Kind::Array | Kind::Slice | Kind::Map) {
        return Err(Unknown::new("no contents"));
    }
    Renderer { decoder, out: &mut out }.value(&own, place, 0);
    Ok(out)
}

/// Renders a string, number or bool, or the one a pointer refers to, with its type's name:
/// `main.status(404)`.
pub(super) fn underlying(decoder: &Decoder<'_>, t: &Type, place: Place) -> Result<String, Unknown> {
    let (own, place, and) = match t.kind {
        Kind::Pointer => match place.word(decoder.types.memory)? {
            0 => return Err(Unknown::new("nil pointer")),
            addr => (decoder.types.elem(t)?, Place::At(addr), "&"),
        },
        _ => (*t, place, ""),
    };
    let mut value = String::new();
    let mut renderer = Renderer { decoder, out: &mut value };
    match own.kind {
        Kind::String => renderer.try_value(&own, place, 0)?,
        _ => {
            // Not a string, so never cut.
            let text = decoder.basic_text(&own, place)?.ok_or_else(|| Unknown::new("no basic kind"))?;
            renderer.out.push_str(&String::from_utf8_lossy(&text));
        }
    }
    Ok(format!("{and}{}({value})", decoder.types.name(&own)?))
}

struct Renderer<'a, 'b> {
    decoder: &'a Decoder<'b>,
    out: &'a mut String,
}

impl Renderer<'_, '_> {
    fn value(&mut self, t: &Type, place: Place, depth: u32) {
        if self.out.len() > MAX_LEN || depth > MAX_DEPTH {
            self.out.push('…');
        } else if self.try_value(t, place, depth).is_err() {
            self.out.push('?');
        }
    }

    fn try_value(&mut self, t: &Type, place: Place, depth: u32) -> Result<(), Unknown> {
        let memory = self.decoder.types.memory;
        self.decoder.spend(VISIT)?;
        match t.kind {
            Kind::Struct => self.fields(t, place, depth)?,
            Kind::Array => {
                let elem = self.decoder.types.elem(t)?;
                self.items(&elem, place, self.decoder.types.array_len(t)?, depth);
            }
            Kind::Slice => {
                let elem = self.decoder.types.elem(t)?;
                let (first, len) = (place.word(memory)?, place.offset(SLICE_LEN).word(memory)?);
                if elem.kind == Kind::Uint8 {
                    self.text(first, len);
                } else {
                    self.items(&elem, Place::At(first), len, depth);
                }
            }
            Kind::String => self.text(place.word(memory)?, place.offset(STRING_LEN).word(memory)?),
            Kind::Interface => self.interface(t, place, depth)?,
            Kind::Map => match place.word(memory)? {
                0 => self.out.push_str("map[]"),
                // The number of entries is the map's first word in every release.
                map => {
                    let count = Place::At(map).word(memory)?;
                    self.out.push_str(&format!("map[{count} entries]"));
                }
            },
            Kind::Pointer | Kind::Chan | Kind::Func | Kind::UnsafePointer => {
                let word = place.word(memory)?;
                self.out.push_str(&if word == 0 { "nil".to_owned() } else { format!("{word:#x}") });
            }
            _ => {
                // Not a string, so never cut.
                let text = self.decoder.basic_text(t, place)?.unwrap_or_default();
                self.out.push_str(&String::from_utf8_lossy(&text));
            }
        }
        Ok(())
    }

    fn fields(&mut self, t: &Type, place: Place, depth: u32) -> Result<(), Unknown> {
        let fields = self.decoder.fields(t)?;
        self.out.push('{');
        for (i, field) in fields.iter().enumerate() {
            if i > 0 {
                self.out.push(' ');
            }
            if i as u64 >= MAX_ITEMS {
                self.out.push('…');
                break;
            }
            self.out.push_str(&field.name);
            self.out.push(':');
            match self.decoder.types.get(field.type_addr) {
                Ok(own) => self.value(&own, place.offset(field.offset), depth + 1),
                Err(_) => self.out.push('?'),
            }
        }
        self.out.push('}');
        Ok(())
    }

    fn items(&mut self, elem: &Type, first: Place, len: u64, depth: u32) {
        self.out.push('[');
        for i in 0..len {
            if i > 0 {
                self.out.push(' ');
            }
            if i >= MAX_ITEMS || self.out.len() > MAX_LEN {
                self.out.push('…');
                break;
            }
            self.value(elem, first.offset(i.wrapping_mul(elem.size)), depth + 1);
        }
        self.out.push(']');
    }

    fn text(&mut self, ptr: u64, len: u64) {
        let known = prefix(self.decoder.types.memory, ptr, len, MAX_TEXT);
        self.out.push_str(&format!("{:?}", String::from_utf8_lossy(&known)));
        if (known.len() as u64) < len {
            self.out.push('…');
        }
    }

    /// Renders the value in an interface; for an error, its text if known.
    fn interface(&mut self, t: &Type, place: Place, depth: u32) -> Result<(), Unknown> {
        let memory = self.decoder.types.memory;
        // The first word of an interface without methods is the type itself.
        let found = if self.decoder.interface_methods(t)?.is_empty() {
            match place.word(memory)? {
                0 => None,
                addr => Some((self.decoder.types.get(addr)?, place.offset(INTERFACE_DATA).word(memory)?)),
            }
        } else {
            self.decoder.interface(place)?
        };
        let Some((own, data)) = found else {
            self.out.push_str("nil");
            return Ok(());
        };
        let name = self.decoder.types.name(&own)?;
        let role = self.decoder.role(&own)?;
        if role.error
            && let Ok(text) = self.decoder.method_text(&own, &name, role, data)
        {
            self.out.push_str(&format!("{:?}", String::from_utf8_lossy(&text)));
            if self.decoder.cut.take().is_some() {
                self.out.push('…');
            }
            return Ok(());
        }
        self.value(&own, Place::of(&own, data), depth + 1);
        Ok(())
    }
}

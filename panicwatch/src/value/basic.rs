//! Values without methods, as `printpanicval` and `printanycustomtype` print them.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/error.go>

use super::{
    Decoder,
    place::{Place, Unknown, string_prefix},
    print,
};
use crate::gotype::{Kind, Type};

/// How much of a string that was not captured whole is shown.
const PREFIX: usize = 256;

/// The text of the value, and the message: the text with what Go prints around it.
type TextAndMessage = (Vec<u8>, Vec<u8>);

impl Decoder<'_> {
    pub(super) fn basic(&self, t: &Type, name: &str, data: u64) -> Result<TextAndMessage, Unknown> {
        let place = Place::of(t, data);
        let Some(text) = self.basic_text(t, place)? else {
            let text = format!("({name}) {data:#x}").into_bytes();
            return Ok((text.clone(), text));
        };
        // Only the predeclared types have no package in their name.
        if name == t.kind.name() {
            return Ok((text.clone(), text));
        }
        let (open, close) = match t.kind {
            Kind::String => ("(\"", "\")"),
            Kind::Complex64 | Kind::Complex128 => ("", ""),
            _ => ("(", ")"),
        };
        let message = [name.as_bytes(), open.as_bytes(), &text, close.as_bytes()].concat();
        Ok((text, message))
    }

    /// The text of a value of basic kind; `None` for the other kinds, of which Go prints the address only.
    pub(super) fn basic_text(&self, t: &Type, place: Place) -> Result<Option<Vec<u8>>, Unknown> {
        let minor = self.minor();
        let memory = self.types.memory;
        let bits = || place.uint(memory, t.size.min(16) as usize);
        let text = match t.kind {
            Kind::String => return self.string(place).map(Some).map_err(|e| self.with_prefix(place, e)),
            Kind::Bool => (bits()? != 0).to_string(),
            Kind::Int | Kind::Int64 => (bits()? as i64).to_string(),
            Kind::Int8 => (bits()? as i8).to_string(),
            Kind::Int16 => (bits()? as i16).to_string(),
            Kind::Int32 => (bits()? as i32).to_string(),
            Kind::Uint | Kind::Uint8 | Kind::Uint16 | Kind::Uint32 | Kind::Uint64 => bits()?.to_string(),
            // print(uintptr) is decimal.
            Kind::Uintptr => bits()?.to_string(),
            Kind::Float32 => print::float32(minor, f32::from_bits(bits()? as u32)),
            Kind::Float64 => print::float64(minor, f64::from_bits(bits()? as u64)),
            Kind::Complex64 => {
                let bits = bits()?;
                print::complex64(minor, f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32))
            }
            Kind::Complex128 => {
                let bits = bits()?;
                print::complex128(minor, f64::from_bits(bits as u64), f64::from_bits((bits >> 64) as u64))
            }
            _ => return Ok(None),
        };
        Ok(Some(text.into_bytes()))
    }

    /// Adds what is known of the string to the reason why it is not known whole.
    fn with_prefix(&self, place: Place, Unknown(reason): Unknown) -> Unknown {
        let memory = self.types.memory;
        let (Ok(ptr), Ok(len)) = (place.word(memory), place.offset(8).word(memory)) else {
            return Unknown(reason);
        };
        let known = string_prefix(memory, ptr, len, PREFIX);
        if known.is_empty() {
            return Unknown(reason);
        }
        Unknown(format!("{reason}; it begins with {:?}", String::from_utf8_lossy(&known)))
    }
}

//! Values without methods, as `printpanicval` and `printanycustomtype` print them.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/error.go>

use super::{
    Decoder,
    place::{Place, Unknown},
    print,
};
use crate::go::gotype::{Kind, Type};

/// The text of the value, and the message: the text with what Go prints around it.
type TextAndMessage = (Vec<u8>, Vec<u8>);

impl Decoder<'_> {
    pub(super) fn basic(&self, t: &Type, name: &str, data: u64) -> Result<TextAndMessage, Unknown> {
        let place = Place::of(t, data);
        let Some(text) = self.basic_text(t, place)? else {
            let text = format!("({name}) {data:#x}").into_bytes();
            return Ok((text.clone(), text));
        };
        // Only predeclared types have no package in their name.
        if name == t.kind.name() {
            return Ok((text.clone(), text));
        }
        let (open, close) = match t.kind {
            Kind::String if self.is_cut() => ("(\"", ""),
            Kind::String => ("(\"", "\")"),
            Kind::Complex64 | Kind::Complex128 => ("", ""),
            _ => ("(", ")"),
        };
        let message = [name.as_bytes(), open.as_bytes(), &text, close.as_bytes()].concat();
        Ok((text, message))
    }

    /// Returns the text of a value of basic kind; `None` for other kinds, for which Go prints only the
    /// address.
    pub(super) fn basic_text(&self, t: &Type, place: Place) -> Result<Option<Vec<u8>>, Unknown> {
        let release = self.release();
        let memory = self.types.memory;
        let bits = || place.uint(memory, t.size.min(16) as usize);
        let text = match t.kind {
            Kind::String => return self.string_or_prefix(place).map(Some),
            Kind::Bool => (bits()? != 0).to_string(),
            Kind::Int | Kind::Int64 => (bits()? as i64).to_string(),
            Kind::Int8 => (bits()? as i8).to_string(),
            Kind::Int16 => (bits()? as i16).to_string(),
            Kind::Int32 => (bits()? as i32).to_string(),
            Kind::Uint | Kind::Uint8 | Kind::Uint16 | Kind::Uint32 | Kind::Uint64 => bits()?.to_string(),
            // print(uintptr) is decimal.
            Kind::Uintptr => bits()?.to_string(),
            Kind::Float32 => print::float32(release, f32::from_bits(bits()? as u32)),
            Kind::Float64 => print::float64(release, f64::from_bits(bits()? as u64)),
            Kind::Complex64 => {
                let bits = bits()?;
                print::complex64(release, f32::from_bits(bits as u32), f32::from_bits((bits >> 32) as u32))
            }
            Kind::Complex128 => {
                let bits = bits()?;
                print::complex128(release, f64::from_bits(bits as u64), f64::from_bits((bits >> 64) as u64))
            }
            _ => return Ok(None),
        };
        Ok(Some(text.into_bytes()))
    }
}

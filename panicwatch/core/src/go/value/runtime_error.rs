//! The runtime's own errors: their texts, including numbers, as returned by `Error()`.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/error.go>

use super::{
    Decoder,
    place::{Place, Unknown},
};
use crate::go::{gotype::Type, release::Release};

const PREFIX: &str = "runtime error: ";

/// Texts by bounds code; `%x` is the index, `%y` the limit.
const BOUNDS: [&str; 9] = [
    "index out of range [%x] with length %y",
    "slice bounds out of range [:%x] with length %y",
    "slice bounds out of range [:%x] with capacity %y",
    "slice bounds out of range [%x:%y]",
    "slice bounds out of range [::%x] with length %y",
    "slice bounds out of range [::%x] with capacity %y",
    "slice bounds out of range [:%x:%y]",
    "slice bounds out of range [%x:%y:]",
    "cannot convert slice with length %y to array or pointer to array with length %x",
];

/// Texts by bounds code for a negative index. Go has none for the last code either: it indexes this table out
/// of range.
const BOUNDS_NEGATIVE: [&str; 8] = [
    "index out of range [%x]",
    "slice bounds out of range [:%x]",
    "slice bounds out of range [:%x]",
    "slice bounds out of range [%x:]",
    "slice bounds out of range [::%x]",
    "slice bounds out of range [::%x]",
    "slice bounds out of range [:%x:]",
    "slice bounds out of range [%x::]",
];

impl Decoder<'_> {
    /// Returns the text of a type of package runtime; `None` for unknown types.
    pub(super) fn runtime_error(&self, name: &str, place: Place) -> Option<Result<Vec<u8>, Unknown>> {
        let memory = self.types.memory;
        Some(match name {
            "errorString" | "errorAddressString" => {
                place.string(memory).map(|text| [PREFIX.as_bytes(), &text].concat())
            }
            "plainError" | "synctestDeadlockError" => place.string(memory),
            "boundsError" => self.bounds_error(place),
            "TypeAssertionError" => self.type_assertion_error(place),
            "PanicNilError" => Ok(panic_nil_text(self.release()).into()),
            _ => return None,
        })
    }

    fn bounds_error(&self, place: Place) -> Result<Vec<u8>, Unknown> {
        let memory = self.types.memory;
        let at = &self.types.context.layout.bounds_error;
        let x = place.offset(at.x.into()).word(memory)?;
        let y = place.offset(at.y.into()).word(memory)? as i64;
        let signed = place.offset(at.signed.into()).uint(memory, 1)? != 0;
        let code = place.offset(at.code.into()).uint(memory, 1)? as usize;
        bounds_text(self.release(), x, y, signed, code)
            .ok_or_else(|| Unknown(format!("bounds error code {code} is unknown")))
            .map(|text| text.into_bytes())
    }

    fn type_assertion_error(&self, place: Place) -> Result<Vec<u8>, Unknown> {
        let memory = self.types.memory;
        let at = &self.types.context.layout.type_assertion_error;
        let get = |offset: u16| match place.offset(offset.into()).word(memory)? {
            0 => Ok::<_, Unknown>(None),
            addr => {
                let t = self.types.get(addr)?;
                Ok(Some((t, self.types.name(&t)?)))
            }
        };
        let (interface, concrete, asserted) = (get(at.interface)?, get(at.concrete)?, get(at.asserted)?);
        let interface = interface.map_or_else(|| "interface".to_owned(), |(_, name)| name);
        let (asserted_type, asserted) =
            asserted.ok_or_else(|| Unknown::new("TypeAssertionError without an asserted type"))?;
        let Some((concrete_type, concrete)) = concrete else {
            return Ok(format!("interface conversion: {interface} is nil, not {asserted}").into());
        };
        let method = place.offset(at.missing_method.into()).string(memory)?;
        if !method.is_empty() {
            let mut text =
                format!("interface conversion: {concrete} is not {asserted}: missing method ").into_bytes();
            text.extend(method);
            return Ok(text);
        }
        let mut text = format!("interface conversion: {interface} is {concrete}, not {asserted}");
        if concrete == asserted {
            text.push_str(self.same_name_note(&concrete_type, &asserted_type)?);
        }
        Ok(text.into())
    }

    fn same_name_note(&self, a: &Type, b: &Type) -> Result<&'static str, Unknown> {
        Ok(if self.types.package(a)? == self.types.package(b)? {
            " (types from different scopes)"
        } else {
            " (types from different packages)"
        })
    }
}

/// `(*PanicNilError).Error`.
pub(super) fn panic_nil_text(release: Release) -> &'static str {
    if release.panic_nil_text_has_prefix() {
        "runtime error: panic called with nil argument"
    } else {
        "panic called with nil argument"
    }
}

/// `boundsError.Error`; `None` for a code that no release uses.
pub(super) fn bounds_text(release: Release, x: u64, y: i64, signed: bool, code: usize) -> Option<String> {
    let negative = signed && (x as i64) < 0;
    let format = match code {
        8 if negative => return None,
        8 if !release.converts_slices_to_arrays() => {
            "cannot convert slice with length %y to pointer to array with length %x"
        }
        _ if negative => BOUNDS_NEGATIVE.get(code)?,
        _ => BOUNDS.get(code)?,
    };
    let x = if signed { (x as i64).to_string() } else { x.to_string() };
    Some(format!("{PREFIX}{}", format.replace("%x", &x).replace("%y", &y.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_texts_carry_their_numbers() {
        let text = |x: i64, y, signed, code| bounds_text(Release::new(24), x as u64, y, signed, code);
        assert_eq!(
            text(5, 3, true, 0).as_deref(),
            Some("runtime error: index out of range [5] with length 3")
        );
        assert_eq!(text(-1, 3, true, 0).as_deref(), Some("runtime error: index out of range [-1]"));
        assert_eq!(
            text(-1, 3, false, 3).as_deref(),
            Some("runtime error: slice bounds out of range [18446744073709551615:3]")
        );
        assert_eq!(
            text(i64::MIN, 0, true, 7).as_deref(),
            Some("runtime error: slice bounds out of range [-9223372036854775808::]")
        );
        assert_eq!(text(0, 0, true, 9), None);
        assert_eq!(text(-1, 0, true, 8), None);
    }
}

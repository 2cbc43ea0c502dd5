//! JSON that is safe to print on a terminal: characters that [`escape::is_unsafe`] reports are written as
//! `\uXXXX`, which is equivalent JSON. serde_json escapes only the control characters below U+0020.

use serde::Serialize;

use crate::incident::escape;

/// Returns `value` as JSON on one line, without a newline.
///
/// # Errors
/// When `value` cannot be written as JSON.
pub fn to_string(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string(value).map(safe)
}

/// Returns `value` as indented JSON.
///
/// # Errors
/// When `value` cannot be written as JSON.
pub fn to_string_pretty(value: &(impl Serialize + ?Sized)) -> serde_json::Result<String> {
    serde_json::to_string_pretty(value).map(safe)
}

/// Escapes the unsafe characters of `json`. Newlines are kept: they only separate values, as those in strings
/// are escaped already.
pub fn safe(json: String) -> String {
    let is_unsafe = |c: char| c != '\n' && escape::is_unsafe(c);
    // Most JSON is plain ASCII, and there may be a lot of it.
    if json.bytes().all(|byte| matches!(byte, b'\n' | b' '..=b'~')) || !json.contains(is_unsafe) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + json.len() / 8);
    for c in json.chars() {
        if is_unsafe(c) {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_same_json_and_steers_nothing(s in any::<String>()) {
            let text = to_string(&[&s]).expect("a string");
            prop_assert!(!text.contains(escape::is_unsafe), "{text}");
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&text).expect("JSON"), vec![s]);
        }
    }
}

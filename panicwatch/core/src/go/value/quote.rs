//! Go's two ways of quoting a string: strconv.Quote (also `%q`) and that of package time. Pure text.

use super::place::Unknown;

/// `strconv.Quote`. Fails when the result depends on whether a character outside letters and digits is
/// printable, which Go looks up in its own tables of the release's Unicode version.
///
/// <https://github.com/golang/go/blob/go1.24.11/src/strconv/quote.go>
pub(super) fn strconv(text: &[u8]) -> Result<Vec<u8>, Unknown> {
    let mut out = vec![b'"'];
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            escape(&mut out, c)?;
        }
        for byte in chunk.invalid() {
            out.extend(format!("\\x{byte:02x}").bytes());
        }
    }
    out.push(b'"');
    Ok(out)
}

fn escape(out: &mut Vec<u8>, c: char) -> Result<(), Unknown> {
    let short = match c {
        '"' | '\\' => Some(c),
        '\x07' => Some('a'),
        '\x08' => Some('b'),
        '\x0c' => Some('f'),
        '\n' => Some('n'),
        '\r' => Some('r'),
        '\t' => Some('t'),
        '\x0b' => Some('v'),
        _ => None,
    };
    if let Some(short) = short {
        out.extend([b'\\', short as u8]);
    } else if c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && c.is_alphanumeric()) {
        out.extend(c.encode_utf8(&mut [0; 4]).bytes());
    } else if c.is_ascii() {
        out.extend(format!("\\x{:02x}", u32::from(c)).bytes());
    } else {
        return Err(Unknown(format!("whether Go prints or escapes U+{:04X} is unknown", u32::from(c))));
    }
    Ok(())
}

/// `quote` of package time: every byte outside printable ASCII in hexadecimal.
///
/// <https://github.com/golang/go/blob/go1.24.11/src/time/format.go>
pub(super) fn time(text: &[u8]) -> Vec<u8> {
    let mut out = vec![b'"'];
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            // DEL is below utf8.RuneSelf and not below a space, so it is not escaped.
            b' '..=0x7f => out.push(byte),
            _ => out.extend(format!("\\x{byte:02x}").bytes()),
        }
    }
    out.push(b'"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_strconv_does() {
        let quoted = |s: &[u8]| String::from_utf8(strconv(s).expect("known")).expect("UTF-8");
        assert_eq!(quoted(b"a\"b\\c\n\x01\x7f"), r#""a\"b\\c\n\x01\x7f""#);
        assert_eq!(quoted("gr\u{fc}n".as_bytes()), "\"gr\u{fc}n\"");
        assert_eq!(quoted(b"\xff!"), r#""\xff!""#);
        assert!(strconv("\u{2028}".as_bytes()).is_err());
    }

    #[test]
    fn quotes_as_time_does() {
        assert_eq!(time("a\"\u{fc}".as_bytes()), br#""a\"\xc3\xbc""#);
    }
}

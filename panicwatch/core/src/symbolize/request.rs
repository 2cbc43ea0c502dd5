//! Parses the forms in which people write an address.
//!
//! `0x47e2d3`, `47e2d3` (always hexadecimal, as in tracebacks and core dumps), `main.f`, `main.f+0x28` (Go,
//! the kernel), `main.f+40` (gdb), `main.f+0x28/0x90` (perf, the kernel), `<main.f+40>`, `app+0x7e2d3` and
//! `/usr/bin/app + 0x7e2d3` (systemd-coredump: distance from the address at which the file is mapped). Knows
//! text only.

/// A parsed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// An address, run-time if the process is known.
    Address(u64),
    /// An offset in a function.
    Function {
        /// Name as in the function table, or as Go prints it.
        name: String,
        /// Offset in bytes from the function's start.
        offset: u64,
    },
    /// Offset in bytes from the lowest address at which the file is mapped.
    File(u64),
}

/// The text has none of the supported forms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither an address (hexadecimal, such as 0x47e2d3) nor a function with or without an offset (main.f+0x28)"
)]
pub struct NotARequest(String);

/// Parses a request. `file_name` is that of the binary, which may precede a `+`.
///
/// # Errors
/// Returns an error when the text is empty, or the offset is not a number.
pub fn parse(text: &str, file_name: &str) -> Result<Request, NotARequest> {
    let refuse = || NotARequest(text.to_owned());
    let mut plain = text.trim();
    for (open, close) in [('(', ')'), ('<', '>')] {
        plain = plain.strip_prefix(open).and_then(|t| t.strip_suffix(close)).unwrap_or(plain).trim();
    }
    if let Some(address) = self::plain(plain.as_bytes()) {
        return Ok(Request::Address(address));
    }
    let (name, offset) = match plain.rsplit_once('+') {
        Some((name, offset)) => (name.trim_end(), number(offset.trim()).ok_or_else(refuse)?),
        None if plain.is_empty() => return Err(refuse()),
        None => (plain, 0),
    };
    if name.starts_with("0x") {
        return Err(refuse());
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    if plain.contains('+')
        && (name.is_empty() || name == file_name || name.starts_with('/') && last == file_name)
    {
        return Ok(Request::File(offset));
    }
    Ok(Request::Function { name: name.to_owned(), offset })
}

/// Parses a plain hexadecimal address, with or without 0x.
pub fn plain(text: &[u8]) -> Option<u64> {
    let digits = match text {
        [b'0', b'x' | b'X', digits @ ..] => digits,
        digits => digits,
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |value, byte| {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return None,
        };
        (value >> 60 == 0).then(|| value << 4 | u64::from(digit))
    })
}

/// Parses an offset: `0x28`, `40`, `0x28/0x90`.
fn number(text: &str) -> Option<u64> {
    let text = text.split('/').next().unwrap_or(text);
    match text.strip_prefix("0x") {
        Some(_) => plain(text.as_bytes()),
        None => text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_paste() {
        let function = |name: &str, offset| Ok(Request::Function { name: name.into(), offset });
        for (text, want) in [
            ("0x47e2d3", Ok(Request::Address(0x47_e2d3))),
            ("47e2d3", Ok(Request::Address(0x47_e2d3))),
            (" 00007f1c2a3b4c5d ", Ok(Request::Address(0x7f1c_2a3b_4c5d))),
            ("main.f", function("main.f", 0)),
            ("main.(*T).M+0x28", function("main.(*T).M", 0x28)),
            ("<main.f+40>", function("main.f", 40)),
            ("vfs_read+0x9b/0x1b0", function("vfs_read", 0x9b)),
            ("example.com/a/b.F+0x1", function("example.com/a/b.F", 1)),
            ("add+0", function("add", 0)),
            ("app+0x7e2d3", Ok(Request::File(0x7_e2d3))),
            ("(/usr/bin/app + 0x7e2d3)", Ok(Request::File(0x7_e2d3))),
            ("+0x10", Ok(Request::File(0x10))),
            ("app", function("app", 0)),
        ] {
            assert_eq!(parse(text, "app"), want, "{text}");
        }
        for bad in ["", "  ", "main.f+", "main.f+x", "main.f+0x", "main.f+-1", "0x"] {
            assert!(parse(bad, "app").is_err(), "{bad:?}");
        }
    }

    #[test]
    fn more_than_64_bits_are_no_address() {
        assert!(!matches!(parse("0x1ffffffffffffffff", "app"), Ok(Request::Address(_))));
    }
}

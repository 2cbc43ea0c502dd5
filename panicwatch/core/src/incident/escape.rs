//! Escapes text of the watched program for display, so that it can neither control a terminal nor imitate
//! panicwatch's own output.
//!
//! Panic values, file names, goroutine labels and command lines are chosen by the program, or by the sender
//! of a request that it handles. This module knows characters only; it must not know incidents, colours or
//! layout.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

/// Longest run of combining marks left unescaped: terminals draw longer runs over neighbouring lines.
const MAX_MARKS: usize = 3;

/// Maximum number of characters of one string that are shown; the incident document has the complete text.
pub const MAX_CHARS: usize = 16 * 1024;

/// Escapes `text` for one line: control characters, escape sequences, line separators, bidirectional and
/// invisible format characters become `\n`, `\x1b`, `\u{202e}`. A backslash is left as it is: Windows paths
/// and patterns are more common than ambiguous text, and the incident document has the exact text.
pub fn one_line(text: &str) -> String {
    one_line_max(text, MAX_CHARS)
}

/// Like [`one_line`], for at most `max` characters of `text`; appends the number of bytes omitted.
pub fn one_line_max(text: &str, max: usize) -> String {
    // Fast path: most text is printable ASCII, and it can be very long.
    if text.len() <= max && text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(max));
    let mut marks = 0;
    let mut chars = text.chars();
    for c in chars.by_ref().take(max) {
        let mark = c.width() == Some(0) && !is_unsafe(c);
        marks = if mark { marks + 1 } else { 0 };
        if is_unsafe(c) || marks > MAX_MARKS {
            push_escaped(&mut out, c);
        } else {
            out.push(c);
        }
    }
    let left = chars.as_str().len();
    if left > 0 {
        let _ = write!(out, "… ({left} more bytes)");
    }
    out
}

/// Escapes the lines of `text`; returns at most `max` of them, and the number of lines omitted. Only `\n`
/// (and `\r\n`) end a line here, as in Go's own output.
pub fn lines(text: &str, max: usize) -> (Vec<String>, usize) {
    let mut rest = text.split('\n');
    let shown = rest.by_ref().take(max).map(|l| one_line(l.strip_suffix('\r').unwrap_or(l))).collect();
    (shown, rest.count())
}

/// Escapes `text` for the terminal but keeps line ends and, with `color`, our own colours: SGR escape
/// sequences, which set only colours and weights. The last filter before a terminal: parts of `text` that
/// come from the watched program are already escaped where the text is put together.
pub fn screen(text: &str, color: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c| c != '\n' && is_unsafe(c)) {
        let (safe, unsafe_) = rest.split_at(at);
        out.push_str(safe);
        let sequence = if color { sgr(unsafe_) } else { 0 };
        let mut chars = unsafe_.chars();
        if sequence > 0 {
            out.push_str(&unsafe_[..sequence]);
            rest = &unsafe_[sequence..];
        } else {
            chars.next().into_iter().for_each(|c| push_escaped(&mut out, c));
            rest = chars.as_str();
        }
    }
    out + rest
}

/// Returns the length in bytes of the SGR sequence at the start of `text`; 0 if there is none.
fn sgr(text: &str) -> usize {
    let parameters = text.strip_prefix("\x1b[").unwrap_or_default();
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(parameters.len());
    if parameters[end..].starts_with('m') { "\x1b[".len() + end + 1 } else { 0 }
}

/// Reports whether a terminal would interpret or hide `c`, or let it reorder neighbouring characters.
pub fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}' | '\u{200c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

fn push_escaped(out: &mut String, c: char) {
    let _ = match c {
        '\n' => write!(out, "\\n"),
        '\r' => write!(out, "\\r"),
        '\t' => write!(out, "\\t"),
        c if u32::from(c) < 0x100 => write!(out, "\\x{:02x}", u32::from(c)),
        c => write!(out, "\\u{{{:x}}}", u32::from(c)),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn terminals_are_not_steered() {
        assert_eq!(one_line("a\x1b[2J\x1b]0;title\x07b\u{9b}31m"), r"a\x1b[2J\x1b]0;title\x07b\x9b31m");
        assert_eq!(one_line("user\u{202e}txt.exe\u{2066}"), r"user\u{202e}txt.exe\u{2066}");
        assert_eq!(one_line("a\r\nb\tc\u{2028}d"), r"a\r\nb\tc\u{2028}d");
        assert_eq!(
            one_line("日本語 café ñ 🚀 👩\u{200d}🚀"),
            "日本語 café ñ 🚀 👩\u{200d}🚀",
            "readable text stays"
        );
        assert_eq!(one_line(r"C:\tmp\new"), r"C:\tmp\new");
    }

    #[test]
    fn the_screen_gets_lines_and_colours() {
        assert_eq!(screen("a\n\x1b[1;31mb\x1b[0m\n", true), "a\n\x1b[1;31mb\x1b[0m\n");
        assert_eq!(screen("\x1b[31mb", false), r"\x1b[31mb");
        for hostile in ["\x1b[2Jx", "\x1b]0;t\x07", "\x1b[31", "\u{9b}31m", "\x1b", "\x1b[?25lm", "\u{202e}"]
        {
            assert!(!screen(hostile, true).contains(is_unsafe), "{hostile:?}");
        }
    }

    #[test]
    fn piles_of_marks_are_flattened() {
        assert_eq!(one_line("e\u{301}\u{301}\u{301}\u{301}x"), "e\u{301}\u{301}\u{301}\\u{301}x");
    }

    #[test]
    fn length_is_bounded_and_said() {
        assert_eq!(one_line_max("abcdef", 3), "abc… (3 more bytes)");
        assert_eq!(one_line_max("abc", 3), "abc");
        assert_eq!(lines("a\r\nb\nc\nd", 2), (vec!["a".into(), "b".into()], 2));
    }

    proptest! {
        #[test]
        fn nothing_unsafe_survives(s in any::<String>()) {
            prop_assert!(!one_line(&s).chars().any(is_unsafe));
        }
    }
}

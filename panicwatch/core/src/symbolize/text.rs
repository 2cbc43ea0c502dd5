//! Prints a resolved address for people and line-based scripts: the address, and one line per frame.
//!
//! `batch` writes the same lines, faster. Every string of the program is escaped.

use std::fmt::Write as _;

use super::{Owned, Resolved, listing::Line};
use crate::incident::{Frame, escape::one_line};

/// Returns the lines of one address.
pub fn resolved(resolved: &Resolved) -> String {
    let address = resolved.address.to_string();
    if let Some(reason) = &resolved.reason {
        return format!("{address} ?? {}\n", one_line(reason));
    }
    let mut out = String::new();
    for (i, Owned { frame, module, .. }) in resolved.frames.iter().enumerate() {
        let head = if i == 0 { address.clone() } else { " ".repeat(address.len()) };
        let _ = write!(out, "{head} {}", one_frame(frame));
        if let Some(module) = module.as_ref().filter(|_| !frame.inlined) {
            let _ = write!(out, " [{}]", one_line(module));
        }
        out.push('\n');
    }
    out
}

fn one_frame(frame: &Frame) -> String {
    let how = if frame.inlined { " (inlined)".to_owned() } else { format!("+{:#x}", frame.offset) };
    let place = match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!(" {}:{line}", one_line(file)),
        _ => String::new(),
    };
    format!("{}{how}{place}", one_line(&frame.function))
}

/// Returns the instructions around an address, with a heading wherever the source line changes. `source`
/// returns the text of a source line, if available.
pub fn listing(lines: &[Line], source: &mut dyn FnMut(&str, u32) -> Option<String>) -> String {
    let mut out = String::new();
    let widest = lines.iter().map(|l| l.bytes.len()).max().unwrap_or(0);
    let mut before = None;
    for line in lines {
        let place = line.file.as_deref().zip(line.line);
        if let Some((file, number)) = place.filter(|_| place != before) {
            let text = source(file, number).map(|text| format!(": {}", one_line(text.trim())));
            let _ = writeln!(out, "    {}:{number}{}", one_line(file), text.unwrap_or_default());
        }
        before = place;
        let mark = if line.marked { "▶" } else { " " };
        let _ = writeln!(out, "  {mark} {}  {:widest$}  {}", line.address, line.bytes, one_line(&line.text));
    }
    out
}

//! Text shared by many addresses of one function: names, module, and the calls that enclose inlined ones.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
};

use crate::{
    go::gobin::{Func, GoBinary, Lines, Place},
    incident::escape,
    symbolize::Symbolizer,
};

/// Maximum number of nodes of one function's inline tree whose text is cached.
const MAX_NODES: usize = 1 << 16;
/// Maximum number of bytes of text cached for one function's inlined calls: only a hostile file needs more.
const MAX_AROUND: usize = 16 << 20;

/// Text around file and line of one function's instructions; identical for all instructions of the same
/// inlined call.
#[derive(Default)]
pub(super) struct Around {
    pub(super) text: Vec<u8>,
    /// Package of the function; `package_text` is its " [module version]".
    package: String,
    package_text: String,
    /// Position of `package_text` in `text`.
    pub(super) module: Range<usize>,
    /// Start of the text of inlined calls.
    own: usize,
    /// Text without inlining, followed by the texts by node of the inline tree.
    known: Vec<Option<Inner>>,
    /// Number of spaces before the second line.
    indent: usize,
}

/// Positions in [`Around::text`].
#[derive(Clone, Default)]
pub(super) struct Inner {
    pub(super) inlined: bool,
    /// Name of the innermost function.
    pub(super) name: Range<usize>,
    /// Lines of the enclosing calls, up to the outermost one's name.
    pub(super) callers: Range<usize>,
    /// Rest of the outermost call's line.
    pub(super) outermost: Range<usize>,
}

impl Around {
    pub(super) fn enter(&mut self, symbolizer: &Symbolizer<'_>, func: &Func<'_>) {
        self.text.clear();
        self.known.clear();
        // Neighbouring functions are usually in the same package. For packages of a module that the build
        // information does not name, the owner also depends on the file; all files of such a package have the
        // same owner.
        let bin = symbolizer.bin;
        if !bin.plain_name_at(func.name_off()).is_some_and(|name| self.is_in_package(name)) {
            let name = func.name();
            self.package.clear();
            self.package.push_str(crate::incident::frame_class::package(&name).unwrap_or_default());
            let file = func.file_line(func.entry()).map(|(file, _)| file);
            let (_, module) = symbolizer.modules.of_function(&name, file.as_deref());
            self.package_text =
                module.map(|module| format!(" [{}]", escape::one_line(&module))).unwrap_or_default();
        }
        self.text.extend_from_slice(self.package_text.as_bytes());
        self.module = 0..self.text.len();
        let name = self.name(bin, func.name_off());
        self.known.push(Some(Inner { name, ..Inner::default() }));
        self.own = self.text.len();
    }

    /// Reports whether the function is in the same package as the previous one.
    fn is_in_package(&self, name: &str) -> bool {
        let rest = name.strip_prefix(self.package.as_str()).and_then(|rest| rest.strip_prefix('.'));
        !self.package.is_empty() && rest.is_some_and(|rest| !rest.as_bytes().contains(&b'/'))
    }

    /// Appends the function name at `off`.
    fn name(&mut self, bin: &GoBinary, off: i32) -> Range<usize> {
        let start = self.text.len();
        match bin.plain_name_at(off) {
            Some(name) => self.text.extend_from_slice(name.as_bytes()),
            None => {
                let name = escape::one_line(&bin.display_name(bin.name_at(off)));
                self.text.extend_from_slice(name.as_bytes());
            }
        }
        start..self.text.len()
    }

    fn index(node: Option<i32>) -> usize {
        // In a damaged file a node may have any value: the last slot is used for all beyond it.
        node.and_then(|node| usize::try_from(node).ok())
            .map_or(0, |node| node.saturating_add(1).min(MAX_NODES))
    }

    /// Creates the text for `node`, unless it is cached.
    pub(super) fn see_to(
        &mut self,
        symbolizer: &Symbolizer<'_>,
        func: &Func<'_>,
        lines: &Lines,
        files: &mut Strings,
        node: Option<i32>,
        indent: usize,
    ) {
        // The number of digits of an address changes within a function at most once in a binary.
        if self.indent != indent || self.text.len() > MAX_AROUND {
            self.known.truncate(1);
            self.text.truncate(self.own);
            self.indent = indent;
        }
        let index = Self::index(node);
        if self.known.get(index).is_some_and(Option::is_some) && index < MAX_NODES {
            return;
        }
        if index >= self.known.len() {
            self.known.resize(index + 1, None);
        }
        let made = node.and_then(|node| self.inlined(symbolizer, func, lines, files, node));
        // A damaged tree: treated as if nothing were inlined.
        self.known[index] = made.or_else(|| self.known[0].clone());
    }

    fn inlined(
        &mut self,
        symbolizer: &Symbolizer<'_>,
        func: &Func<'_>,
        lines: &Lines,
        files: &mut Strings,
        node: i32,
    ) -> Option<Inner> {
        let bin = symbolizer.bin;
        let name = self.name(bin, lines.inlined_function(func, node)?);
        let start = self.text.len();
        let mut outermost = start;
        lines.callers(func, node, &mut |place: Place| {
            self.text.push(b'\n');
            self.text.resize(self.text.len() + self.indent + 1, b' ');
            self.name(bin, place.name_off);
            if place.inlined {
                self.text.extend_from_slice(b" (inlined)");
            }
            outermost = self.text.len();
            if let Some((file, line)) = place.file.zip(place.line) {
                self.text.push(b' ');
                let name = files.place(symbolizer, file);
                self.text.extend_from_slice(&files.text[name]);
                self.text.push(b':');
                push_decimal(&mut self.text, line);
            }
        });
        let module = self.module.clone();
        self.text.extend_from_within(module);
        Some(Inner { inlined: true, name, callers: start..outermost, outermost: outermost..self.text.len() })
    }

    pub(super) fn of(&self, node: Option<i32>) -> Inner {
        self.known.get(Self::index(node)).cloned().flatten().unwrap_or_default()
    }
}

/// Escaped file names by their offsets in filetab.
#[derive(Default)]
pub(super) struct Strings {
    known: HashMap<u32, Range<usize>, BuildHasherDefault<OffsetHasher>>,
    pub(super) text: Vec<u8>,
}

impl Strings {
    /// Returns the position of the name in `text`.
    pub(super) fn place(&mut self, symbolizer: &Symbolizer<'_>, off: u32) -> Range<usize> {
        let text = &mut self.text;
        let place = self.known.entry(off).or_insert_with(|| {
            let start = text.len();
            text.extend_from_slice(escape::one_line(&symbolizer.bin.file_name(off)).as_bytes());
            start..text.len()
        });
        place.clone()
    }
}

/// Hasher for table offsets. Collisions in a hostile file harm only the user who requested it, and cost one
/// comparison each.
#[derive(Default)]
struct OffsetHasher(u64);

impl Hasher for OffsetHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u32((*byte).into()));
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// Appends a hexadecimal number: `0x1f`.
pub(super) fn push_hex(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(b"0x");
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|i| b"0123456789abcdef"[(value >> (4 * i) & 15) as usize]));
}

/// Appends a decimal number: `31`.
pub(super) fn push_decimal(out: &mut Vec<u8>, value: u32) {
    let mut digits = [0; 10];
    let mut from = digits.len();
    let mut rest = value;
    loop {
        from -= 1;
        digits[from] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_format_writes_them() {
        for value in [0, 1, 9, 10, 0x47_e2d3, u32::MAX] {
            let mut out = Vec::new();
            push_hex(&mut out, value.into());
            push_decimal(&mut out, value);
            assert_eq!(String::from_utf8(out).expect("ASCII"), format!("{value:#x}{value}"));
        }
        let mut out = Vec::new();
        push_hex(&mut out, u64::MAX);
        assert_eq!(out, b"0xffffffffffffffff");
    }
}

//! Very many addresses at once, as text.
//!
//! They are resolved in the order of the addresses, so that each function's tables are decoded once and lie in the
//! cache, by as many threads as there are processors, and written in the order they were asked in.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    io::{self, Write},
    ops::Range,
    thread,
};

use super::{Lookup, Symbolizer};
use crate::{
    escape,
    gobin::{Func, GoBinary, Lines, Place},
};

/// Addresses that are not worth another thread.
const SMALL: usize = 16 * 1024;
/// Nodes of one function's inline tree whose text is kept.
const MAX_NODES: usize = 1 << 16;

/// Bytes of text kept for one function's inlined calls: only a hostile file needs more.
const MAX_AROUND: usize = 16 << 20;
/// Bytes of text a worker makes; real programs come to 150 an address.
const MAX_TEXT: usize = 1 << 30;

/// Addresses resolved at a time: enough that they lie close together in the program, few enough that their text is
/// written into memory that is still in the cache.
pub const PART: usize = 1 << 18;

/// Addresses to resolve, and lines to write between them.
pub struct Batch<'a, 's> {
    /// At run time.
    addresses: Vec<u64>,
    /// Whole lines, each to be written before the address of that number; in order.
    between: Vec<(usize, String)>,
    symbolizer: &'s Symbolizer<'a>,
    /// Two sets, kept for their memory: while what one has made is written, the other works.
    sets: [Set<'a, 's>; 2],
}

/// The workers of one part.
struct Set<'a, 's> {
    workers: Vec<Worker<'a, 's>>,
    /// Where the text of each address is: the worker, and its number there.
    places: Vec<(u32, u32)>,
}

impl<'a, 's> Batch<'a, 's> {
    /// Nothing to resolve yet.
    pub fn new(symbolizer: &'s Symbolizer<'a>, lookup: Lookup) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let set = || Set {
            workers: (0..threads).map(|_| Worker::new(symbolizer, lookup)).collect(),
            places: Vec::new(),
        };
        Self { addresses: Vec::new(), between: Vec::new(), symbolizer, sets: [set(), set()] }
    }

    /// An address at run time.
    pub fn push(&mut self, address: u64) {
        self.addresses.push(address);
    }

    /// A line for what has no address.
    pub fn say(&mut self, line: String) {
        self.between.push((self.addresses.len(), line));
    }

    /// What was asked for, in order: whole lines of text, read by `read`. Several threads read them.
    pub fn read_lines(&mut self, block: &[u8], read: &(dyn Fn(&[u8]) -> Result<u64, String> + Sync)) {
        let threads = if block.len() < 16 * SMALL { 1 } else { self.sets[0].workers.len() };
        let parts = split_lines(block, threads);
        let read_part = |part: &[u8]| {
            let mut found = (Vec::with_capacity(part.len() / 8), Vec::new());
            for line in part.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
                match read(line) {
                    Ok(address) => found.0.push(address),
                    Err(said) => found.1.push((found.0.len(), said)),
                }
            }
            found
        };
        let found: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = parts.iter().map(|part| scope.spawn(move || read_part(part))).collect();
            threads.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e))).collect()
        });
        for (addresses, between) in found {
            let before = self.addresses.len();
            self.between.extend(between.into_iter().map(|(at, line)| (before + at, line)));
            self.addresses.extend(addresses);
        }
    }

    /// Number of addresses that were pushed and not written yet.
    pub fn len(&self) -> usize {
        self.addresses.len()
    }

    /// Nothing was pushed since it was written last.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.between.is_empty()
    }

    /// Writes every address with its frames, a line for each frame, the address before the first; then there are none.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let symbolizer = self.symbolizer;
        let Self { addresses, between, sets: [now, next], .. } = self;
        let mut between = between.drain(..).peekable();
        let mut parts = addresses.chunks(PART);
        let mut i = 0;
        if let Some(part) = parts.next() {
            now.resolve(symbolizer, part);
        }
        loop {
            let part = parts.next();
            thread::scope(|scope| {
                let next = &mut *next;
                part.map(|part| scope.spawn(move || next.resolve(symbolizer, part)));
                for (worker, place) in now.places.drain(..) {
                    while let Some((_, line)) = between.next_if(|(at, _)| *at <= i) {
                        out.write_all(line.as_bytes())?;
                    }
                    out.write_all(now.workers[worker as usize].text(place as usize))?;
                    i += 1;
                }
                io::Result::Ok(())
            })?;
            if part.is_none() {
                break;
            }
            std::mem::swap(now, next);
        }
        between.try_for_each(|(_, line)| out.write_all(line.as_bytes()))?;
        addresses.clear();
        Ok(())
    }
}

/// `block` in about `n` parts of whole lines.
fn split_lines(block: &[u8], n: usize) -> Vec<&[u8]> {
    let mut parts = Vec::with_capacity(n);
    let mut rest = block;
    for left in (1..=n).rev() {
        let share = rest.len() / left;
        let end = rest[share..].iter().position(|b| *b == b'\n').map_or(rest.len(), |at| share + at + 1);
        let (part, behind) = rest.split_at(if left == 1 { rest.len() } else { end });
        parts.push(part);
        rest = behind;
    }
    parts
}

impl Set<'_, '_> {
    fn resolve(&mut self, symbolizer: &Symbolizer<'_>, addresses: &[u64]) {
        let threads = if addresses.len() < SMALL { 1 } else { self.workers.len() };
        let shares = shares(symbolizer, addresses, threads);
        let mut work = self.workers.iter_mut().zip(shares);
        let first = work.next();
        thread::scope(|scope| {
            for (worker, keys) in work {
                scope.spawn(move || worker.all(keys, addresses));
            }
            if let Some((worker, keys)) = first {
                worker.all(keys, addresses);
            }
        });
        self.places.resize(addresses.len(), (0, 0));
        for (worker, n) in self.workers[..threads].iter().zip(0..) {
            worker.order.iter().zip(0..).for_each(|(i, place)| self.places[*i as usize] = (n, place));
        }
    }
}

/// An address, and its number among those asked for: `offset << 32 | number`, the offset being from the start of the
/// program's code, [`ELSEWHERE`] for addresses that are outside of it.
type Key = u64;

const ELSEWHERE: u64 = u32::MAX as u64;

/// The addresses, parted for `workers` so that each has a range of its own and about as many as the others.
fn shares(symbolizer: &Symbolizer<'_>, addresses: &[u64], workers: usize) -> Vec<Vec<Key>> {
    let start = symbolizer.bin.text_start().wrapping_add(symbolizer.bias);
    let key = |(i, address): (u64, &u64)| address.wrapping_sub(start).min(ELSEWHERE) << 32 | i;
    let mut sample: Vec<Key> =
        addresses.iter().step_by(addresses.len() / 1000 + 1).map(|address| key((0, address))).collect();
    sample.sort_unstable();
    let border = |n| sample.get(n * sample.len() / workers).copied();
    let borders: Vec<Key> = (1..workers).filter_map(border).collect();
    let mut shares = vec![Vec::with_capacity(addresses.len() / workers * 9 / 8); borders.len() + 1];
    for key in (0..).zip(addresses).map(key) {
        shares[borders.iter().filter(|border| key >= **border).count()].push(key);
    }
    shares
}

/// One thread's work.
struct Worker<'a, 's> {
    symbolizer: &'s Symbolizer<'a>,
    lookup: Lookup,
    func: Option<Func<'a>>,
    lines: Lines,
    around: Around,
    files: Strings,
    /// The file of the address before: what it is in the function's table, and its name.
    file: Option<(i32, Range<usize>)>,
    text: Vec<u8>,
    /// Where the text of each address ends.
    ends: Vec<usize>,
    /// The numbers of the addresses, in the order they were resolved in.
    order: Vec<u32>,
}

impl<'a, 's> Worker<'a, 's> {
    fn new(symbolizer: &'s Symbolizer<'a>, lookup: Lookup) -> Self {
        Self {
            symbolizer,
            lookup,
            func: None,
            lines: Lines::default(),
            around: Around::default(),
            files: Strings::default(),
            file: None,
            text: Vec::new(),
            ends: Vec::new(),
            order: Vec::new(),
        }
    }

    /// Resolves all of a share.
    fn all(&mut self, mut keys: Vec<Key>, addresses: &[u64]) {
        keys.sort_unstable();
        self.text.clear();
        self.ends.clear();
        let start = self.symbolizer.bin.text_start().wrapping_add(self.symbolizer.bias);
        for key in &keys {
            self.resolve(match key >> 32 {
                ELSEWHERE => addresses[*key as u32 as usize],
                offset => start.wrapping_add(offset),
            });
        }
        self.order.clear();
        self.order.extend(keys.into_iter().map(|key| key as u32));
    }

    fn text(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[place]]
    }

    fn resolve(&mut self, address: u64) {
        let pc = address.wrapping_sub(self.symbolizer.bias);
        if !self.func.is_some_and(|f| pc >= f.entry() && pc < f.end()) {
            self.enter(pc);
        }
        let from = self.text.len();
        push_hex(&mut self.text, address);
        match self.func {
            Some(_) if from > MAX_TEXT => {
                self.text.extend_from_slice(b" ?? the names in this file are too long to be shown\n");
            }
            Some(func) => self.frames(&func, pc, self.text.len() - from),
            None => {
                let reason = escape::one_line(&self.symbolizer.reason(pc).to_string());
                self.text.extend_from_slice(b" ?? ");
                self.text.extend_from_slice(reason.as_bytes());
                self.text.push(b'\n');
            }
        }
        self.ends.push(self.text.len());
    }

    /// Goes to the function that holds `pc`.
    fn enter(&mut self, pc: u64) {
        let bin = self.symbolizer.bin;
        // They come in order: the next function is near, as a rule.
        self.func = self.func.and_then(|func| bin.find_func_behind(&func, pc)).or_else(|| bin.find_func(pc));
        if let Some(func) = self.func {
            self.lines.decode(&func);
            self.around.enter(self.symbolizer, &func);
            self.file = None;
        }
    }

    fn frames(&mut self, func: &Func<'a>, pc: u64, indent: usize) {
        let at = self.lines.at(self.lookup.apply(pc, func.entry()));
        self.around.see_to(self.symbolizer, func, &self.lines, &mut self.files, at.node, indent);
        let Self { symbolizer, lines, around, files, file, text, .. } = self;
        let inner = around.of(at.node);
        text.push(b' ');
        text.extend_from_slice(&around.text[inner.name.clone()]);
        let offset = pc - func.entry();
        if inner.inlined {
            text.extend_from_slice(b" (inlined)");
        } else {
            text.push(b'+');
            push_hex(text, offset);
        }
        if let Some((value, line)) = at.file.zip(at.line) {
            if file.as_ref().is_none_or(|(last, _)| *last != value) {
                *file = lines.file(func, value).map(|off| (value, files.place(symbolizer, off)));
            }
            if let Some((_, name)) = file {
                text.push(b' ');
                text.extend_from_slice(&files.text[name.clone()]);
                text.push(b':');
                push_decimal(text, line);
            }
        }
        if inner.inlined {
            text.extend_from_slice(&around.text[inner.callers.clone()]);
            text.push(b'+');
            push_hex(text, offset);
            text.extend_from_slice(&around.text[inner.outermost.clone()]);
        } else {
            text.extend_from_slice(&around.text[around.module.clone()]);
        }
        text.push(b'\n');
    }
}

/// What stands around file and line of one function's instructions: it is the same for all that were inlined together.
#[derive(Default)]
struct Around {
    text: Vec<u8>,
    /// The package of the function, and its " [module version]".
    package: String,
    package_text: String,
    /// Where that stands in `text`.
    module: Range<usize>,
    /// Where the text of inlined calls begins.
    own: usize,
    /// Where nothing is inlined, then by node of the inline tree.
    known: Vec<Option<Inner>>,
    /// Spaces before the second line.
    indent: usize,
}

/// Places in [`Around::text`].
#[derive(Clone, Default)]
struct Inner {
    inlined: bool,
    /// Name of the innermost function.
    name: Range<usize>,
    /// The lines of the calls around it, up to the outermost's name.
    callers: Range<usize>,
    /// The rest of the outermost's line.
    outermost: Range<usize>,
}

impl Around {
    fn enter(&mut self, symbolizer: &Symbolizer<'_>, func: &Func<'_>) {
        self.text.clear();
        self.known.clear();
        // Neighbours are of one package, as a rule. Whose code it is depends on its file as well, within a package of
        // a module that the build information does not name; all of them are of the same.
        let bin = symbolizer.bin;
        if !bin.plain_name_at(func.name_off()).is_some_and(|name| self.is_in_package(name)) {
            let name = func.name();
            self.package.clear();
            self.package.push_str(crate::frame_class::package(&name).unwrap_or_default());
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

    /// A function of the package that the one before was of.
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
        // In a damaged file a node may be anything: the last place serves all beyond.
        node.and_then(|node| usize::try_from(node).ok())
            .map_or(0, |node| node.saturating_add(1).min(MAX_NODES))
    }

    /// Makes the text for `node`, unless it is there.
    fn see_to(
        &mut self,
        symbolizer: &Symbolizer<'_>,
        func: &Func<'_>,
        lines: &Lines,
        files: &mut Strings,
        node: Option<i32>,
        indent: usize,
    ) {
        // From one digit to the next inside a function: once in a binary.
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
        // A damaged tree: as if nothing were inlined.
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

    fn of(&self, node: Option<i32>) -> Inner {
        self.known.get(Self::index(node)).cloned().flatten().unwrap_or_default()
    }
}

/// File names, escaped, by their offsets.
#[derive(Default)]
struct Strings {
    known: HashMap<u32, Range<usize>, BuildHasherDefault<OffsetHasher>>,
    text: Vec<u8>,
}

impl Strings {
    /// Where in `text` it is.
    fn place(&mut self, symbolizer: &Symbolizer<'_>, off: u32) -> Range<usize> {
        let text = &mut self.text;
        let place = self.known.entry(off).or_insert_with(|| {
            let start = text.len();
            text.extend_from_slice(escape::one_line(&symbolizer.bin.file_name(off)).as_bytes());
            start..text.len()
        });
        place.clone()
    }
}

/// For offsets into a table: no one is harmed by collisions that a hostile file arranges but
/// the one who asked about it, and they cost a comparison each.
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

fn push_hex(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(b"0x");
    let digits = (64 - value.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|i| b"0123456789abcdef"[(value >> (4 * i) & 15) as usize]));
}

fn push_decimal(out: &mut Vec<u8>, value: u32) {
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
    fn lines_are_not_cut() {
        let block = b"0x1\n0x22\n0x333\n\n0x4444";
        for n in 1..9 {
            let parts = split_lines(block, n);
            assert_eq!(parts.len(), n);
            assert_eq!(parts.concat(), block);
            let whole = |part: &&[u8]| part.is_empty() || part.ends_with(b"\n") || part.ends_with(b"4444");
            assert!(parts.iter().all(whole), "{parts:?}");
        }
    }

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

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
    gobin::{Func, Lines, Place},
};

/// Addresses that are not worth another thread.
const SMALL: usize = 16 * 1024;

/// Addresses to resolve, and lines to write between them.
#[derive(Debug, Default)]
pub struct Batch {
    /// At run time.
    pub addresses: Vec<u64>,
    /// Whole lines, each to be written before the address of that number; in order.
    pub between: Vec<(usize, String)>,
}

impl Batch {
    /// A line for what has no address.
    pub fn say(&mut self, line: String) {
        self.between.push((self.addresses.len(), line));
    }

    /// Writes every address with its frames; a line for each frame, the address before the first.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, symbolizer: &Symbolizer<'_>, lookup: Lookup, out: &mut dyn Write) -> io::Result<()> {
        let sorted = sorted(&self.addresses);
        let threads = match sorted.len() {
            ..SMALL => 1,
            _ => thread::available_parallelism().map_or(1, usize::from),
        };
        let share = sorted.len().div_ceil(threads).max(1);
        let done = resolve(symbolizer, lookup, &self.addresses, &sorted, share);
        // Where the text of each address is: its number in the order of resolving.
        let mut numbers = vec![0u32; sorted.len()];
        (0..).zip(&sorted).for_each(|(n, i)| numbers[*i as usize] = n);
        let mut between = self.between.iter().peekable();
        for (i, n) in numbers.iter().enumerate() {
            while let Some((_, line)) = between.next_if(|(at, _)| *at <= i) {
                out.write_all(line.as_bytes())?;
            }
            let n = *n as usize;
            out.write_all(done[n / share].text(n % share))?;
        }
        between.try_for_each(|(_, line)| out.write_all(line.as_bytes()))
    }
}

fn resolve<'a, 's>(
    symbolizer: &'s Symbolizer<'a>,
    lookup: Lookup,
    addresses: &[u64],
    sorted: &[u32],
    share: usize,
) -> Vec<Worker<'a, 's>> {
    let work = |part: &[u32]| {
        let mut worker = Worker::new(symbolizer, lookup);
        part.iter().for_each(|i| worker.resolve(addresses[*i as usize]));
        worker
    };
    let (first, others) = sorted.split_at(share.min(sorted.len()));
    thread::scope(|scope| {
        let others: Vec<_> = others.chunks(share).map(|part| scope.spawn(move || work(part))).collect();
        let first = work(first);
        let others = others.into_iter().map(|t| t.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        std::iter::once(first).chain(others).collect()
    })
}

/// The numbers of `addresses` in the order of these.
fn sorted(addresses: &[u64]) -> Vec<u32> {
    // Sorting words is much faster than sorting by what they point to; addresses of one program differ in the lower
    // 32 bits as a rule, and in the order of the others nothing is lost but locality.
    let mut keys: Vec<u64> = (0u64..).zip(addresses).map(|(i, a)| a << 32 | i).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| key as u32).collect()
}

/// One thread's work.
struct Worker<'a, 's> {
    symbolizer: &'s Symbolizer<'a>,
    lookup: Lookup,
    func: Option<Func<'a>>,
    lines: Lines,
    /// Of the function: " [module version]".
    module: Vec<u8>,
    names: Strings<i32>,
    files: Strings<u32>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl<'a, 's> Worker<'a, 's> {
    fn new(symbolizer: &'s Symbolizer<'a>, lookup: Lookup) -> Self {
        Self {
            symbolizer,
            lookup,
            func: None,
            lines: Lines::default(),
            module: Vec::new(),
            names: Strings::default(),
            files: Strings::default(),
            text: Vec::new(),
            ends: Vec::new(),
        }
    }

    fn text(&self, place: usize) -> &[u8] {
        let start = place.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[place]]
    }

    fn resolve(&mut self, address: u64) {
        let pc = address.wrapping_sub(self.symbolizer.bias);
        if !self.func.is_some_and(|f| (f.entry()..f.end()).contains(&pc)) {
            self.enter(pc);
        }
        let from = self.text.len();
        push_hex(&mut self.text, address);
        match self.func {
            Some(func) => self.frames(func, pc, self.text.len() - from),
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
        self.func = bin.find_func(pc);
        let Some(func) = self.func else { return };
        self.lines.decode(&func);
        self.module.clear();
        let name = func.name();
        let file = func.file_line(func.entry()).map(|(file, _)| file);
        let (_, module) = self.symbolizer.modules.of_function(&name, file.as_deref());
        if let Some(module) = module {
            self.module.extend_from_slice(b" [");
            self.module.extend_from_slice(escape::one_line(&module).as_bytes());
            self.module.push(b']');
        }
    }

    fn frames(&mut self, func: Func<'a>, pc: u64, indent: usize) {
        let Self { symbolizer, lookup, lines, module, names, files, text, .. } = self;
        let bin = symbolizer.bin;
        let mut first = true;
        lines.places(&func, lookup.apply(pc, func.entry()), &mut |place: Place| {
            if !first {
                text.resize(text.len() + indent, b' ');
            }
            first = false;
            text.push(b' ');
            names.push(text, place.name_off, || bin.display_name(bin.name_at(place.name_off)).into_owned());
            if place.inlined {
                text.extend_from_slice(b" (inlined)");
            } else {
                text.push(b'+');
                push_hex(text, pc - func.entry());
            }
            text.push(b' ');
            match place.file.zip(place.line) {
                Some((file, line)) => {
                    files.push(text, file, || bin.file_name(file).into_owned());
                    text.push(b':');
                    push_decimal(text, line);
                }
                None => text.extend_from_slice(b"?:0"),
            }
            if !place.inlined {
                text.extend_from_slice(module);
            }
            text.push(b'\n');
        });
    }
}

/// Escaped strings by their offsets.
struct Strings<K> {
    known: HashMap<K, Range<usize>, BuildHasherDefault<OffsetHasher>>,
    text: Vec<u8>,
    last: Option<(K, Range<usize>)>,
}

impl<K> Default for Strings<K> {
    fn default() -> Self {
        Self { known: HashMap::default(), text: Vec::new(), last: None }
    }
}

impl<K: Copy + Eq + std::hash::Hash> Strings<K> {
    fn push(&mut self, out: &mut Vec<u8>, key: K, string: impl FnOnce() -> String) {
        if self.last.as_ref().is_none_or(|(last, _)| *last != key) {
            let text = &mut self.text;
            let range = self.known.entry(key).or_insert_with(|| {
                let start = text.len();
                text.extend_from_slice(escape::one_line(&string()).as_bytes());
                start..text.len()
            });
            self.last = Some((key, range.clone()));
        }
        if let Some((_, range)) = &self.last {
            out.extend_from_slice(&self.text[range.clone()]);
        }
    }
}

/// For keys of 32 bits that are offsets into a table: no one is harmed by collisions that a hostile file arranges but
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

    fn write_i32(&mut self, value: i32) {
        self.write_u32(value.cast_unsigned());
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

    #[test]
    fn addresses_are_sorted_by_their_low_half() {
        assert_eq!(sorted(&[3, 1, 2, 1]), [1, 3, 2, 0]);
        assert_eq!(sorted(&[]), [0u32; 0]);
    }
}

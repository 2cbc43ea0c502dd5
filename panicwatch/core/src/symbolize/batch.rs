//! Resolves very many addresses at once, as text.
//!
//! Addresses are resolved in ascending order, so that each function's tables are decoded once and stay in the
//! cache, by as many threads as there are processors. The results are written in the order of the requests.

mod around;
mod worker;

use std::{
    io::{self, Write},
    num::NonZero,
    thread,
};

use self::worker::Worker;
use super::{Lookup, Symbolizer};

/// Maximum number of addresses for which a single thread is used.
const SMALL: usize = 16 * 1024;

/// Number of addresses resolved at a time: enough that they are close together in the program, few enough
/// that their text is written into memory that is still in the cache.
pub const PART: usize = 1 << 18;

/// Addresses to resolve, and lines to write between them.
pub struct Batch<'a, 's> {
    /// Run-time addresses, in the order of the requests.
    addresses: Vec<u64>,
    /// Whole lines in order, each with the number of the address before which it is written.
    between: Vec<(usize, String)>,
    symbolizer: &'s Symbolizer<'a>,
    /// Two sets, reused for their allocations: while the output of one is written, the other resolves.
    sets: [Set<'a, 's>; 2],
}

/// The workers of one part.
struct Set<'a, 's> {
    workers: Vec<Worker<'a, 's>>,
    /// Position of the text of each address: the worker, and the index there.
    places: Vec<(u32, u32)>,
}

impl<'a, 's> Batch<'a, 's> {
    /// Returns an empty batch.
    pub fn new(symbolizer: &'s Symbolizer<'a>, lookup: Lookup, threads: NonZero<usize>) -> Self {
        let set = || Set {
            workers: (0..threads.get()).map(|_| Worker::new(symbolizer, lookup)).collect(),
            places: Vec::new(),
        };
        Self { addresses: Vec::new(), between: Vec::new(), symbolizer, sets: [set(), set()] }
    }

    /// Adds a run-time address.
    pub fn push(&mut self, address: u64) {
        self.addresses.push(address);
    }

    /// Adds a line for a request without an address.
    pub fn say(&mut self, line: String) {
        self.between.push((self.addresses.len(), line));
    }

    /// Adds requests in order: whole lines of text, parsed by `read` on several threads.
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

    /// Writes every address with its frames, one line per frame, the first line with the address; then the
    /// batch is empty.
    ///
    /// # Errors
    /// Returns the errors of `out`.
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

/// Splits `block` into `n` parts of whole lines, of about the same size.
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

/// An address with its index in the request: `offset << 32 | index`, where offset is from the start of the
/// program's code, or [`ELSEWHERE`] for addresses outside of it.
type Key = u64;

const ELSEWHERE: u64 = u32::MAX as u64;

/// Splits the addresses among `workers` so that each has a separate range and about the same number.
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
}

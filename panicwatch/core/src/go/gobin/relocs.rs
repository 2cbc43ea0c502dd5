//! The dynamic relocations of a position-independent file: the words that the loader rewrites, and their
//! values.
//!
//! RELA entries only, the default of Go's linker, ld, gold and lld.

use std::{ops::Range, sync::OnceLock};

use object::elf::{EM_AARCH64, EM_X86_64, R_AARCH64_RELATIVE, R_X86_64_RELATIVE};

use super::bytes;

/// Size in bytes of an Elf64_Rela: offset, info, addend.
const ENTRY: u64 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reloc {
    pub(super) offset: u64,
    info: u64,
    addend: u64,
}

impl Reloc {
    /// Returns the link-time value if it depends on the load bias alone.
    pub(super) fn relative_value(&self, machine: u16) -> Option<u64> {
        let kind = (self.info & 0xffff_ffff) as u32;
        let relative = match machine {
            EM_X86_64 => R_X86_64_RELATIVE,
            EM_AARCH64 => R_AARCH64_RELATIVE,
            _ => return None,
        };
        (kind == relative).then_some(self.addend)
    }
}

#[derive(Debug, Default)]
pub(super) struct Relocs {
    /// File offset of the first entry.
    start: u64,
    count: u64,
    order: OnceLock<Order>,
}

#[derive(Debug)]
enum Order {
    /// The file's entries are sorted by offset, as linkers write them with -z combreloc.
    InFile,
    /// Entry numbers, sorted by offset.
    Sorted(Box<[u32]>),
}

impl Relocs {
    pub(super) fn new(start: Option<u64>, count: u64) -> Self {
        match start {
            Some(start) => Self { start, count, order: OnceLock::new() },
            None => Self::default(),
        }
    }

    fn get(&self, data: &[u8], i: u64) -> Option<Reloc> {
        let at = bytes::slice(data, self.start.checked_add(i.checked_mul(ENTRY)?)?, ENTRY)?;
        Some(Reloc {
            offset: bytes::u64_at(at, 0)?,
            info: bytes::u64_at(at, 8)?,
            addend: bytes::u64_at(at, 16)?,
        })
    }

    pub(super) fn all<'a>(&self, data: &'a [u8]) -> impl Iterator<Item = Reloc> + use<'_, 'a> {
        (0..self.present(data)).map_while(move |i| self.get(data, i))
    }

    /// Returns the number of entries inside the file, even if the header claims more.
    fn present(&self, data: &[u8]) -> u64 {
        self.count.min((data.len() as u64).saturating_sub(self.start) / ENTRY)
    }

    /// Returns the relocations that touch a byte of `range`.
    pub(super) fn in_range<'a>(
        &'a self,
        data: &'a [u8],
        range: Range<u64>,
    ) -> impl Iterator<Item = Reloc> + 'a {
        let n = self.present(data);
        let order = (n > 0).then(|| self.order.get_or_init(|| self.find_order(data)));
        let nth = move |i: u64| match order? {
            Order::InFile => self.get(data, i),
            Order::Sorted(by_offset) => self.get(data, u64::from(*by_offset.get(i as usize)?)),
        };
        // The first entry that may reach into the range is for a word that starts up to 7 bytes before it.
        let from = range.start.saturating_sub(7);
        let (mut lo, mut hi) = (0, n);
        while lo < hi {
            let mid = lo + (hi - lo) / 2;
            if nth(mid).is_some_and(|r| r.offset < from) { lo = mid + 1 } else { hi = mid }
        }
        (lo..n).map_while(nth).take_while(move |r| r.offset < range.end)
    }

    fn find_order(&self, data: &[u8]) -> Order {
        if self.all(data).is_sorted_by_key(|r| r.offset) {
            return Order::InFile;
        }
        let mut by_offset: Vec<u32> = (0..u32::try_from(self.present(data)).unwrap_or(u32::MAX)).collect();
        by_offset.sort_by_key(|&i| self.get(data, u64::from(i)).map(|r| r.offset));
        Order::Sorted(by_offset.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(entries: &[(u64, u64, u64)]) -> Vec<u8> {
        entries.iter().flat_map(|(o, i, a)| [*o, *i, *a]).flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn lookups_do_not_depend_on_the_order_in_the_file() {
        let sorted = table(&[(0x10, 8, 1), (0x20, 8, 2), (0x30, 6, 3)]);
        let shuffled = table(&[(0x30, 6, 3), (0x10, 8, 1), (0x20, 8, 2)]);
        for data in [sorted, shuffled] {
            let relocs = Relocs::new(Some(0), 1_000_000);
            let at = |r: Range<u64>| -> Vec<_> {
                relocs.in_range(&data, r).map(|r| (r.offset, r.relative_value(EM_X86_64))).collect()
            };
            assert_eq!(at(0x20..0x28), [(0x20, Some(2))]);
            assert_eq!(at(0x17..0x21), [(0x10, Some(1)), (0x20, Some(2))]);
            assert_eq!(at(0x30..0x31), [(0x30, None)], "needs a symbol");
            assert_eq!(at(0x38..0x100), []);
            assert_eq!(at(0..0x10), []);
        }
    }
}

//! Index of functions by name over the whole pclntab, built at the first lookup.
//!
//! Takes eight bytes per function. Stores hashes and function numbers only; the caller compares the names.

/// Maximum number of bytes of a name that are hashed: real names differ within them, and hostile ones must
/// not cost more.
pub(super) const HASHED: usize = 256;

/// Function numbers by a hash of their names.
#[derive(Debug)]
pub(super) struct NameIndex {
    /// Hash in the upper half, function number in the lower half; sorted, so that many functions with one
    /// name (or, in a hostile file, with one hash) cost no more than others.
    entries: Box<[u64]>,
}

impl NameIndex {
    /// Indexes functions by the first [`HASHED`] bytes of their names.
    pub(super) fn new<'a>(names: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let mut entries: Vec<u64> = names.map(|(i, name)| hash(name) | u64::from(i)).collect();
        entries.sort_unstable();
        Self { entries: entries.into() }
    }

    /// Returns the functions that may be named `name`, in ascending order of their numbers.
    pub(super) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u64> {
        let wanted = hash(name);
        let from = self.entries.partition_point(|entry| *entry < wanted);
        self.entries[from..]
            .iter()
            .take_while(move |entry| **entry >> 32 == wanted >> 32)
            .map(|entry| entry & u64::from(u32::MAX))
    }
}

/// Returns the hash in the upper half of the word.
fn hash(name: &[u8]) -> u64 {
    let name = &name[..name.len().min(HASHED)];
    let mut hash = name.len() as u64;
    let mut add = |word: u64| hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = name.as_chunks::<8>();
    words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
    add(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    hash & !u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::NameIndex;

    #[test]
    fn every_function_of_a_name_is_found() {
        let names = ["main.main", "runtime.gopanic", "main.f", "main.main", "", "runtime.gopanid"];
        let index = NameIndex::new((0..).zip(names.map(str::as_bytes)));
        let find = |name: &str| -> Vec<_> { index.candidates(name.as_bytes()).collect() };
        assert_eq!(find("main.main"), [0, 3]);
        assert_eq!(find("runtime.gopanic"), [1]);
        assert_eq!(find(""), [4]);
        assert_eq!(find("main.g"), [0u64; 0]);
    }
}

//! Finding functions by name: an index over all names of the pclntab, made when the first name is asked for.
//!
//! Eight bytes a function. Knows hashes and numbers; names are compared by who asks.

/// More of a name is not hashed: real ones differ before, and hostile ones must not cost more.
pub(super) const HASHED: usize = 256;

/// Function numbers by a hash of their names.
#[derive(Debug)]
pub(super) struct NameIndex {
    /// Hash in the upper half, number of the function in the lower; sorted, so that many functions of one name (or of
    /// one hash, in a hostile file) cost no more than others.
    entries: Box<[u64]>,
}

impl NameIndex {
    /// Indexes functions by their (at most [`HASHED`] bytes of) names.
    pub(super) fn new<'a>(names: impl Iterator<Item = (u32, &'a [u8])>) -> Self {
        let mut entries: Vec<u64> = names.map(|(i, name)| hash(name) | u64::from(i)).collect();
        entries.sort_unstable();
        Self { entries: entries.into() }
    }

    /// Functions that may be called `name`, in the order of their numbers.
    pub(super) fn candidates(&self, name: &[u8]) -> impl Iterator<Item = u64> {
        let wanted = hash(name);
        let from = self.entries.partition_point(|entry| *entry < wanted);
        self.entries[from..]
            .iter()
            .take_while(move |entry| **entry >> 32 == wanted >> 32)
            .map(|entry| entry & u64::from(u32::MAX))
    }
}

/// In the upper half of the word.
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

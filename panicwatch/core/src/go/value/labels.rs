//! A goroutine's profiler labels (`g.labels`), from captured memory.
//!
//! Up to Go 1.23 they are a map[string]string, from 1.24 on a sorted list of pairs:
//! <https://github.com/golang/go/blob/go1.23.9/src/runtime/pprof/label.go>,
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/pprof/label.go>.

use std::collections::BTreeMap;

use panicwatch_common::go::{
    BUCKET_KEYS, BUCKET_OVERFLOW, BUCKET_SIZE, BUCKET_SLOTS, BUCKET_VALUES, HMAP_B, HMAP_BUCKETS, HMAP_FLAGS,
    HMAP_OLD_BUCKETS, SLICE_LEN, STRING_LEN, STRING_SIZE,
};

use super::place::{Place, Unknown};
use crate::go::{
    memory::{Memory, prefix},
    release::Release,
};

/// Maximum number of labels; `MAX_TEXT` limits the total bytes of their texts.
const MAX_LABELS: u64 = 1024;
const MAX_TEXT: usize = 1 << 20;
/// Maximum log2 of the number of buckets.
const MAX_LOG_BUCKETS: u32 = 10;
/// Bit of `hmap.flags` of a map that grows without getting more buckets.
const SAME_SIZE_GROW: u128 = 8;
/// Minimum slot byte of an occupied slot; smaller ones mark empty and moved slots.
const MIN_TOP_HASH: u8 = 5;

/// Returns the labels that the word `g.labels` points to, as far as they are known, and a sentence for
/// `missing` when they are incomplete.
pub fn labels(
    memory: &dyn Memory,
    release: Release,
    word: u64,
) -> (BTreeMap<String, String>, Option<String>) {
    if word == 0 {
        return (BTreeMap::new(), None);
    }
    let mut out = Labels::default();
    let read = if release.labels_are_list() {
        list(memory, word, &mut out)
    } else {
        Place::At(word).word(memory).and_then(|map| hash_map(memory, map, &mut out))
    };
    let reason = read.err().map(|Unknown(reason)| reason).or(out.cut);
    (out.by_key, reason.map(|reason| format!("labels: {reason}")))
}

#[derive(Default)]
struct Labels {
    by_key: BTreeMap<String, String>,
    /// Total number of bytes of their texts read so far.
    bytes: u64,
    /// Reason for the first incomplete text.
    cut: Option<String>,
}

impl Labels {
    /// Reads the text whose header is at `header`, as far as it was captured.
    fn text(&mut self, memory: &dyn Memory, header: Place) -> Result<String, Unknown> {
        let (ptr, len) = (header.word(memory)?, header.offset(STRING_LEN).word(memory)?);
        let text = prefix(memory, ptr, len, MAX_TEXT);
        let known = text.len() as u64;
        if known < len {
            self.cut.get_or_insert_with(|| format!("a text of {len} bytes is truncated after {known}"));
        }
        self.bytes = self.bytes.saturating_add(known);
        if self.bytes > MAX_TEXT as u64 {
            return Err(Unknown(format!("more than the {MAX_TEXT} bytes that are read")));
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Reads a []struct{key, value string}.
fn list(memory: &dyn Memory, header: u64, out: &mut Labels) -> Result<(), Unknown> {
    let header = Place::At(header);
    let (first, len) = (header.word(memory)?, header.offset(SLICE_LEN).word(memory)?);
    if len > MAX_LABELS {
        return Err(Unknown(format!("{len} of them")));
    }
    for i in 0..len {
        let pair = Place::At(first).offset(i * 2 * STRING_SIZE);
        pair_at(memory, pair, pair.offset(STRING_SIZE), out)
            .map_err(|Unknown(reason)| Unknown(format!("{i} of {len} are known: {reason}")))?;
    }
    Ok(())
}

/// Reads a runtime.hmap. While the map grows, entries that have not been moved yet are only in the old
/// buckets, where moved ones are marked.
fn hash_map(memory: &dyn Memory, map: u64, out: &mut Labels) -> Result<(), Unknown> {
    if map == 0 {
        return Ok(());
    }
    let map = Place::At(map);
    let count = map.word(memory)?;
    if count > MAX_LABELS {
        return Err(Unknown(format!("{count} of them")));
    }
    let same_size = map.offset(HMAP_FLAGS).uint(memory, 1)? & SAME_SIZE_GROW != 0;
    let log = map.offset(HMAP_B).uint(memory, 1)? as u32;
    if log > MAX_LOG_BUCKETS {
        return Err(Unknown(format!("2^{log} buckets")));
    }
    let (buckets, old) = (map.offset(HMAP_BUCKETS).word(memory)?, map.offset(HMAP_OLD_BUCKETS).word(memory)?);
    let mut left = MAX_LABELS;
    let mut read = Ok(());
    if buckets != 0 {
        read = bucket_array(memory, buckets, 1 << log, &mut left, out);
    }
    if old != 0 {
        let log = if same_size { log } else { log.saturating_sub(1) };
        read = read.and(bucket_array(memory, old, 1 << log, &mut left, out));
    }
    match (out.by_key.len() as u64, read) {
        (found, _) if found == count => Ok(()),
        (found, Err(Unknown(reason))) => Err(Unknown(format!("{found} of {count} are known: {reason}"))),
        (found, Ok(())) => Err(Unknown(format!("{found} found where the map counts {count}"))),
    }
}

/// Reads an array of buckets. `left` bounds the overflow buckets of the whole map, which may form a cycle in
/// damaged memory.
fn bucket_array(
    memory: &dyn Memory,
    first: u64,
    count: u64,
    left: &mut u64,
    out: &mut Labels,
) -> Result<(), Unknown> {
    for i in 0..count {
        let mut at = first.wrapping_add(i * BUCKET_SIZE);
        while at != 0 {
            let bucket = Place::At(at);
            for slot in 0..BUCKET_SLOTS {
                if bucket.offset(slot).uint(memory, 1)? as u8 >= MIN_TOP_HASH {
                    let (key, value) = (BUCKET_KEYS + slot * STRING_SIZE, BUCKET_VALUES + slot * STRING_SIZE);
                    pair_at(memory, bucket.offset(key), bucket.offset(value), out)?;
                }
            }
            at = bucket.offset(BUCKET_OVERFLOW).word(memory)?;
            if at != 0 {
                *left = left.checked_sub(1).ok_or_else(|| Unknown::new("too many buckets"))?;
            }
        }
    }
    Ok(())
}

fn pair_at(memory: &dyn Memory, key: Place, value: Place, out: &mut Labels) -> Result<(), Unknown> {
    let (key, value) = (out.text(memory, key)?, out.text(memory, value)?);
    out.by_key.insert(key, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::memory::Snapshot;

    #[test]
    fn one_long_text_is_not_read_for_every_label() {
        let text = vec![b'x'; 8 << 10];
        let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
        let read = |count: u64| {
            let mut memory = Snapshot::new();
            memory.add(0x1000, words(&[0x10_0000, count, count]));
            // Keys of different lengths are different keys.
            let pairs = (0..count).flat_map(|i| [0x20_0000, i + 1, 0x20_0000, text.len() as u64]);
            memory.add(0x10_0000, words(&pairs.collect::<Vec<_>>()));
            memory.add(0x20_0000, text.clone());
            let (found, reason) = labels(&memory, Release::NEWEST, 0x1000);
            (found.len(), reason)
        };
        assert_eq!(read(100), (100, None));
        let reason = "labels: 127 of 1000 are known: more than the 1048576 bytes that are read";
        assert_eq!(read(1000), (127, Some(reason.to_owned())));
    }

    #[test]
    fn what_was_captured_is_known_and_the_rest_is_missing() {
        let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
        let mut memory = Snapshot::new();
        memory.add(0x1000, words(&[0x2000, 3, 3]));
        // The third pair was not captured, the second value only in part.
        memory.add(0x2000, words(&[0x3000, 3, 0x3010, 5, 0x3020, 4, 0x3030, 100_000]));
        for (addr, text) in [(0x3000, "key"), (0x3010, "value"), (0x3020, "long"), (0x3030, "begin")] {
            memory.add(addr, text.as_bytes());
        }
        let (found, reason) = labels(&memory, Release::NEWEST, 0x1000);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("key".to_owned(), "value".to_owned()), ("long".to_owned(), "begin".to_owned())]
        );
        assert_eq!(reason.as_deref(), Some("labels: 2 of 3 are known: memory at 0x2040 was not captured"));
    }
}

//! A goroutine's profiler labels (`g.labels`), from captured memory.
//!
//! Up to Go 1.23 they are a map[string]string, from 1.24 on a sorted list of pairs:
//! <https://github.com/golang/go/blob/go1.23.9/src/runtime/pprof/label.go>,
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/pprof/label.go>.

use std::collections::BTreeMap;

use super::place::{Place, Unknown};
use crate::memory::Memory;

/// First release with the list.
const LIST_SINCE: u32 = 24;
/// Most labels that are believed, and most bytes of their texts.
const MAX_LABELS: u64 = 1024;
const MAX_TEXT: u64 = 1 << 20;
/// Largest log2 of the number of buckets that is believed.
const MAX_LOG_BUCKETS: u32 = 10;
/// Slots of a bucket; size of a string header.
const SLOTS: u64 = 8;
const STRING: u64 = 16;
/// Bucket: a byte per slot, keys, values, overflow pointer.
const BUCKET: u64 = SLOTS + SLOTS * STRING * 2 + 8;
/// Smaller slot bytes mark empty and moved slots.
const MIN_TOP_HASH: u8 = 5;

/// The labels that the word `g.labels` points to; an error is a sentence for `missing`.
pub fn labels(memory: &dyn Memory, minor: u32, word: u64) -> Result<BTreeMap<String, String>, String> {
    if word == 0 {
        return Ok(BTreeMap::new());
    }
    let mut out = Labels::default();
    let read = if minor >= LIST_SINCE {
        list(memory, word, &mut out)
    } else {
        Place::At(word).word(memory).and_then(|map| hash_map(memory, map, &mut out))
    };
    read.map(|()| out.by_key).map_err(|Unknown(reason)| format!("labels: {reason}"))
}

#[derive(Default)]
struct Labels {
    by_key: BTreeMap<String, String>,
    /// Bytes read for them.
    bytes: u64,
}

impl Labels {
    fn text(&mut self, memory: &dyn Memory, header: Place) -> Result<String, Unknown> {
        self.bytes = self.bytes.saturating_add(header.offset(8).word(memory)?);
        if self.bytes > MAX_TEXT {
            return Err(Unknown(format!("more than the {MAX_TEXT} bytes that are read")));
        }
        Ok(String::from_utf8_lossy(&header.string(memory)?).into_owned())
    }
}

/// []struct{key, value string}
fn list(memory: &dyn Memory, header: u64, out: &mut Labels) -> Result<(), Unknown> {
    let header = Place::At(header);
    let (first, len) = (header.word(memory)?, header.offset(8).word(memory)?);
    if len > MAX_LABELS {
        return Err(Unknown(format!("{len} of them")));
    }
    (0..len).try_for_each(|i| {
        let pair = Place::At(first).offset(i * 2 * STRING);
        pair_at(memory, pair, pair.offset(STRING), out)
    })
}

/// runtime.hmap {count 0, flags 8, B 9, …, buckets 16, oldbuckets 24}. While the map grows, entries that have not
/// moved yet are in the old buckets only, moved ones are marked there.
fn hash_map(memory: &dyn Memory, map: u64, out: &mut Labels) -> Result<(), Unknown> {
    if map == 0 {
        return Ok(());
    }
    let map = Place::At(map);
    let count = map.word(memory)?;
    if count > MAX_LABELS {
        return Err(Unknown(format!("{count} of them")));
    }
    let same_size = map.offset(8).uint(memory, 1)? & 8 != 0;
    let log = map.offset(9).uint(memory, 1)? as u32;
    if log > MAX_LOG_BUCKETS {
        return Err(Unknown(format!("2^{log} buckets")));
    }
    let (buckets, old) = (map.offset(16).word(memory)?, map.offset(24).word(memory)?);
    let mut left = MAX_LABELS;
    if buckets != 0 {
        bucket_array(memory, buckets, 1 << log, &mut left, out)?;
    }
    if old != 0 {
        let log = if same_size { log } else { log.saturating_sub(1) };
        bucket_array(memory, old, 1 << log, &mut left, out)?;
    }
    let found = out.by_key.len();
    if found as u64 == count {
        Ok(())
    } else {
        Err(Unknown(format!("{found} found where the map counts {count}")))
    }
}

/// `left` bounds the overflow buckets of the whole map, which may form a cycle in damaged memory.
fn bucket_array(
    memory: &dyn Memory,
    first: u64,
    count: u64,
    left: &mut u64,
    out: &mut Labels,
) -> Result<(), Unknown> {
    for i in 0..count {
        let mut at = first.wrapping_add(i * BUCKET);
        while at != 0 {
            let bucket = Place::At(at);
            for slot in 0..SLOTS {
                if bucket.offset(slot).uint(memory, 1)? as u8 >= MIN_TOP_HASH {
                    let key = bucket.offset(SLOTS + slot * STRING);
                    pair_at(memory, key, key.offset(SLOTS * STRING), out)?;
                }
            }
            at = bucket.offset(BUCKET - 8).word(memory)?;
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
    use crate::memory::Snapshot;

    #[test]
    fn one_long_text_is_not_read_for_every_label() {
        let text = vec![b'x'; 8 << 10];
        let words = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
        let read = |count: u64| {
            let mut memory = Snapshot::new();
            memory.add(0x1000, words(&[0x10_0000, count, count]));
            // Keys of different lengths, so that they are different keys.
            let pairs = (0..count).flat_map(|i| [0x20_0000, i + 1, 0x20_0000, text.len() as u64]);
            memory.add(0x10_0000, words(&pairs.collect::<Vec<_>>()));
            memory.add(0x20_0000, text.clone());
            labels(&memory, LIST_SINCE, 0x1000).map(|found| found.len())
        };
        assert_eq!(read(100), Ok(100));
        assert_eq!(read(1000), Err("labels: more than the 1048576 bytes that are read".to_owned()));
    }
}

//! Copies the pprof labels of a goroutine, in both forms that Go has used.

use panicwatch_common::{
    event::Head,
    go::{
        BUCKET_KEYS, BUCKET_OVERFLOW, BUCKET_SIZE, BUCKET_SLOTS, HMAP_B, HMAP_BUCKETS, HMAP_OLD_BUCKETS,
        HMAP_SIZE, SLICE_LEN, STRING_SIZE,
    },
};

use super::{PAGE, small, tiny};
use crate::{
    context::{Hit, get},
    read::{self, word_or_zero},
};

/// Maximum number of labels of a list that are copied. Crossed by `bound of labels`.
const LIST: u64 = 64;
/// Size of an entry of a list: a key and a value.
const PAIR: u64 = 2 * STRING_SIZE;
/// Maximum number of buckets that are copied of each of a map's two arrays. A map has 32 buckets from 105 to
/// 208 labels, or earlier. Crossed by `bound of labels`.
const BUCKETS: u64 = 32;
/// Maximum number of bytes that are copied of one key or value. Crossed by `bound of labels`.
const TEXT: u64 = 984;

/// Copies the labels of the head's goroutine.
#[inline(always)]
pub(crate) fn labels(head: *mut Head, hit: &Hit) {
    let g = get!(head, g);
    if g == 0 {
        return;
    }
    let labels = read::word(g + hit.binary.g_labels as u64).unwrap_or(0);
    if !read::plausible(labels) {
        return;
    }
    if hit.binary.label_list != 0 {
        label_list(head, labels);
    } else {
        label_map(head, labels);
    }
}

/// Copies the string whose header is at `header`, at most [`TEXT`] bytes of it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn label(head: *mut Head, header: u64) -> u64 {
    if let Some([ptr, len]) = read::words(header)
        && read::plausible(ptr)
        && len > 0
    {
        small(head, ptr, if len > TEXT { TEXT } else { len });
    }
    0
}

/// Copies labels as Go 1.23 and earlier store them: `*labels` is a `map[string]string`.
/// <https://github.com/golang/go/blob/go1.23.9/src/runtime/map.go#L117>
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn label_map(head: *mut Head, labels: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let map = read::word(labels).unwrap_or(0);
    if !read::plausible(map) {
        return 0;
    }
    tiny(head, labels, 8);
    tiny(head, map, HMAP_SIZE);
    let log = read::byte(map + HMAP_B).unwrap_or(0) & 31;
    bucket_array(head, read::word(map + HMAP_BUCKETS).unwrap_or(0), 1 << log);
    bucket_array(head, read::word(map + HMAP_OLD_BUCKETS).unwrap_or(0), 1 << log);
    0
}

/// Copies the first [`BUCKETS`] of `count` buckets, each with its first overflow bucket.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bucket_array(head: *mut Head, first: u64, count: u64) -> u64 {
    for i in 0..BUCKETS {
        if i >= count {
            break;
        }
        let at = first + i * BUCKET_SIZE;
        bucket(head, at);
        bucket(head, word_or_zero(at + BUCKET_OVERFLOW));
    }
    0
}

/// Copies the bucket at `at` with its keys and values, if the address is plausible.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn bucket(head: *mut Head, at: u64) -> u64 {
    if !read::plausible(at) {
        return 0;
    }
    small(head, at, BUCKET_SIZE);
    // The values follow the keys.
    for i in 0..2 * BUCKET_SLOTS {
        label(head, at + BUCKET_KEYS + i * STRING_SIZE);
    }
    0
}

/// Copies labels as Go 1.24 and later store them: `*labels` is a slice of pairs of strings.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/pprof/label.go#L30>
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn label_list(head: *mut Head, labels: u64) -> u64 {
    if head.is_null() {
        return 0;
    }
    let (list, len) = (read::word(labels).unwrap_or(0), read::word(labels + SLICE_LEN).unwrap_or(0));
    if !read::plausible(list) || len == 0 {
        return 0;
    }
    tiny(head, labels, 24);
    let len = if len > LIST { LIST } else { len };
    small(head, list, len * PAIR);
    for i in 0..2 * LIST {
        if i >= 2 * len {
            break;
        }
        label(head, list + i * STRING_SIZE);
    }
    0
}

const _: () = assert!(LIST * PAIR <= PAGE && BUCKET_SIZE <= PAGE);

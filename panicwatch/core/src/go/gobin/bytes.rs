//! Bounds-checked little-endian reads. Knows no file structures.

use std::ops::Range;

/// Returns `len` bytes at offset `at`; `None` when any of them is outside `data`.
pub(super) fn slice(data: &[u8], at: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(at).ok()?;
    let end = usize::try_from(at.checked_add(len)?).ok()?;
    data.get(start..end)
}

pub(super) fn u32_at(data: &[u8], at: u64) -> Option<u32> {
    Some(u32::from_le_bytes(slice(data, at, 4)?.try_into().ok()?))
}

pub(super) fn i32_at(data: &[u8], at: u64) -> Option<i32> {
    u32_at(data, at).map(u32::cast_signed)
}

pub(super) fn u64_at(data: &[u8], at: u64) -> Option<u64> {
    Some(u64::from_le_bytes(slice(data, at, 8)?.try_into().ok()?))
}

/// Returns the NUL-terminated bytes at `at`, without the NUL; `None` if there is no NUL within `max` bytes.
pub(super) fn c_str(data: &[u8], at: u64, max: usize) -> Option<&[u8]> {
    let rest = data.get(usize::try_from(at).ok()?..)?;
    let rest = &rest[..rest.len().min(max)];
    rest.iter().position(|&b| b == 0).map(|n| &rest[..n])
}

/// Reads an unsigned LEB128 number and advances `data` past it; at most 32 bits, like Go's readvarint.
pub(super) fn uvarint32(data: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..35).step_by(7) {
        let (&b, rest) = data.split_first()?;
        *data = rest;
        value |= u32::from(b & 0x7f).checked_shl(shift)?;
        if b & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Returns the part of `data` at `range`, which is unchecked input and may be reversed or out of bounds.
pub(super) fn range(data: &[u8], range: Range<u64>) -> Option<&[u8]> {
    slice(data, range.start, range.end.checked_sub(range.start)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end() {
        let data = [1, 0, 0, 0, 0, 0, 0, 0x80, 0xff];
        assert_eq!(u32_at(&data, 0), Some(1));
        assert_eq!(u64_at(&data, 1), Some(0xff80_0000_0000_0000));
        assert_eq!(u64_at(&data, 2), None);
        assert_eq!(u32_at(&data, u64::MAX), None);
        assert_eq!(range(&data, Range { start: 5, end: 3 }), None);
        assert_eq!(c_str(b"ab\0c", 0, 100), Some(&b"ab"[..]));
        assert_eq!(c_str(b"ab\0c", 3, 100), None, "no NUL");
        assert_eq!(c_str(b"ab\0c", 0, 2), None, "too long");
    }

    #[test]
    fn varints_of_more_than_32_bits_are_refused() {
        let read = |mut d: &[u8]| uvarint32(&mut d).map(|v| (v, d.len()));
        assert_eq!(read(&[0x05, 9]), Some((5, 1)));
        assert_eq!(read(&[0xac, 0x02]), Some((300, 0)));
        assert_eq!(read(&[0x80]), None);
        assert_eq!(read(&[0x80; 9]), None);
    }
}

//! Access to a target's captured memory: captured bytes first, then the binary's own read-only bytes.
//!
//! Knows addresses and bytes only. Must not know Go, processes or files: the caller supplies the bytes, so
//! everything above this trait can be tested with a table of segments.

/// Memory of one process at one moment: little-endian, 64-bit addresses.
pub trait Memory {
    /// Fills `buf` with the bytes from `addr`. Returns false, with `buf` unspecified, if any byte of the
    /// range is unknown.
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool;

    /// Returns the byte at `addr`.
    fn u8(&self, addr: u64) -> Option<u8> {
        let mut b = [0; 1];
        self.read(addr, &mut b).then_some(b[0])
    }

    /// Returns the little-endian 32-bit word at `addr`.
    fn u32(&self, addr: u64) -> Option<u32> {
        let mut b = [0; 4];
        self.read(addr, &mut b).then(|| u32::from_le_bytes(b))
    }

    /// Returns the little-endian 64-bit word at `addr`.
    fn u64(&self, addr: u64) -> Option<u64> {
        let mut b = [0; 8];
        self.read(addr, &mut b).then(|| u64::from_le_bytes(b))
    }

    /// Returns `len` bytes from `addr`; the caller bounds `len`.
    fn bytes(&self, addr: u64, len: usize) -> Option<Vec<u8>> {
        let mut buf = vec![0; len];
        self.read(addr, &mut buf).then_some(buf)
    }
}

/// Captured memory: any number of segments in any order; where segments overlap, the one added first wins.
#[derive(Debug, Default, Clone)]
pub struct Snapshot {
    segments: Vec<(u64, Vec<u8>)>,
}

impl Snapshot {
    /// Returns an empty snapshot, on which every read fails.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes captured at `addr`.
    pub fn add(&mut self, addr: u64, bytes: impl Into<Vec<u8>>) {
        let bytes = bytes.into();
        if !bytes.is_empty() {
            self.segments.push((addr, bytes));
        }
    }

    /// Total bytes held; bytes added twice count twice.
    pub fn len(&self) -> u64 {
        self.segments.iter().map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// Reports whether the snapshot holds no bytes, so that every read fails.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Iterates over the segments in the order in which they were added.
    pub fn segments(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.segments.iter().map(|(a, b)| (*a, b.as_slice()))
    }
}

impl Memory for Snapshot {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        // A range may span several segments (a stack copied in chunks): fill from the front.
        let mut filled = 0;
        while filled < buf.len() {
            let at = addr.wrapping_add(filled as u64);
            let Some((start, bytes)) =
                self.segments.iter().find(|(s, b)| at >= *s && at - *s < b.len() as u64)
            else {
                return false;
            };
            let from = (at - start) as usize;
            let n = (bytes.len() - from).min(buf.len() - filled);
            buf[filled..filled + n].copy_from_slice(&bytes[from..from + n]);
            filled += n;
        }
        true
    }
}

/// Returns as many of the first `len` bytes at `addr` as are known, at most `limit`.
pub fn prefix(memory: &dyn Memory, addr: u64, len: u64, limit: usize) -> Vec<u8> {
    const CHUNK: usize = 4096;
    let want = usize::try_from(len).unwrap_or(usize::MAX).min(limit);
    let mut out = Vec::new();
    let mut chunk = CHUNK;
    // Whole chunks first; the chunk size is halved after a failed read, until not even one byte is known.
    while out.len() < want && chunk > 0 {
        let step = chunk.min(want - out.len());
        match memory.bytes(addr.wrapping_add(out.len() as u64), step) {
            Some(bytes) => out.extend(bytes),
            None => chunk = step / 2,
        }
    }
    out
}

/// Two memories in sequence: a read that `first` cannot serve falls back to `second`.
#[derive(Debug, Clone, Copy)]
pub struct Layered<A, B> {
    /// Memory that is asked first.
    pub first: A,
    /// Read if `first` does not hold the whole range.
    pub second: B,
}

impl<A: Memory, B: Memory> Memory for Layered<A, B> {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        self.first.read(addr, buf) || self.second.read(addr, buf)
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    fn read(&self, addr: u64, buf: &mut [u8]) -> bool {
        (**self).read(addr, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_span_adjoining_segments_and_miss_on_gaps() {
        let mut s = Snapshot::new();
        s.add(0x1008, vec![9; 8]);
        s.add(0x1000, vec![1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(s.u64(0x1000), Some(1));
        assert_eq!(s.bytes(0x1004, 8), Some(vec![0, 0, 0, 0, 9, 9, 9, 9]));
        assert_eq!(s.u64(0x100c), None, "runs past the end");
        assert_eq!(s.u8(u64::MAX), None);
    }

    #[test]
    fn a_prefix_ends_at_the_first_unknown_byte() {
        let mut s = Snapshot::new();
        s.add(0x1000, vec![1; 5000]);
        s.add(0x1000 + 5001, vec![2; 5000]);
        for (len, limit, want) in
            [(10, 100, 10), (100, 10, 10), (9000, 9000, 5000), (0, 9, 0), (u64::MAX, 4999, 4999)]
        {
            assert_eq!(prefix(&s, 0x1000, len, limit), vec![1; want], "{len} {limit}");
        }
        assert!(prefix(&s, 0x10, 8, 8).is_empty());
    }
}

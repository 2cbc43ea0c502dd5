//! Parses the records of the ring. Knows their layout but not their meaning. Does no I/O; a damaged record
//! gives `None`.

use panicwatch_common::trace::{Full, Hit, LARGE_BYTES, SMALL_BYTES, STACK_FRAMES, flag};

/// A parsed record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The event, as the eBPF program wrote it.
    pub hit: Hit,
    /// Address of the probed instruction; `None` in records without it.
    pub ip: Option<u64>,
    /// Return addresses of the callers, innermost first; `None` if they were not requested.
    pub stack: Option<&'a [u8]>,
    /// Data read by the fetch list; `None` if there is none.
    pub data: Option<Data<'a>>,
}

/// Data read by a fetch list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// Bit i: step i succeeded.
    pub done: u64,
    /// The registers, then the data of the steps.
    pub bytes: &'a [u8],
}

impl Data<'_> {
    /// Returns the word at `offset`.
    pub fn word(&self, offset: usize) -> Option<u64> {
        word(self.bytes, offset)
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

/// Parses one record.
pub fn parse(bytes: &[u8]) -> Option<Record<'_>> {
    let hit = Hit {
        time_ns: word(bytes, 0)?,
        goid: word(bytes, 8)?,
        tgid: half(bytes, 16)?,
        tid: half(bytes, 20)?,
        function: half(bytes, 24)?,
        depth: half(bytes, 28)?,
        kind: *bytes.get(32)?,
        flags: *bytes.get(33)?,
        reserved: 0,
        reserved_too: 0,
    };
    const IP: usize = size_of::<Hit>();
    const STACK: usize = IP + 8;
    const DONE: usize = STACK + 8 + 8 * STACK_FRAMES;
    let mut record = Record { hit, ip: None, stack: None, data: None };
    if hit.flags & flag::STACK != 0 {
        let count = usize::try_from(word(bytes, STACK)?).ok().filter(|count| *count <= STACK_FRAMES)?;
        record.stack = Some(bytes.get(STACK + 8..STACK + 8 + 8 * count)?);
    }
    if hit.flags & flag::DATA != 0 {
        let sizes = [size_of::<Full<SMALL_BYTES>>(), size_of::<Full<LARGE_BYTES>>()];
        sizes.contains(&bytes.len()).then_some(())?;
        record.ip = Some(word(bytes, IP)?);
        record.data = Some(Data { done: word(bytes, DONE)?, bytes: &bytes[DONE + 8..] });
    }
    Some(record)
}

impl Record<'_> {
    /// Yields the return addresses of the callers, innermost first.
    pub fn callers(&self) -> impl Iterator<Item = u64> {
        self.stack.unwrap_or_default().chunks_exact(8).filter_map(|bytes| word(bytes, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_records_are_none() {
        let mut bytes = vec![0; size_of::<Full<SMALL_BYTES>>()];
        assert_eq!(parse(&bytes[..39]).map(|r| r.hit), Some(Hit::default()));
        assert_eq!(parse(&bytes[..33]), None);
        bytes[33] = flag::STACK | flag::DATA;
        bytes[48] = 2;
        bytes[56] = 7;
        let record = parse(&bytes).expect("a record");
        assert_eq!(record.callers().collect::<Vec<_>>(), [7, 0]);
        assert_eq!(record.data.map(|d| d.bytes.len()), Some(SMALL_BYTES));
        bytes[48] = 200;
        assert_eq!(parse(&bytes), None, "more callers than there is room for");
        bytes[48] = 0;
        assert_eq!(parse(&bytes[..100]), None, "cut");
    }
}

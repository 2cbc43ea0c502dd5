//! Decodes one ring record to a [`Record`]. Short and unknown records are errors, never panics.

use panicwatch_common::{
    Regs,
    event::{CaptureHead, Exec, Head, MemHead, Point, kind},
};

/// One decoded ring record.
#[derive(Debug, Clone)]
pub enum Record {
    /// Main record of a capture.
    Capture(Box<CaptureHead>),
    /// A small event.
    Point(Box<Point>),
    /// A piece of memory: header and contents.
    Memory(MemHead, Vec<u8>),
    /// A process event: exec or exit.
    Exec(Box<Exec>),
}

/// Why a record could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The record has fewer bytes than its kind requires.
    #[error("event of kind {kind} has {len} bytes, less than the {want} it needs")]
    Short {
        /// Kind of the record, see [`kind`].
        kind: u32,
        /// Size of the record in bytes.
        len: usize,
        /// Required size in bytes.
        want: usize,
    },
    /// The kind is unknown to this version.
    #[error("unknown event kind {0}")]
    Unknown(u32),
}

/// Types that consist of integers and byte arrays without padding, so that every bit pattern is a valid value.
///
/// # Safety
/// Implement it only for such types.
unsafe trait Plain: Copy {}
// SAFETY: u32, u64 and byte arrays only; the const asserts next to each type exclude padding.
unsafe impl Plain for CaptureHead {}
// SAFETY: as above.
unsafe impl Plain for Point {}
// SAFETY: as above.
unsafe impl Plain for MemHead {}
// SAFETY: as above.
unsafe impl Plain for Exec {}

fn read<T: Plain>(bytes: &[u8], kind: u32) -> Result<T, DecodeError> {
    let want = size_of::<T>();
    if bytes.len() < want {
        return Err(DecodeError::Short { kind, len: bytes.len(), want });
    }
    // SAFETY: there are enough bytes, T is Plain, and the read does not require alignment.
    Ok(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// Decodes one record.
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let Some(kind) = bytes.first_chunk::<4>().map(|b| u32::from_le_bytes(*b)) else {
        return Err(DecodeError::Short { kind: 0, len: bytes.len(), want: 4 });
    };
    Ok(match kind {
        kind::PANIC | kind::THROW | kind::DIE | kind::SIGNAL | kind::FATAL_SIGNAL => {
            Record::Capture(Box::new(read(bytes, kind)?))
        }
        kind::DEFER_BEGIN
        | kind::DEFER_END
        | kind::RECOVER
        | kind::RECOVERY
        | kind::GOEXIT
        | kind::EXIT
        | kind::START_PANIC
        | kind::INIT_STEP
        | kind::INIT_TASK => Record::Point(Box::new(read(bytes, kind)?)),
        kind::MEMORY => {
            let head: MemHead = read(bytes, kind)?;
            let data = &bytes[size_of::<MemHead>()..];
            let want = usize::try_from(head.data_len).unwrap_or(usize::MAX);
            let data = data.get(..want).ok_or(DecodeError::Short {
                kind,
                len: bytes.len(),
                want: want.saturating_add(size_of::<MemHead>()),
            })?;
            Record::Memory(head, data.to_vec())
        }
        kind::EXEC | kind::PROCESS_EXIT => Record::Exec(Box::new(read(bytes, kind)?)),
        unknown => return Err(DecodeError::Unknown(unknown)),
    })
}

const _: () = assert!(size_of::<Head>().is_multiple_of(8) && size_of::<Regs>().is_multiple_of(8));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_a_record_is_an_error() {
        let mut bytes = vec![0; size_of::<Point>()];
        bytes[0] = kind::RECOVER as u8;
        assert!(matches!(decode(&bytes), Ok(Record::Point(_))));
        for n in 0..bytes.len() {
            assert!(matches!(decode(&bytes[..n]), Err(DecodeError::Short { .. })), "{n} bytes");
        }
    }

    #[test]
    fn a_memory_record_may_not_claim_more_than_it_brings() {
        let mut bytes = vec![0; size_of::<MemHead>() + 8];
        bytes[0] = kind::MEMORY as u8;
        bytes[32] = 8;
        assert!(matches!(decode(&bytes), Ok(Record::Memory(_, data)) if data.len() == 8));
        bytes[32] = 9;
        assert!(matches!(decode(&bytes), Err(DecodeError::Short { want: 49, .. })));
        bytes[32..40].fill(0xff);
        assert!(matches!(decode(&bytes), Err(DecodeError::Short { .. })));
    }

    #[test]
    fn unknown_kinds_are_named() {
        assert_eq!(decode(&99u32.to_le_bytes()).unwrap_err(), DecodeError::Unknown(99));
    }
}

//! Decodes one ring record to a [`Record`]. Short and unknown records are errors, never panics.

use std::mem::offset_of;

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

/// Types that consist of little-endian integers and arrays of them, read from the bytes they are laid out in.
trait Plain: Sized {
    /// Reads one; `None` when there are too few bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Plain for u32 {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

impl Plain for u64 {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }
}

impl<const N: usize> Plain for [u8; N] {
    fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk().copied()
    }
}

impl<const N: usize> Plain for [u64; N] {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.get(..size_of::<Self>())?.chunks_exact(8)) {
            *word = u64::read(bytes)?;
        }
        Some(words)
    }
}

/// Reads each field where the compiler lays it out: with `repr(C)`, where the programs in the kernel write
/// it.
macro_rules! plain {
    ($name:ident: $($field:ident),*) => {
        impl Plain for $name {
            fn read(bytes: &[u8]) -> Option<Self> {
                Some(Self { $($field: Plain::read(bytes.get(offset_of!($name, $field)..)?)?),* })
            }
        }
    };
}

plain!(Regs: words);
plain!(Head: kind, len, time_ns, tgid, tid, binary, site, ip, sp, g, goid, stack_hi, mem_records, mem_lost, cost_ns, lost, flags);
plain!(Point: head, args, panic_addr, defer_addr, unread, panic, defer);
plain!(CaptureHead: head, regs, m_addr, p_addr, g_len, m_len, p_len, reserved, g, m, p, stack_addr, stack_end);
plain!(MemHead: kind, len, time_ns, tgid, tid, addr, data_len);
plain!(Exec: head, reserved, code, arg_start, arg_end, env_start, env_end, comm);

fn read<T: Plain>(bytes: &[u8], kind: u32) -> Result<T, DecodeError> {
    let want = size_of::<T>();
    let short = DecodeError::Short { kind, len: bytes.len(), want };
    bytes.get(..want).and_then(T::read).ok_or(short)
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
    fn every_field_is_read_where_it_lies() {
        // Each byte says where it is, as far as a byte can.
        let mut bytes: Vec<u8> = (0..2000u32).map(|at| (at % 251) as u8).collect();
        let byte = |at: usize| (at % 251) as u8;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| byte(at + i)));
        bytes[..4].copy_from_slice(&kind::PANIC.to_le_bytes());
        let Ok(Record::Capture(capture)) = decode(&bytes) else { panic!("a capture") };
        assert_eq!((capture.head.kind, capture.head.time_ns), (kind::PANIC, word(8)));
        assert_eq!((capture.regs.words[0], capture.regs.words[17]), (word(96), word(96 + 17 * 8)));
        assert_eq!((capture.m_addr, capture.p_addr, capture.g[0]), (word(240), word(248), byte(272)));
        assert_eq!(capture.m[0], byte(272 + capture.g.len()));
        let end = size_of::<CaptureHead>();
        assert_eq!((capture.stack_addr, capture.stack_end), (word(end - 16), word(end - 8)));
        bytes[..4].copy_from_slice(&kind::RECOVER.to_le_bytes());
        let Ok(Record::Point(point)) = decode(&bytes) else { panic!("a point") };
        assert_eq!((point.args[0], point.args[5], point.unread), (word(96), word(136), word(160)));
        assert_eq!((point.panic[0], point.defer[0]), (byte(168), byte(168 + point.panic.len())));
        bytes[..4].copy_from_slice(&kind::EXEC.to_le_bytes());
        let Ok(Record::Exec(exec)) = decode(&bytes) else { panic!("an exec") };
        assert_eq!((exec.arg_start, exec.env_end, exec.comm[15]), (word(104), word(128), byte(151)));
    }

    #[test]
    fn unknown_kinds_are_named() {
        assert_eq!(decode(&99u32.to_le_bytes()).unwrap_err(), DecodeError::Unknown(99));
    }
}

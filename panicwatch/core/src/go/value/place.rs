//! Where a value lies, and reading Go's basic shapes from there. Knows nothing of types.

use crate::go::memory::Memory;

/// Longest string that is read.
pub(super) const MAX_STRING: u64 = 16 << 20;

/// Why something could not be told: a sentence for `missing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unknown(pub(super) String);

impl Unknown {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    pub(super) fn unread(addr: u64) -> Self {
        Self(format!("memory at {addr:#x} was not captured"))
    }
}

impl From<crate::go::gotype::TypeError> for Unknown {
    fn from(e: crate::go::gotype::TypeError) -> Self {
        Self(e.to_string())
    }
}

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// At an address.
    At(u64),
    /// It is this word: pointers, and structs and arrays of exactly one pointer, inside an interface.
    Word(u64),
}

impl Place {
    /// The place `offset` bytes further on; in a one-word value only offset 0 has bytes.
    pub(super) fn offset(self, offset: u64) -> Self {
        match self {
            Self::At(addr) => Self::At(addr.wrapping_add(offset)),
            word => word,
        }
    }

    /// Up to 16 bytes from here, zero-extended.
    pub(super) fn uint(self, memory: &dyn Memory, size: usize) -> Result<u128, Unknown> {
        match self {
            Self::Word(word) => Ok(u128::from(word)),
            Self::At(addr) => {
                let mut buf = [0; 16];
                let size = size.min(16);
                if memory.read(addr, &mut buf[..size]) {
                    Ok(u128::from_le_bytes(buf))
                } else {
                    Err(Unknown::unread(addr))
                }
            }
        }
    }

    /// The word here.
    pub(super) fn word(self, memory: &dyn Memory) -> Result<u64, Unknown> {
        self.uint(memory, 8).map(|v| v as u64)
    }

    /// The bytes of the string whose header (pointer, length) is here.
    pub(super) fn string(self, memory: &dyn Memory) -> Result<Vec<u8>, Unknown> {
        let (ptr, len) = (self.word(memory)?, self.offset(8).word(memory)?);
        string_bytes(memory, ptr, len)
    }
}

/// The bytes of a string, whole or not at all.
pub(super) fn string_bytes(memory: &dyn Memory, ptr: u64, len: u64) -> Result<Vec<u8>, Unknown> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if len > MAX_STRING {
        return Err(Unknown(format!("string of {len} bytes is longer than the {MAX_STRING} that are read")));
    }
    // The last byte first: a length from damaged memory must not cost an allocation.
    let unread = || Unknown(format!("string of {len} bytes at {ptr:#x} was not captured whole"));
    memory.u8(ptr.wrapping_add(len - 1)).ok_or_else(unread)?;
    memory.bytes(ptr, len as usize).ok_or_else(unread)
}

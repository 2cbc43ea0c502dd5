//! Location of a value, and reads of Go's basic shapes from it. Knows nothing of types.

use panicwatch_common::go::STRING_LEN;

use crate::go::memory::Memory;

/// Maximum length of a string, in bytes.
pub(super) const MAX_STRING: u64 = 16 << 20;

/// Why a value could not be determined: a sentence for `missing`.
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

/// Location of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In memory, at this address.
    At(u64),
    /// This word is the value: pointers, and structs and arrays of exactly one pointer, inside an interface.
    Word(u64),
}

impl Place {
    /// Returns the place `offset` bytes further on; a one-word value has bytes only at offset 0.
    pub(super) fn offset(self, offset: u64) -> Self {
        match self {
            Self::At(addr) => Self::At(addr.wrapping_add(offset)),
            word => word,
        }
    }

    /// Reads up to 16 bytes, zero-extended.
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

    /// Reads a word.
    pub(super) fn word(self, memory: &dyn Memory) -> Result<u64, Unknown> {
        self.uint(memory, 8).map(|v| v as u64)
    }

    /// Reads the string whose header (pointer, length) is at this place.
    pub(super) fn string(self, memory: &dyn Memory) -> Result<Vec<u8>, Unknown> {
        let (ptr, len) = (self.word(memory)?, self.offset(STRING_LEN).word(memory)?);
        string_bytes(memory, ptr, len)
    }
}

/// Reads the bytes of a string; fails unless all of them are available.
pub(super) fn string_bytes(memory: &dyn Memory, ptr: u64, len: u64) -> Result<Vec<u8>, Unknown> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if len > MAX_STRING {
        return Err(Unknown(format!("string of {len} bytes is longer than the limit of {MAX_STRING} bytes")));
    }
    // Read the last byte first: a length from damaged memory must not cause an allocation.
    let unread = || Unknown(format!("string of {len} bytes at {ptr:#x} was not captured completely"));
    memory.u8(ptr.wrapping_add(len - 1)).ok_or_else(unread)?;
    memory.bytes(ptr, len as usize).ok_or_else(unread)
}

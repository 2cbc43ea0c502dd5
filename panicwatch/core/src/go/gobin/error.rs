//! Errors of reading a file as a Go binary.

use std::path::PathBuf;

/// Why a file could not be read as a Go binary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened or mapped.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The underlying I/O error.
        source: std::io::Error,
    },
    /// The file is not a 64-bit little-endian ELF file.
    #[error("not a 64-bit little-endian ELF file: {reason}")]
    NotElf {
        /// Message of the ELF reader.
        reason: String,
    },
    /// The file is ELF but has no Go build information.
    #[error("not a Go program: it has no Go build information, which Go 1.13 and later write")]
    NotGo,
    /// The file is a Go program of an unsupported kind.
    #[error("unsupported {what}: {found}")]
    Unsupported {
        /// What is unsupported: "Go release", "pclntab magic" …
        what: &'static str,
        /// The value found.
        found: String,
    },
    /// The file is shorter than its headers declare: an incomplete copy.
    #[error("{reason}; the file is truncated, it has {len} of the {want} bytes that its headers name")]
    CutOff {
        /// The error caused by the missing bytes.
        reason: Box<Error>,
        /// Size of the file in bytes.
        len: u64,
        /// Size in bytes according to the program headers.
        want: u64,
    },
    /// The file is damaged or hostile: a table contradicts itself or reaches outside the file.
    #[error("malformed {what} at {at:#x}")]
    Malformed {
        /// Name of the table.
        what: &'static str,
        /// Link-time address, or file offset for ELF structures.
        at: u64,
    },
}

impl Error {
    /// Reports whether the file is apparently not a Go program; every other error concerns a Go program.
    pub fn is_not_go(&self) -> bool {
        match self {
            Self::NotElf { .. } | Self::NotGo => true,
            Self::CutOff { reason, .. } => reason.is_not_go(),
            _ => false,
        }
    }
}

//! Why a file could not be read as a Go binary.

use std::path::PathBuf;

/// Why a file could not be read as a Go binary.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened or mapped.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a 64-bit little-endian ELF file.
    #[error("not a 64-bit little-endian ELF file: {reason}")]
    NotElf {
        /// What the ELF reader objected to.
        reason: String,
    },
    /// An ELF file without Go build information.
    #[error("not a Go program: no Go build information in it (built by Go 1.13 or later it would have some)")]
    NotGo,
    /// A Go program of a kind panicwatch does not know.
    #[error("unsupported {what}: {found}")]
    Unsupported {
        /// What is unsupported: "Go release", "pclntab magic" …
        what: &'static str,
        /// What was found instead.
        found: String,
    },
    /// The file ends before its own headers say it does: a copy that was broken off.
    #[error("{reason}; the file is cut off, it has {len} bytes of the {want} that its headers name")]
    CutOff {
        /// What is not there for that.
        reason: Box<Error>,
        /// Bytes there.
        len: u64,
        /// Bytes that the program headers name.
        want: u64,
    },
    /// Damaged or hostile: a table contradicts itself or reaches outside the file.
    #[error("malformed {what} at {at:#x}")]
    Malformed {
        /// Which table.
        what: &'static str,
        /// Link-time address, or file offset for ELF structures.
        at: u64,
    },
}

impl Error {
    /// It is no Go program, as far as can be seen; every other error is about one.
    pub fn is_not_go(&self) -> bool {
        match self {
            Self::NotElf { .. } | Self::NotGo => true,
            Self::CutOff { reason, .. } => reason.is_not_go(),
            _ => false,
        }
    }
}

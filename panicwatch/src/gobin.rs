//! Go binaries that are files. What is in them is [`panicwatch_core::go::gobin`]'s.

use std::{path::Path, sync::Arc};

pub use panicwatch_core::go::gobin::*;

/// Maps the file at `path`, which may be `/proc/PID/exe`.
///
/// # Errors
/// When it cannot be opened or mapped, or is no regular file.
pub fn map(path: &Path) -> Result<SharedBytes, Error> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    // Asked first: opening a pipe would wait for who writes to it.
    let kind = std::fs::metadata(path).map_err(io)?.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() { "it is a directory" } else { "it is not a regular file" };
        return Err(io(std::io::Error::other(what)));
    }
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the mapping is private and read-only; a file someone truncates while it is mapped raises
    // SIGBUS, which the kernel prevents for running programs (ETXTBSY on writing).
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    Ok(Arc::new(map))
}

/// [`GoBinary::parse`] of the file at `path`, which may be `/proc/PID/exe`.
///
/// # Errors
/// When it cannot be read, is not Go, is of an unsupported release, or is damaged.
pub fn open(path: &Path) -> Result<GoBinary, Error> {
    GoBinary::parse(map(path)?)
}

/// As [`panicwatch_core::go::gobin::dwarf`], of files too.
pub mod dwarf {
    use std::path::Path;

    pub use panicwatch_core::go::gobin::dwarf::*;

    /// [`open_bytes`] of the file at `path`, which may be `/proc/PID/exe`.
    ///
    /// # Errors
    /// As [`parse`], and when the file cannot be read.
    pub fn open(path: &Path) -> Result<super::GoBinary, super::Error> {
        open_bytes(super::map(path)?)
    }
}

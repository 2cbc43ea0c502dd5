//! The instructions around an address, each with its source line.

use serde::Serialize;

use super::{Lookup, Symbolizer};
use crate::{
    go::{
        disasm::{self, Code, Raise},
        gobin::Arch,
    },
    incident::Addr,
};

/// An instruction with its source line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Run-time address of the instruction.
    pub address: Addr,
    /// Machine code in hex.
    pub bytes: String,
    /// Disassembly, GNU (AT&T) syntax.
    pub text: String,
    /// Whether this is the requested instruction.
    pub marked: bool,
    /// Source file of the innermost (inlined) call.
    pub file: Option<String>,
    /// Line in `file`.
    pub line: Option<u32>,
}

/// Why there is no listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoListing {
    /// The address is in no Go function.
    #[error("no Go function at this address")]
    NoFunction,
    /// The function's bytes are not in the file.
    #[error("the function's code is not in the file")]
    NoCode,
    /// The instruction set is not supported.
    #[error("instructions of {0} programs are not decoded")]
    Arch(&'static str),
    /// The address is not at an instruction.
    #[error(transparent)]
    Disasm(#[from] disasm::Error),
}

/// Returns up to `before` instructions before the one that `address` refers to, that one, and up to `after`
/// after it.
///
/// # Errors
/// Returns an error when there is no code, or `address` is not at an instruction.
pub fn around(
    symbolizer: &Symbolizer<'_>,
    address: u64,
    lookup: Lookup,
    before: usize,
    after: usize,
) -> Result<Vec<Line>, NoListing> {
    let (bin, bias) = (symbolizer.binary(), symbolizer.bias());
    if bin.arch() != Arch::Amd64 {
        return Err(NoListing::Arch(bin.arch().name()));
    }
    let func = bin.find_func(address.wrapping_sub(bias)).ok_or(NoListing::NoFunction)?;
    let bytes = bin.code(func.entry(), func.end()).ok_or(NoListing::NoCode)?;
    let code = Code { entry: func.entry().wrapping_add(bias), bytes };
    let raise = match lookup {
        Lookup::Return if address != code.entry => Raise::CallReturningTo(address),
        _ => Raise::At(address),
    };
    let name = |target: u64| bin.place_name(target.wrapping_sub(bias));
    let instructions = disasm::around(code, raise, before, after, &name)?;
    let lines = instructions.into_iter().map(|i| {
        let place = func.file_line(i.address.0.wrapping_sub(bias));
        let (file, line) = place.map(|(file, line)| (file.into_owned(), line)).unzip();
        Line { address: i.address, bytes: i.bytes, text: i.text, marked: i.raised, file, line }
    });
    Ok(lines.collect())
}

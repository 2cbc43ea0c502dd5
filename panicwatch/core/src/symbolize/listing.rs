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

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// At run time.
    pub address: Addr,
    /// Hex.
    pub bytes: String,
    /// Disassembly, GNU syntax.
    pub text: String,
    /// The one that was asked for.
    pub marked: bool,
    /// Source file of the innermost (inlined) call.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
}

/// Why there is no listing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoListing {
    /// No function, no instructions.
    #[error("no Go function is there")]
    NoFunction,
    /// Its bytes are not in the file.
    #[error("the function's code is not in the file")]
    NoCode,
    /// Another instruction set.
    #[error("instructions of {0} programs are not decoded")]
    Arch(&'static str),
    /// Not at an instruction.
    #[error(transparent)]
    Disasm(#[from] disasm::Error),
}

/// Up to `before` instructions in front of the one that `address` stands for, that one, and up to `after` behind it.
///
/// # Errors
/// When there is no code, or `address` is not at an instruction.
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

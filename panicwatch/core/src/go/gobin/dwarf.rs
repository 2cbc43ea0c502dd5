//! Struct layouts from a binary's own debug information. The layout table is checked against them, and where
//! the two disagree (a patched runtime, a development version) the debug information takes precedence.
//!
//! Knows DWARF as Go's linker writes it
//! (<https://github.com/golang/go/blob/go1.24.11/src/cmd/link/internal/ld/dwarf.go>): every type is a child
//! of some unit's root, package types are named `package.Name`. Reads no more than necessary: stops at the
//! last requested struct. Pure over bytes that may be damaged or hostile.

mod compare;
mod open;
mod sections;
mod signature;
pub mod types;
mod unit;

use std::collections::BTreeMap;

use gimli::{DebugAbbrevOffset, EndianSlice, LittleEndian};
use thiserror::Error;

use self::{sections::Sections, unit::Unit};

pub use self::{
    compare::{Checked, Difference, check},
    open::{compare, open_bytes, parse, table_suffices},
    signature::{Location, Parameter, Signature, Signatures, signatures},
};

/// Work limit for one file: each entry and each attribute costs 1. Bounds the time to some seconds; the
/// largest real programs use a tenth of it.
const FUEL: u64 = 1 << 28;
/// Cost of reading one unit's abbreviations. Go's units share a table; each C unit has its own.
const ABBREVIATIONS_COST: u64 = 1 << 16;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Why debug information could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DwarfError {
    /// The file has no debug information.
    #[error("the binary has no debug information (built with -s or -w, or stripped)")]
    None,
    /// A section's declared size exceeds what is read, or what its contents can decompress to.
    #[error("debug section {section} claims to have {size} bytes when decompressed, which is too much")]
    TooLarge {
        /// Name of the section.
        section: &'static str,
        /// Its declared size, decompressed, in bytes.
        size: u64,
    },
    /// A section uses an unsupported compression format.
    #[error("debug section {section} is compressed with something other than zlib")]
    Compression {
        /// Name of the section.
        section: &'static str,
    },
    /// The work limit was reached.
    #[error("the debug information has too many entries, or is damaged")]
    TooMuch,
    /// The ELF file is damaged.
    #[error("the file is damaged")]
    Object(#[from] object::Error),
    /// The debug information is damaged.
    #[error("the debug information is damaged")]
    Dwarf(#[from] gimli::Error),
}

/// A struct to look for, under any of its names, and the field paths to resolve in it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Go names including the package path (`runtime.g`); the first is the key of the result.
    pub names: Vec<&'static str>,
    /// Field paths (`sched.sp`); alternatives between `|`; `sizeof` for the size of the struct.
    pub paths: Vec<&'static str>,
}

/// Offset of each resolved path, by the first name of its struct.
pub type Found = BTreeMap<&'static str, BTreeMap<&'static str, u64>>;

/// Reads the layouts of `wanted` from the ELF file `bytes`. Structs and fields missing from the debug
/// information are absent.
///
/// # Errors
/// Returns an error without debug information, or when it is damaged before everything was found.
pub fn offsets(bytes: &[u8], wanted: &[Wanted]) -> Result<Found, DwarfError> {
    let sections = Sections::load(&object::File::parse(bytes)?)?;
    let mut found = Found::new();
    let mut fuel = Fuel(FUEL);
    let mut units = sections.info().units();
    let mut last: Option<(DebugAbbrevOffset, _)> = None;
    while let Some(header) = units.next()? {
        let at = header.debug_abbrev_offset();
        let abbreviations = match last.take() {
            Some((known, abbreviations)) if known == at => abbreviations,
            _ => {
                fuel.spend(ABBREVIATIONS_COST)?;
                sections.abbreviations(at)?
            }
        };
        let unit = Unit { sections: &sections, header: &header, abbreviations: &abbreviations };
        if unit.search(wanted, &mut found, &mut fuel)? {
            break;
        }
        last = Some((at, abbreviations));
    }
    Ok(found)
}

/// Remaining work, initially [`FUEL`].
struct Fuel(u64);

impl Fuel {
    fn spend(&mut self, cost: u64) -> Result<(), DwarfError> {
        self.0 = self.0.checked_sub(cost).ok_or(DwarfError::TooMuch)?;
        Ok(())
    }
}

//! Struct layouts from a binary's own debug information: what the layout table is checked against, and what wins
//! where they disagree (a patched runtime, a development version).
//!
//! Knows DWARF as Go's linker writes it (<https://github.com/golang/go/blob/go1.24.11/src/cmd/link/internal/ld/dwarf.go>):
//! every type is a child of some unit's root, package types under `package.Name`. Reads no more than it must: it
//! stops at the last struct it was asked for. Pure over bytes that may be damaged or hostile.

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

/// What one file may cost: an entry costs one, and so does each of its attributes. Some seconds at most; of real
/// programs the largest take a tenth.
const FUEL: u64 = 1 << 28;
/// What reading one unit's abbreviations costs. Go's units share theirs, C's have their own.
const ABBREVIATIONS_COST: u64 = 1 << 16;

type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Why debug information could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DwarfError {
    /// The file has none.
    #[error("the binary has no debug information (built with -s or -w, or stripped)")]
    None,
    /// A section says that it is larger than what is read, or than what it can hold.
    #[error("debug section {section} claims to be {size} bytes, decompressed, which is not believed")]
    TooLarge {
        /// Name of the section.
        section: &'static str,
        /// The size that it claims.
        size: u64,
    },
    /// A section is compressed in a way that is not read.
    #[error("debug section {section} is compressed with something else than zlib")]
    Compression {
        /// Name of the section.
        section: &'static str,
    },
    /// It is read up to a limit.
    #[error("the debug information has more entries than are read, or is damaged")]
    TooMuch,
    /// The ELF file is damaged.
    #[error("the file is damaged")]
    Object(#[from] object::Error),
    /// The debug information is damaged.
    #[error("the debug information is damaged")]
    Dwarf(#[from] gimli::Error),
}

/// What to look for: a struct under any of its names, and which paths in it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Go names, package path first (`runtime.g`); the first is the key of the result.
    pub names: Vec<&'static str>,
    /// Field paths (`sched.sp`); alternatives between `|`; `sizeof` for the whole.
    pub paths: Vec<&'static str>,
}

/// Offset of each path that was found, by the first name of its struct.
pub type Found = BTreeMap<&'static str, BTreeMap<&'static str, u64>>;

/// Reads the layouts of `wanted` from the ELF file `bytes`. Structs and fields that it does not know are absent.
///
/// # Errors
/// Without debug information, or when it is damaged before everything was found.
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

/// What is left of [`FUEL`].
struct Fuel(u64);

impl Fuel {
    fn spend(&mut self, cost: u64) -> Result<(), DwarfError> {
        self.0 = self.0.checked_sub(cost).ok_or(DwarfError::TooMuch)?;
        Ok(())
    }
}

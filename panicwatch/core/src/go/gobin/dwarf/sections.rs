//! The debug sections of an ELF file, decompressed. Knows sizes and compression, not what is in them.

use std::borrow::Cow;

use gimli::{
    Abbreviations, DebugAbbrev, DebugAbbrevOffset, DebugInfo, DebugStrOffset, EndianSlice, LittleEndian,
};
use object::{CompressionFormat, Object, ObjectSection};

use super::{DwarfError, Slice};

/// Most bytes that decompressing may give, all sections together.
pub(super) const MAX_DECOMPRESSED: u64 = 256 << 20;
/// How much more they may be than what is in the file. Real debug information shrinks to a quarter or so; zlib could
/// make a thousandth of it.
const MAX_RATIO: u64 = 64;
/// Longest abbreviations of one unit; some kilobytes are usual.
const MAX_ABBREVIATIONS: usize = 16 << 10;
/// Longest name that is told from others.
const MAX_NAME: usize = 256;

/// The three sections that layouts are read from.
pub(super) struct Sections<'a> {
    info: Cow<'a, [u8]>,
    abbrev: Cow<'a, [u8]>,
    str: Cow<'a, [u8]>,
}

impl<'a> Sections<'a> {
    /// # Errors
    /// When there is no debug information, it is too large, or is damaged.
    pub(super) fn load(file: &object::File<'a>) -> Result<Self, DwarfError> {
        let mut left = MAX_DECOMPRESSED;
        let info = load(file, ".debug_info", &mut left)?.ok_or(DwarfError::None)?;
        let abbrev = load(file, ".debug_abbrev", &mut left)?.unwrap_or_default();
        let str = load(file, ".debug_str", &mut left)?.unwrap_or_default();
        Ok(Self { info, abbrev, str })
    }

    pub(super) fn info(&self) -> DebugInfo<Slice<'_>> {
        DebugInfo::new(&self.info, LittleEndian)
    }

    /// The abbreviations at `at`.
    pub(super) fn abbreviations(&self, at: DebugAbbrevOffset) -> Result<Abbreviations, DwarfError> {
        let rest = self.abbrev.get(at.0..).unwrap_or_default();
        let rest = &rest[..rest.len().min(MAX_ABBREVIATIONS)];
        let section: DebugAbbrev<Slice<'_>> = EndianSlice::new(rest, LittleEndian).into();
        Ok(section.abbreviations(DebugAbbrevOffset(0))?)
    }

    /// The text at `at` of the string section; `None` when it is longer than any name that is looked for.
    pub(super) fn text(&self, at: DebugStrOffset) -> Option<&[u8]> {
        let rest = self.str.get(at.0..)?;
        let rest = &rest[..rest.len().min(MAX_NAME)];
        rest.iter().position(|&b| b == 0).map(|end| &rest[..end])
    }
}

/// A section's contents. `left`: how many bytes may still be decompressed.
pub(super) fn load<'a>(
    file: &object::File<'a>,
    name: &'static str,
    left: &mut u64,
) -> Result<Option<Cow<'a, [u8]>>, DwarfError> {
    // By `object`, also under the old name of compressed sections, .zdebug_info.
    let Some(section) = file.section_by_name(name) else { return Ok(None) };
    let data = section.compressed_data()?;
    match data.format {
        CompressionFormat::None => return Ok(Some(Cow::Borrowed(data.data))),
        // `object` allocates what the header claims, and gives no more.
        CompressionFormat::Zlib => {}
        _ => return Err(DwarfError::Compression { section: name }),
    }
    let size = data.uncompressed_size;
    let most = (data.data.len() as u64).saturating_mul(MAX_RATIO);
    let too_large = DwarfError::TooLarge { section: name, size };
    *left = left.checked_sub(size).filter(|_| size <= most).ok_or(too_large)?;
    Ok(Some(data.decompress()?))
}

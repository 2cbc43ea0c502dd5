//! The debug sections of an ELF file, decompressed. Knows sizes and compression, not the contents.

use std::borrow::Cow;

use gimli::{
    Abbreviations, DebugAbbrev, DebugAbbrevOffset, DebugInfo, DebugStrOffset, EndianSlice, LittleEndian,
};
use object::{CompressionFormat, Object, ObjectSection};

use super::{DwarfError, Slice};

/// Maximum total size of all decompressed sections, in bytes.
pub(super) const MAX_DECOMPRESSED: u64 = 256 << 20;
/// Maximum decompression ratio. Real debug information compresses to about a quarter; zlib can compress to a
/// thousandth.
const MAX_RATIO: u64 = 64;
/// Maximum size of one unit's abbreviations, in bytes; some kilobytes are usual.
const MAX_ABBREVIATIONS: usize = 16 << 10;
/// Maximum length of a name, in bytes; longer names are ignored.
const MAX_NAME: usize = 256;

/// The three sections needed to read layouts.
pub(super) struct Sections<'a> {
    info: Cow<'a, [u8]>,
    abbrev: Cow<'a, [u8]>,
    str: Cow<'a, [u8]>,
}

impl<'a> Sections<'a> {
    /// # Errors
    /// Returns an error when there is no debug information, or it is too large or damaged.
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

    /// Parses the abbreviations at `at`.
    pub(super) fn abbreviations(&self, at: DebugAbbrevOffset) -> Result<Abbreviations, DwarfError> {
        let rest = self.abbrev.get(at.0..).unwrap_or_default();
        let rest = &rest[..rest.len().min(MAX_ABBREVIATIONS)];
        let section: DebugAbbrev<Slice<'_>> = EndianSlice::new(rest, LittleEndian).into();
        Ok(section.abbreviations(DebugAbbrevOffset(0))?)
    }

    /// Returns the text at `at` of the string section; `None` when it is longer than any wanted name.
    pub(super) fn text(&self, at: DebugStrOffset) -> Option<&[u8]> {
        let rest = self.str.get(at.0..)?;
        let rest = &rest[..rest.len().min(MAX_NAME)];
        rest.iter().position(|&b| b == 0).map(|end| &rest[..end])
    }
}

/// Returns a section's contents. `left` is the number of bytes that may still be decompressed.
pub(super) fn load<'a>(
    file: &object::File<'a>,
    name: &'static str,
    left: &mut u64,
) -> Result<Option<Cow<'a, [u8]>>, DwarfError> {
    // `object` also finds compressed sections under their old name, .zdebug_info.
    let Some(section) = file.section_by_name(name) else { return Ok(None) };
    let data = section.compressed_data()?;
    match data.format {
        CompressionFormat::None => return Ok(Some(Cow::Borrowed(data.data))),
        // `object` allocates what the header declares, and returns no more.
        CompressionFormat::Zlib => {}
        _ => return Err(DwarfError::Compression { section: name }),
    }
    let size = data.uncompressed_size;
    let most = (data.data.len() as u64).saturating_mul(MAX_RATIO);
    let too_large = DwarfError::TooLarge { section: name, size };
    *left = left.checked_sub(size).filter(|_| size <= most).ok_or(too_large)?;
    Ok(Some(data.decompress()?))
}

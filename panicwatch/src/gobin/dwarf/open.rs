//! A binary with the layout that its own debug information gives.

use super::check;
use crate::gobin::{
    Error, GoBinary, GoVersion, LayoutSource, RuntimeLayout, SharedBytes, identify, offsets::MINORS,
};

/// As [`GoBinary::parse`], but where the binary has debug information that disagrees with the table, it wins. Also
/// reads a release that the table has no row for, when debug information gives every struct of it.
///
/// Costs some tens of milliseconds on a small program: the debug information is decompressed.
///
/// # Errors
/// When the file is not Go, is damaged, or neither table nor debug information knows the release's structs.
pub fn parse(bytes: SharedBytes) -> Result<GoBinary, Error> {
    let (version, _) = identify(bytes.clone())?;
    let row = RuntimeLayout::for_version(&version);
    // A release between or after the known ones is most like the latest known before it.
    let Some(table) = row.clone().or_else(|| nearest(&version)) else {
        return GoBinary::parse(bytes);
    };
    let Ok(checked) = check((*bytes).as_ref(), &table) else {
        // The table is all there is.
        return GoBinary::parse(bytes);
    };
    if row.is_some() && checked.differences.is_empty() {
        return GoBinary::parse(bytes);
    }
    if row.is_none() && !(checked.absent.is_empty() && checked.complete) {
        return GoBinary::parse(bytes);
    }
    let mut layout = checked.layout;
    layout.minor = version.minor;
    if row.is_none() {
        // Debug information has no names for these numbers.
        layout.wait_reasons = &[];
    }
    GoBinary::parse_with_layout(bytes, layout, LayoutSource::Dwarf)
}

/// The row of the latest known release before `version`.
fn nearest(version: &GoVersion) -> Option<RuntimeLayout> {
    let minor = *MINORS.iter().filter(|minor| **minor < version.minor).max()?;
    RuntimeLayout::for_version(&GoVersion { minor, ..version.clone() })
}

//! Opens a binary with the layout from its own debug information, and decides when that is necessary.

use super::{Checked, DwarfError, check};
use crate::go::gobin::{Error, GoBinary, GoVersion, LayoutSource, RuntimeLayout, SharedBytes, identify};

/// Reports whether the table is trusted without checking debug information: for known releases as published
/// by the Go project. All other builds may have different structs: development versions and release
/// candidates, experiments ("X:…"), vendors' own versions, releases without a row.
pub fn table_suffices(version: &GoVersion) -> bool {
    version.is_plain_release() && RuntimeLayout::for_version(version).is_some()
}

/// How everything that watches a program opens its binary: as [`GoBinary::parse`] where [`table_suffices`],
/// for that is fast; as [`parse`] for the rest.
///
/// # Errors
/// Returns the errors of [`parse`].
pub fn open_bytes(bytes: SharedBytes) -> Result<GoBinary, Error> {
    let (version, _) = identify(bytes.clone())?;
    if table_suffices(&version) { GoBinary::parse(bytes) } else { parse(bytes) }
}

/// Like [`GoBinary::parse`], but the binary's debug information takes precedence over the table where they
/// disagree. Also parses a release that has no row in the table, if the debug information describes every
/// struct.
///
/// Takes some tens of milliseconds for a small program: the debug information is decompressed.
///
/// # Errors
/// Returns an error when the file is not Go, is damaged, or neither table nor debug information describes the
/// release's structs.
pub fn parse(bytes: SharedBytes) -> Result<GoBinary, Error> {
    let (version, _) = identify(bytes.clone())?;
    let row = RuntimeLayout::for_version(&version);
    // A release between or after the known ones most resembles the latest known release before it.
    let Some(table) = row.clone().or_else(|| nearest(&version)) else {
        return GoBinary::parse(bytes);
    };
    let Ok(checked) = check((*bytes).as_ref(), &table) else {
        // No usable debug information: only the table remains.
        return GoBinary::parse(bytes);
    };
    if row.is_some() && checked.differences.is_empty() {
        return GoBinary::parse(bytes);
    }
    if row.is_none() && !(checked.absent.is_empty() && checked.complete) {
        return GoBinary::parse(bytes);
    }
    let mut layout = checked.layout;
    layout.release = version.release;
    if row.is_none() {
        // Debug information does not name these numbers.
        layout.wait_reasons = &[];
    }
    let bin = GoBinary::parse_with_layout(bytes, layout, LayoutSource::Dwarf)?;
    if row.is_none() && !bin.func_ids_hold() {
        let what = "Go release (the function IDs of its runtime are unknown)";
        return Err(Error::Unsupported { what, found: version.raw });
    }
    Ok(bin)
}

/// Compares the table's row for `version`, or the nearest earlier row, with the debug information in `bytes`.
/// `None` for a release before the first row.
///
/// # Errors
/// Returns an error when there is no usable debug information.
pub fn compare(bytes: &[u8], version: &GoVersion) -> Option<Result<Checked, DwarfError>> {
    let table = RuntimeLayout::for_version(version).or_else(|| nearest(version))?;
    Some(check(bytes, &table))
}

/// Returns the row of the latest known release before `version`.
fn nearest(version: &GoVersion) -> Option<RuntimeLayout> {
    if version.major != 1 {
        return None;
    }
    let release = version.release.predecessor()?;
    RuntimeLayout::for_version(&GoVersion { release, ..version.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_trusted_for_known_releases_alone() {
        let suffices = |raw| table_suffices(&GoVersion::parse(raw).expect("a version"));
        for plain in ["go1.19", "go1.19.8", "go1.24.11", "go1.27.3", "go1.27.99"] {
            assert!(suffices(plain), "{plain}");
        }
        for other in [
            "go1.20.5",
            "go1.28",
            "go2.1",
            "go1.25rc1",
            "go1.21beta2",
            "go1.26.6 X:nogreenteagc",
            "go1.22.5 X:boringcrypto",
            "go1.24.3 (vendor)",
            "go1.24-custom",
            "go1.24.3-fips",
            "go1.24.3+auto",
            "go1.24.1.2",
            "go1.27-devel_1f2e3d",
            "devel go1.27-1f2e3d Mon Jan 1",
        ] {
            assert!(!suffices(other), "{other}");
        }
    }
}

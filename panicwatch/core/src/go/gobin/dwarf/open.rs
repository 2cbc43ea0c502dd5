//! A binary with the layout that its own debug information gives, and when that is asked at all.

use super::{Checked, DwarfError, check};
use crate::go::gobin::{
    Error, GoBinary, GoVersion, LayoutSource, RuntimeLayout, SharedBytes, identify, offsets::MINORS,
};

/// Whether the table is trusted without a look at debug information: for the known releases as the Go project made
/// them. Everything else may have other structs: development versions and candidates, experiments ("X:…"), vendors'
/// own versions, releases without a row.
pub fn table_suffices(version: &GoVersion) -> bool {
    version.is_plain_release() && RuntimeLayout::for_version(version).is_some()
}

/// How everything that watches a program opens its binary: as [`GoBinary::parse`] where [`table_suffices`], for that
/// is fast; as [`parse`] for the rest.
///
/// # Errors
/// As [`parse`].
pub fn open_bytes(bytes: SharedBytes) -> Result<GoBinary, Error> {
    let (version, _) = identify(bytes.clone())?;
    if table_suffices(&version) { GoBinary::parse(bytes) } else { parse(bytes) }
}

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
    let bin = GoBinary::parse_with_layout(bytes, layout, LayoutSource::Dwarf)?;
    if row.is_none() && !bin.func_ids_hold() {
        let what = "Go release (the marks of its runtime's functions are not known)";
        return Err(Error::Unsupported { what, found: version.raw });
    }
    Ok(bin)
}

/// The table's row for `version`, or the nearest before it, compared with the debug information in `bytes`. `None`
/// before the first row.
///
/// # Errors
/// When there is no usable debug information.
pub fn compare(bytes: &[u8], version: &GoVersion) -> Option<Result<Checked, DwarfError>> {
    let table = RuntimeLayout::for_version(version).or_else(|| nearest(version))?;
    Some(check(bytes, &table))
}

/// The row of the latest known release before `version`.
fn nearest(version: &GoVersion) -> Option<RuntimeLayout> {
    if version.major != 1 {
        return None;
    }
    let minor = *MINORS.iter().filter(|minor| **minor < version.minor).max()?;
    RuntimeLayout::for_version(&GoVersion { minor, ..version.clone() })
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

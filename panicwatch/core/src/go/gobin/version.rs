//! The Go release of a binary.

use std::fmt;

use crate::go::release::Release;

/// A Go release, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoVersion {
    /// Major version: 1.
    pub major: u16,
    /// Minor release: 1.24 in go1.24.11.
    pub release: Release,
    /// Patch level: 11 in go1.24.11; 0 for release candidates and development versions.
    pub patch: u16,
    /// Whether it is a development version ("devel go1.28-…"), whose runtime may be anything between two
    /// releases.
    pub devel: bool,
    /// The version string as the linker recorded it.
    pub raw: String,
}

impl GoVersion {
    /// Parses "go1.24.11", "go1.26.6 X:nogreenteagc", "go1.25rc1", "devel go1.28-abcdef Mon …", "go1.24.3
    /// (vendor)".
    pub fn parse(raw: &str) -> Option<Self> {
        let devel = raw.starts_with("devel ");
        let text = raw.split_whitespace().find_map(|w| w.strip_prefix("go"))?;
        let mut numbers = text.split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse::<u16>().ok()
        });
        let major = numbers.next()??;
        let release = Release::new(numbers.next()??);
        let patch = numbers.next().flatten().unwrap_or(0);
        let devel = devel || text.contains('-') && text.contains("devel");
        Some(Self { major, release, patch, devel, raw: raw.to_owned() })
    }

    /// Reports whether it is a plain release of the Go project: "go1.24" or "go1.24.11", without any suffix.
    pub fn is_plain_release(&self) -> bool {
        let number = |n: &str| (1..=5).contains(&n.len()) && n.bytes().all(|b| b.is_ascii_digit());
        let numbers: Vec<_> = self.raw.strip_prefix("go").unwrap_or_default().split('.').collect();
        (2..=3).contains(&numbers.len()) && numbers.into_iter().all(number)
    }
}

impl fmt::Display for GoVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_linkers_write_them() {
        let v = |raw| GoVersion::parse(raw).map(|v| (v.major, v.release.minor(), v.patch, v.devel));
        assert_eq!(v("go1.24.11"), Some((1, 24, 11, false)));
        assert_eq!(v("go1.21"), Some((1, 21, 0, false)));
        assert_eq!(v("go1.26.6 X:nogreenteagc"), Some((1, 26, 6, false)));
        assert_eq!(v("go1.25rc1"), Some((1, 25, 0, false)));
        assert_eq!(v("devel go1.28-1f2e3d Mon Jan 1"), Some((1, 28, 0, true)));
        assert_eq!(v("go1.28-devel_1f2e3d"), Some((1, 28, 0, true)));
        assert_eq!(v("gox"), None);
        assert_eq!(v(""), None);
    }
}

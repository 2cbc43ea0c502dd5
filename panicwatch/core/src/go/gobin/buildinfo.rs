//! Build information written by `go build`: release, module, dependencies, settings.
//!
//! <https://github.com/golang/go/blob/go1.24.11/src/debug/buildinfo/buildinfo.go>,
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/debug/mod.go>

use panicwatch_common::go::STRING_LEN;

use super::{Error, bytes, image::Image};

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Flag in byte 15: the strings follow inline (Go 1.18 and later).
const FLAG_INLINE: u8 = 2;
/// Maximum size of the module text; real ones are some tens of kilobytes. A byte of it may expand to fifty in
/// memory.
const MAX_TEXT: u64 = 1 << 20;
/// Maximum length of the release string: with experiments and a vendor's remark some hundred bytes.
const MAX_VERSION: u64 = 1024;

/// A module of the build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Module {
    /// Path of the module, as in go.mod.
    pub path: String,
    /// Module version, "v1.2.3" or "(devel)"; empty when unknown.
    pub version: String,
    /// Hash as in go.sum.
    pub sum: Option<String>,
    /// The replacement from a replace directive.
    pub replaced_by: Option<Box<Module>>,
}

/// Decoded build information of a binary.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BuildInfo {
    /// Import path of the main package.
    pub path: Option<String>,
    /// The main module; `None` for GOPATH builds.
    pub main: Option<Module>,
    /// All other modules.
    pub deps: Vec<Module>,
    /// Build settings in file order: -ldflags, CGO_ENABLED, GOARCH, vcs.revision, DefaultGODEBUG …
    pub settings: Vec<(String, String)>,
}

impl BuildInfo {
    /// Returns the value of one setting.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Returns the path of the main module; in a build without modules, that of the main package.
    pub fn module_path(&self) -> Option<&str> {
        self.main.as_ref().map(|main| main.path.as_str()).or(self.path.as_deref())
    }

    /// Parses the text form that runtime/debug.BuildInfo.String writes; skips unknown lines.
    pub(super) fn parse(text: &str) -> Self {
        let mut info = Self::default();
        let mut replace_main = false;
        for line in text.lines() {
            let Some((key, rest)) = line.split_once('\t') else { continue };
            match key {
                "path" => info.path = Some(rest.to_owned()),
                "mod" => {
                    info.main = Some(module(rest));
                    replace_main = true;
                }
                "dep" => {
                    info.deps.push(module(rest));
                    replace_main = false;
                }
                "=>" => {
                    let target = if replace_main { info.main.as_mut() } else { info.deps.last_mut() };
                    if let Some(m) = target {
                        m.replaced_by = Some(Box::new(module(rest)));
                    }
                }
                "build" => {
                    if let Some((k, v)) = rest.split_once('=') {
                        info.settings.push((unquote(k), unquote(v)));
                    }
                }
                _ => {}
            }
        }
        info
    }
}

fn module(rest: &str) -> Module {
    let mut parts = rest.split('\t');
    let mut next = || parts.next().filter(|s| !s.is_empty()).map(str::to_owned);
    Module {
        path: next().unwrap_or_default(),
        version: next().unwrap_or_default(),
        sum: next(),
        replaced_by: None,
    }
}

/// Unquotes a setting: those with spaces, quotes or newlines are Go-quoted.
fn unquote(text: &str) -> String {
    if let Some(raw) = text.strip_prefix('`').and_then(|t| t.strip_suffix('`')) {
        return raw.to_owned();
    }
    let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) else {
        return text.to_owned();
    };
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    out
}

/// Returns the release string and the module text.
pub(super) fn locate(image: &Image) -> Result<(&str, &str), Error> {
    let at = find(image).ok_or(Error::NotGo)?;
    let blob = image.rest_of_segment(at).ok_or(Error::NotGo)?;
    let flags = *blob.get(15).ok_or(Error::NotGo)?;
    let malformed = || Error::Malformed { what: "build information", at };
    let (version, text) = if flags & FLAG_INLINE != 0 {
        let mut rest = blob.get(32..).ok_or_else(malformed)?;
        let version = string(&mut rest, MAX_VERSION).ok_or_else(malformed)?;
        (version, string(&mut rest, MAX_TEXT).unwrap_or_default())
    } else {
        // Up to Go 1.17: pointers to two Go strings. Big-endian and 32-bit programs are not supported.
        let of = |pointer: u64, max| go_string(image, image.word(at.checked_add(pointer)?)?, max);
        (of(16, MAX_VERSION).ok_or_else(malformed)?, of(24, MAX_TEXT).unwrap_or_default())
    };
    // The linker wraps the text in two 16-byte sentinels, for tools that search memory.
    let text = text.get(16..text.len().saturating_sub(16)).unwrap_or_default();
    let version = std::str::from_utf8(version).map_err(|_| malformed())?;
    Ok((version, utf8_prefix(text)))
}

/// Returns the Go string whose header (address and length) is at `header`.
fn go_string(image: &Image, header: u64, max: u64) -> Option<&[u8]> {
    let (data, len) = (image.word(header)?, image.word(header.checked_add(STRING_LEN)?)?);
    image.raw(data, (len <= max).then_some(len)?)
}

fn utf8_prefix(text: &[u8]) -> &str {
    match std::str::from_utf8(text) {
        Ok(t) => t,
        Err(e) => std::str::from_utf8(&text[..e.valid_up_to()]).unwrap_or_default(),
    }
}

fn string<'a>(rest: &mut &'a [u8], max: u64) -> Option<&'a [u8]> {
    let len = u64::from(bytes::uvarint32(rest)?);
    let text = bytes::slice(rest, 0, (len <= max).then_some(len)?)?;
    *rest = &rest[text.len()..];
    Some(text)
}

fn find(image: &Image) -> Option<u64> {
    let is_magic = |at: u64| image.raw(at, 16).is_some_and(|b| b.starts_with(MAGIC));
    if let Some(s) = image.section(".go.buildinfo").filter(|s| is_magic(s.addr)) {
        return Some(s.addr);
    }
    // Without section headers: the blob is 16-byte aligned in a writable segment. Other segments are not
    // searched: a program that reads build information has the same bytes among its constants.
    image.writable_data().find_map(|(vaddr, data)| {
        let skip = vaddr.wrapping_neg() % 16;
        let chunks = data.get(skip as usize..)?.as_chunks::<16>().0;
        let at = chunks.iter().position(|c| c.starts_with(MAGIC))?;
        Some(vaddr + skip + 16 * at as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_go_version_m() {
        let info = BuildInfo::parse(
            "path\texample.com/a/cmd\nmod\texample.com/a\t(devel)\t\ndep\tb.org/b\tv1.0.0\th1:x=\n=>\t../b\t\t\n\
             dep\tc.org/c\tv2.0.0\th1:y=\nbuild\t-ldflags=\"-X 'main.v=\\\"1\\\"'\"\nbuild\tCGO_ENABLED=1\nodd\n",
        );
        assert_eq!(info.path.as_deref(), Some("example.com/a/cmd"));
        assert_eq!(
            info.main.as_ref().map(|m| (m.path.as_str(), m.version.as_str())),
            Some(("example.com/a", "(devel)"))
        );
        assert_eq!(info.deps.len(), 2);
        assert_eq!(info.deps[0].replaced_by.as_ref().map(|m| m.path.as_str()), Some("../b"));
        assert_eq!(info.deps[1].sum.as_deref(), Some("h1:y="));
        assert_eq!(info.setting("CGO_ENABLED"), Some("1"));
        assert_eq!(info.setting("-ldflags"), Some("-X 'main.v=\"1\"'"));
        assert_eq!(info.setting("vcs.revision"), None);
    }
}

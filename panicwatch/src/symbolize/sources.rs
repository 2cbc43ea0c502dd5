//! Lines of source files, read where a listing shows them.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
};

/// A longer source file is not read, bytes.
const MAX_SOURCE: u64 = 8 << 20;
/// Source files kept.
const MAX_FILES: usize = 64;

/// Source files on this machine, as far as there are any: binaries are looked at elsewhere than where they
/// were built.
#[derive(Debug, Default)]
pub struct SourceFiles {
    known: HashMap<String, Option<Vec<String>>>,
}

impl SourceFiles {
    /// A line of a file, counted from 1.
    pub fn line(&mut self, file: &str, line: u32) -> Option<String> {
        if !self.known.contains_key(file) {
            if self.known.len() >= MAX_FILES {
                self.known.clear();
            }
            self.known.insert(file.to_owned(), read(file));
        }
        let lines = self.known.get(file)?.as_ref()?;
        lines.get(usize::try_from(line).ok()?.checked_sub(1)?).cloned()
    }
}

/// The name comes from the binary: only a plain file of sane size, under an absolute path, is opened.
fn read(file: &str) -> Option<Vec<String>> {
    let meta = fs::metadata(file).ok().filter(|meta| file.starts_with('/') && meta.is_file())?;
    (meta.len() <= MAX_SOURCE).then_some(())?;
    let mut text = Vec::new();
    File::open(file).ok()?.take(MAX_SOURCE).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
}

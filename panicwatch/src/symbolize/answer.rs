//! Everything that is said of one address: frames, and on demand instructions and what raises there.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
};

use serde::Serialize;

use super::{Lookup, Resolved, Symbolizer, listing, text};
use crate::escape::one_line;

/// Instructions shown on each side.
const AROUND: usize = 6;
/// A longer source file is not read, bytes.
const MAX_SOURCE: u64 = 8 << 20;
/// Source files kept.
const MAX_FILES: usize = 64;

/// What is asked for besides frames.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The instructions around the address.
    pub listing: bool,
    /// What raises a panic there.
    pub raised_by: bool,
}

/// What is said of one address.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// Function, file, line.
    #[serde(flatten)]
    pub resolved: Resolved,
    /// The instructions around it, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<Vec<listing::Line>>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions_reason: Option<String>,
}

impl From<Resolved> for Answer {
    fn from(resolved: Resolved) -> Self {
        Self { resolved, instructions: None, instructions_reason: None }
    }
}

/// Answers for the run-time address `address`.
pub fn give(symbolizer: &Symbolizer<'_>, address: u64, lookup: Lookup, wanted: Wanted) -> Answer {
    let mut answer = Answer::from(symbolizer.resolve(address, lookup));
    if wanted.listing && answer.resolved.reason.is_none() {
        match listing::around(symbolizer, address, lookup, AROUND, AROUND) {
            Ok(lines) => answer.instructions = Some(lines),
            Err(reason) => answer.instructions_reason = Some(reason.to_string()),
        }
    }
    answer
}

impl Answer {
    /// For people.
    pub fn text(&self, sources: &mut SourceFiles) -> String {
        let mut out = text::resolved(&self.resolved);
        if let Some(lines) = &self.instructions {
            out += &text::listing(lines, &mut |file, line| sources.line(file, line));
        }
        if let Some(reason) = &self.instructions_reason {
            out += &format!("    no instructions: {}\n", one_line(reason));
        }
        out
    }
}

/// The line for something that is no address.
pub fn refusal(asked: &str, reason: &dyn std::fmt::Display) -> String {
    format!("{} ?? {}\n", one_line(asked), one_line(&reason.to_string()))
}

/// Source files on this machine, as far as there are any: binaries are looked at elsewhere than where they were built.
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

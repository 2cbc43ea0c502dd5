//! Documentation comments that say nothing: one or two words that are neither a unit nor a link.
//!
//! Knows lines; must not know Rust. As long as the tree has such comments, their number is a warning.

use super::{File, Remark};

/// Words that say what a number counts.
const UNITS: [&str; 19] = [
    "addresses",
    "bits",
    "bytes",
    "characters",
    "columns",
    "cores",
    "cpus",
    "days",
    "entries",
    "frames",
    "hours",
    "microseconds",
    "milliseconds",
    "nanoseconds",
    "ns",
    "pages",
    "percent",
    "records",
    "seconds",
];

/// Counts them and names the first.
pub(super) fn check(files: &[File]) -> Option<(String, Remark)> {
    let sources =
        files.iter().filter(|file| file.path.ends_with(".rs") && file.path.starts_with("panicwatch"));
    let found = sources.flat_map(|file| empty(&file.text).into_iter().map(move |line| (&file.path, line)));
    let found: Vec<(&String, usize)> = found.collect();
    let (path, line) = found.first()?;
    let what = format!(
        "line {line}: the first of {} doc comments of one or two words that are neither a unit nor a link",
        found.len()
    );
    Some(((*path).clone(), Remark::Warning(what)))
}

/// Numbers of the lines that such comments are on.
fn empty(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let alone = |at: &usize| {
        let beside = |at: Option<usize>| comment(at.and_then(|at| lines.get(at)).copied()).is_some();
        !beside(at.checked_sub(1)) && !beside(at.checked_add(1))
    };
    let says_nothing = |at: &usize| comment(lines.get(*at).copied()).is_some_and(is_empty);
    (0..lines.len()).filter(says_nothing).filter(alone).map(|at| at + 1).collect()
}

/// The text behind `///`.
fn comment(line: Option<&str>) -> Option<&str> {
    line?.trim_start().strip_prefix("///").map(str::trim)
}

fn is_empty(comment: &str) -> bool {
    let words: Vec<&str> = comment.split_whitespace().collect();
    let is_unit = |word: &&str| {
        let word = word.trim_end_matches(['.', ',']).to_lowercase();
        UNITS.contains(&word.as_str())
    };
    // What is no word: `code`, "text", a link.
    let is_more = comment.contains(['`', '"', '[', '<', '/']) || words.iter().any(is_unit);
    (1..=2).contains(&words.len()) && !is_more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Option<Remark> {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [file("panicwatch/src/a.rs", text), file("xtask/src/b.rs", "/// They.\n")];
        check(&files).map(|(_, remark)| remark)
    }

    #[test]
    fn one_or_two_words_are_counted() {
        let found = said("//! A.\n    /// They.\n    they: u8,\n/// The frame.\nframe: u8,\n");
        assert!(matches!(found, Some(Remark::Warning(what)) if what.starts_with("line 2: the first of 2 ")));
    }

    #[test]
    fn units_links_and_sentences_are_not() {
        for text in [
            "/// Nanoseconds.\n",
            "/// Lost bytes.\n",
            "/// See [`What`].\n",
            "/// <https://go.dev/x>\n",
            "/// `g.m`.\n",
            "/// Process that panicked.\n",
            "/// Errors\n/// of reading the file.\n",
            "//! A module.\n",
            "// Never mind.\n",
        ] {
            assert_eq!(said(text), None, "{text}");
        }
    }
}

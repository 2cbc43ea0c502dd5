//! Rules for comments: no doc comment of one or two words that adds nothing to the name, and no comment that
//! is wider than the code.
//!
//! Knows lines; must not know Rust.

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

/// `max_width` of rustfmt.toml, which rustfmt does not apply to comments.
const WIDTH: usize = 110;

/// Returns the remarks about the comments of a Rust file.
pub(super) fn check(file: &File) -> Vec<Remark> {
    let wide = file.text.lines().enumerate().filter(|(_, line)| is_too_wide(line)).map(|(at, line)| {
        format!("line {}: a comment of {} columns; {WIDTH} is the limit", at + 1, line.chars().count())
    });
    // In the files of the command line, doc comments are help texts.
    let is_help = file.path.starts_with("panicwatch/src/cli/");
    let short = empty(&file.text).into_iter().filter(|_| !is_help).map(|line| {
        format!("line {line}: a doc comment of one or two words that are neither a unit, a name nor a link")
    });
    wide.chain(short).map(Remark::Violation).collect()
}

/// Reports whether the line is a comment wider than code may be. A link cannot be broken.
fn is_too_wide(line: &str) -> bool {
    line.trim_start().starts_with("//") && line.chars().count() > WIDTH && !line.contains("://")
}

/// Returns the numbers of the lines with doc comments that say nothing.
fn empty(text: &str) -> Vec<usize> {
    let lines: Vec<&str> = text.lines().collect();
    let alone = |at: &usize| {
        let beside = |at: Option<usize>| comment(at.and_then(|at| lines.get(at)).copied()).is_some();
        !beside(at.checked_sub(1)) && !beside(at.checked_add(1))
    };
    let says_nothing = |at: &usize| comment(lines.get(*at).copied()).is_some_and(is_empty);
    (0..lines.len()).filter(says_nothing).filter(alone).map(|at| at + 1).collect()
}

/// Returns the text after `///`, if the line is a doc comment.
fn comment(line: Option<&str>) -> Option<&str> {
    line?.trim_start().strip_prefix("///").map(str::trim)
}

fn is_empty(comment: &str) -> bool {
    let words: Vec<&str> = comment.split_whitespace().collect();
    let is_unit = |word: &&str| {
        let word = word.trim_end_matches(['.', ',']).to_lowercase();
        UNITS.contains(&word.as_str())
    };
    // Names of flags, settings and foreign types: -l, kernel.perf_event_paranoid, perfetto.protos.Trace.
    let is_name = |word: &&str| {
        let word = word.trim_end_matches('.');
        word.starts_with('-') || word.contains(['.', '_', '%'])
    };
    let is_more =
        comment.contains(['`', '"', '[', '<', '/']) || words.iter().any(|it| is_unit(it) || is_name(it));
    (1..=2).contains(&words.len()) && !is_more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let file = File { path: "panicwatch/src/a.rs".to_owned(), text: text.to_owned() };
        let text = |remark| match remark {
            Remark::Violation(text) | Remark::Warning(text) => text,
        };
        check(&file).into_iter().map(text).collect()
    }

    #[test]
    fn one_or_two_words_are_rejected() {
        let found = found("//! A.\n    /// They.\n    they: u8,\n/// The frame.\nframe: u8,\n");
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("line 2: ") && found[1].starts_with("line 4: "), "{found:?}");
    }

    #[test]
    fn units_names_links_and_sentences_are_not() {
        for text in [
            "/// Nanoseconds.\n",
            "/// Lost bytes.\n",
            "/// See [`What`].\n",
            "/// <https://go.dev/x>\n",
            "/// `g.m`.\n",
            "/// -l\n",
            "/// perfetto.protos.Trace\n",
            "/// Process that panicked.\n",
            "/// Errors\n/// of reading the file.\n",
            "//! A module.\n",
            "// Never mind.\n",
        ] {
            assert_eq!(found(text), [] as [String; 0], "{text}");
        }
    }

    #[test]
    fn wide_comments_are_rejected() {
        let wide = "x".repeat(WIDTH - 3);
        assert!(found(&format!("// {wide}x\n"))[0].starts_with("line 1: a comment of 111 columns"));
        assert_eq!(found(&format!("// {wide}\nlet x = \"{wide}{wide}\";\n")), [] as [String; 0]);
        assert_eq!(found(&format!("// https://go.dev/{wide}\n")), [] as [String; 0]);
    }
}

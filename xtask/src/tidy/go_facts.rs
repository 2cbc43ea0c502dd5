//! Facts about Go have one place: what differs between releases has a name in `go::release`, and offsets into
//! Go's structs are in the layout table or, where all releases agree, in `panicwatch_common::go`.

use super::{
    File, Remark,
    rules::{code, violation},
};

/// The module that compares the numbers of Go's releases, and the one that parses them.
const RELEASES: [&str; 2] = ["panicwatch/core/src/go/release.rs", "panicwatch/core/src/go/gobin/version.rs"];
/// Where the rule on releases applies.
const RELEASE_SCOPE: [&str; 4] =
    ["panicwatch/src/", "panicwatch/core/src/", "panicwatch/tests/", "xtask/src/"];
/// Tests may select a release by its number; its behavior has a name for them, too.
const TESTS: &str = "panicwatch/tests/";

/// Reports whether the file has the tests of a module.
fn is_test(file: &File) -> bool {
    file.path.split(['/', '.']).any(|part| part == "tests")
}

/// Rejects comparisons of a minor release outside `go::release`.
pub(super) fn releases(file: &File) -> Vec<Remark> {
    let in_scope = RELEASE_SCOPE.iter().any(|folder| file.path.starts_with(folder));
    if !in_scope || RELEASES.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let selects = file.path.starts_with(TESTS) || is_test(file);
    code(file)
        .filter(|(_, line)| is_ordered(line) || (!selects && is_selected(line)))
        .map(|(at, _)| violation(at, "what differs between Go's releases has a name in go::release"))
        .collect()
}

/// The texts around each use of a name that is, or ends with, `minor`.
fn around(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices("minor").filter_map(move |(at, name)| {
        let behind = line[at + name.len()..].trim_start_matches("()").trim_start_matches(')');
        let before =
            line[..at].trim_end_matches(|c: char| is_word(c) || matches!(c, '.' | '(' | ')' | '&' | '*'));
        (!behind.starts_with(is_word)).then(|| (before.trim_end(), behind.trim_start()))
    })
}

fn is_ordered(line: &str) -> bool {
    let compares = |text: &str| text.starts_with('<') || (text.starts_with('>') && !text.starts_with(">>"));
    let compared = |text: &str| {
        let operator = [" <", " >", " <=", " >="].iter().any(|operator| text.ends_with(operator));
        operator && !text.ends_with("->")
    };
    around(line).any(|(before, behind)| compares(behind) || compared(before))
}

fn is_selected(line: &str) -> bool {
    let equals = |text: &str| ["==", "!="].iter().any(|it| text.starts_with(it) || text.ends_with(it));
    let matched = |before: &str| before.ends_with("match") || before.ends_with("matches!");
    line.contains(concat!("Release::", "new("))
        || around(line).any(|(before, behind)| equals(behind) || equals(before) || matched(before))
        || line
            .split(".contains(&")
            .skip(1)
            .any(|rest| inside(rest).ends_with("minor()") || inside(rest) == "minor")
}

/// The layout table.
const TABLE: [&str; 2] = ["panicwatch/core/src/go/gobin/offsets.rs", "panicwatch/core/src/go/gobin/offsets/"];
/// Where the rule on constants applies, and where the one on reads does.
const OFFSET_SCOPE: [&str; 3] = ["panicwatch/src/", "panicwatch/core/src/", "panicwatch-ebpf/src/"];
const READ_SCOPE: [&str; 3] =
    ["panicwatch/core/src/go/", "panicwatch/core/src/capture/", "panicwatch-ebpf/src/"];
/// Beginnings of the names of constants that are offsets into a struct of Go or into a signal's context.
const STRUCTS: [&str; 15] = [
    "G_",
    "M_",
    "P_",
    "PANIC_",
    "DEFER_",
    "SCHED_",
    "GOBUF_",
    "SUDOG_",
    "HCHAN_",
    "HMAP_",
    "BUCKET_",
    "ITAB_",
    "TYPE_",
    "MODULEDATA_",
    "UCONTEXT_",
];
/// Functions that read a target's memory.
const READS: [&str; 11] =
    ["word", "words", "byte", "bytes", "word32", "word_or_zero", "head_of_g", "u8", "u16", "u32", "u64"];

/// Rejects numbers that are offsets into Go's structs outside the two places for them: constants that are
/// named like one, and reads of memory at an address plus a literal number.
pub(super) fn offsets(file: &File) -> Vec<Remark> {
    let within = |folders: &[&str]| folders.iter().any(|folder| file.path.starts_with(folder));
    if !within(&OFFSET_SCOPE) || within(&TABLE) || is_test(file) {
        return Vec::new();
    }
    let reads = within(&READ_SCOPE);
    code(file)
        .filter(|(_, line)| is_constant(line) || (reads && is_read(line)))
        .map(|(at, _)| {
            violation(at, "offsets into Go's structs are in gobin::offsets and panicwatch_common::go alone")
        })
        .collect()
}

/// Reports whether the line declares a constant that is named like an offset and has a number as its value.
fn is_constant(line: &str) -> bool {
    let item = line.trim_start();
    let item =
        item.strip_prefix("pub").map_or(item, |item| item.split_once(' ').map_or("", |(_, item)| item));
    let Some((name, value)) = item.strip_prefix("const ").and_then(|rest| rest.split_once('=')) else {
        return false;
    };
    let name = name.split(':').next().unwrap_or_default();
    // The size of a set, not of a struct.
    let counts = ["_WORDS", "_BYTES"].iter().any(|end| name.ends_with(end));
    let named = STRUCTS.iter().any(|start| name.starts_with(start)) || name.ends_with("_OFFSET");
    named && !counts && value.trim_start().starts_with(|c: char| c.is_ascii_digit())
}

/// Reports whether the line reads memory at an address plus a number. A multiple of a number is an index.
fn is_read(line: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let number = |text: &str| {
        let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
        digits.len() < text.len()
            && !text.starts_with('0')
            && !digits.starts_with(" *")
            && !digits.starts_with(is_word)
    };
    let added = |text: &str| {
        [" + ", "wrapping_add(", "wrapping_sub(", "checked_add("]
            .iter()
            .any(|operator| text.split(operator).skip(1).any(number))
    };
    let call = |(at, _): (usize, &str)| {
        let name = line[..at].rsplit(|c| !is_word(c)).next().unwrap_or_default();
        let arguments = inside(&line[at + 1..]);
        match name {
            "offset" => number(arguments),
            _ if READS.contains(&name) => {
                added(arguments) || arguments.rsplit_once(", ").is_some_and(|(_, last)| number(last))
            }
            _ => false,
        }
    };
    line.match_indices('(').any(call)
}

/// Returns the text up to the parenthesis that closes the one before it, or the whole if none does.
fn inside(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rule: fn(&File) -> Vec<Remark>, path: &str, line: &str) -> usize {
        rule(&File { path: path.to_owned(), text: format!("//! A.\n{line}\n") }).len()
    }

    #[test]
    fn a_comparison_of_a_release_is_found() {
        for line in [
            "if layout.minor >= 22 {",
            "if toolchain.minor() < SINCE {",
            "if 22 <= version.release.minor() {",
            "let old = u32::from(self.minor) < 21;",
        ] {
            for path in ["panicwatch/core/src/plan.rs", "panicwatch/tests/gobin.rs", "xtask/src/demo.rs"] {
                assert_eq!(found(releases, path, line), 1, "{path}: {line}");
            }
            assert_eq!(found(releases, RELEASES[0], line), 0, "{line}");
        }
        for line in [
            "match minor {",
            "matches!(release.minor(), 19 | 27)",
            "[19, 27].contains(&release.minor())",
            "if minor == 24 {",
            "if release != Release::new(24) {",
        ] {
            assert_eq!(found(releases, "panicwatch/src/inspect/mod.rs", line), 1, "{line}");
            assert_eq!(found(releases, "panicwatch/tests/gobin.rs", line), 0, "{line}");
        }
        for line in [
            "let (major, minor) = word().split_once(':')?;",
            "fn f(minor: u16) -> Release {",
            "let dev = (libc::major(meta.dev()), libc::minor(meta.dev()));",
            "write!(f, \"go1.{}\", self.minor())",
            "// if minor >= 22",
        ] {
            assert_eq!(found(releases, "panicwatch/src/host/procfs.rs", line), 0, "{line}");
        }
    }

    #[test]
    fn an_offset_outside_its_place_is_found() {
        for (path, line) in [
            ("panicwatch/src/probe/attach.rs", "const G_GOID_OFFSET: u64 = 152;"),
            ("panicwatch/src/watch/shares.rs", "pub(crate) const UCONTEXT_RIP: u64 = 40 + 16 * 8;"),
            ("panicwatch-ebpf/src/context.rs", "pub(crate) const G_M: u64 = 48;"),
            ("panicwatch-ebpf/src/context.rs", "let Some(hi) = read::word(g + 8) else {"),
            ("panicwatch-ebpf/src/memory/object.rs", "match read::byte(typ + 23).unwrap_or(0) {"),
            ("panicwatch-ebpf/src/goroutine.rs", "let g = read::word(top.wrapping_sub(8))?;"),
            ("panicwatch/core/src/go/value/place.rs", "let len = self.offset(8).word(memory)?;"),
            ("panicwatch/core/src/go/gotype/method.rs", "self.memory.u32(at.wrapping_add(4)).ok_or(e)?"),
            ("panicwatch/core/src/capture/correlate/ancestry.rs", "let len = view.word(slice, 8);"),
        ] {
            assert_eq!(found(offsets, path, line), 1, "{path}: {line}");
            assert_eq!(found(offsets, "panicwatch/core/src/go/gobin/offsets/rows.rs", line), 0, "{line}");
            assert_eq!(found(offsets, "panicwatch-common/src/go.rs", line), 0, "{line}");
        }
    }

    #[test]
    fn other_numbers_are_no_offsets() {
        for line in [
            "const G_WORDS: usize = 21;",
            "const NO_OFFSET: u32 = u32::MAX;",
            "let task = self.word(list.wrapping_add(8 * i))?;",
            "let hi = read::word(g + G_STACK_HI);",
            "let first = view.word(slice, 0);",
            "let n = u64::from(x + 8);",
            "pos = pos.wrapping_add(1);",
            "// read::word(g + 8)",
        ] {
            assert_eq!(found(offsets, "panicwatch/core/src/go/value/place.rs", line), 0, "{line}");
        }
    }
}

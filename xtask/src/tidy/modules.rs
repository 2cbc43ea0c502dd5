//! The modules of panicwatch's crates: none imports itself by way of others, and each is on ARCHITECTURE.md's
//! map.
//!
//! Knows paths as they are written (`crate::…`, `super::…`), in `use` and elsewhere; must not know types.
//! Tests may import what they like.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{File, Remark};

/// The folders of the crates that have rooms.
const CRATES: [&str; 2] = ["panicwatch/src/", "panicwatch/core/src/"];
const MAP: &str = "ARCHITECTURE.md";

/// What each top-level module imports of the others, and a file that does.
type Imports<'a> = BTreeMap<&'a str, BTreeMap<String, &'a str>>;

/// Rejects circles of imports and modules that the map does not name.
pub(super) fn check(files: &[File]) -> Vec<(String, Remark)> {
    let map = files.iter().find(|file| file.path == MAP).map(|file| named(&file.text)).unwrap_or_default();
    let mut remarks = Vec::new();
    for folder in CRATES {
        let imports = imports(folder, files);
        for (module, ours) in &imports {
            if !map.contains(*module) {
                let what = format!("the code map does not name the module {module} of {folder}");
                remarks.push((MAP.to_owned(), Remark::Violation(what)));
            }
            // Each circle is reported once, by its first module.
            let Some(circle) = circle(module, &imports) else { continue };
            if circle.iter().all(|member| *module <= member.as_str()) {
                let what = format!("a circle of imports: {} -> {module}", circle.join(" -> "));
                let at = circle.get(1).and_then(|next| ours.get(next)).copied().unwrap_or(folder);
                remarks.push((at.to_owned(), Remark::Violation(what)));
            }
        }
    }
    remarks
}

/// The modules in the first column of the map's table: `a`, and of `a::b` both.
fn named(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix('|')?.split('|').next());
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    names.filter_map(|name| name.split("::").next()).map(str::to_owned).collect()
}

fn imports<'a>(folder: &str, files: &'a [File]) -> Imports<'a> {
    let mut modules: BTreeMap<&str, Vec<(&File, Vec<&str>)>> = BTreeMap::new();
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        let Some(path) = file.path.strip_prefix(folder).and_then(|path| path.strip_suffix(".rs")) else {
            continue;
        };
        let mut segments: Vec<&str> = path.split('/').collect();
        if segments.last() == Some(&"mod") {
            segments.pop();
        }
        if segments == ["lib"] || segments == ["main"] {
            continue;
        }
        if let Some(module) = segments.first() {
            modules.entry(module).or_default().push((file, segments));
        }
    }
    let mut imports = Imports::new();
    for (module, files) in &modules {
        let ours = imports.entry(module).or_default();
        for (file, path) in files {
            // Its tests, in a file of their own.
            if path.contains(&"tests") {
                continue;
            }
            for target in targets(&code(&file.text), path) {
                if target != *module && modules.contains_key(target.as_str()) {
                    ours.entry(target).or_insert(&file.path);
                }
            }
        }
    }
    imports
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let tests = lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'));
        if line == "#[cfg(test)]" && tests {
            break;
        }
        if !line.trim_start().starts_with("//") {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// The top-level modules or items that paths in the code of the module `path` begin with.
fn targets(code: &str, path: &[&str]) -> BTreeSet<String> {
    let tokens = tokens(code);
    let mut found = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = |n: usize| at.checked_sub(n).map(|i| tokens[i]);
        let of_visibility = before(1) == Some("in") && before(2) == Some("(");
        if before(1) == Some("::") || of_visibility || tokens.get(at + 1) != Some(&"::") {
            continue;
        }
        let base = match *token {
            "crate" => Vec::new(),
            "super" => path.iter().take(path.len().saturating_sub(1)).copied().collect(),
            _ => continue,
        };
        follow(&tokens, at + 2, base, &mut found);
    }
    found
}

/// Follows a path, or all of a group, from the token `at`; returns the token behind.
fn follow<'a>(
    tokens: &[&'a str],
    mut at: usize,
    mut base: Vec<&'a str>,
    found: &mut BTreeSet<String>,
) -> usize {
    loop {
        match tokens.get(at).copied() {
            Some("super") => drop(base.pop()),
            Some("{") => {
                at += 1;
                while let Some(token) = tokens.get(at).copied() {
                    match token {
                        "}" => return at + 1,
                        "," => at += 1,
                        // A name that is given here and means nothing elsewhere.
                        "as" => at += 2,
                        _ => at = follow(tokens, at, base.clone(), found).max(at + 1),
                    }
                }
                return at;
            }
            Some(name) => {
                base.push(name);
                found.insert(base[0].to_owned());
            }
            None => return at,
        }
        at += 1;
        if tokens.get(at) != Some(&"::") {
            return at;
        }
        at += 1;
    }
}

/// Words, `::`, and every other character by itself.
fn tokens(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            ':' if rest.starts_with("::") => 2,
            _ => first.len_utf8(),
        };
        let (token, behind) = rest.split_at(length);
        tokens.push(token);
        rest = behind.trim_start();
    }
    tokens
}

/// The shortest way from a module back to itself.
fn circle(module: &str, imports: &Imports<'_>) -> Option<Vec<String>> {
    let mut ways = VecDeque::from([vec![module.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in imports.get(way.last()?.as_str())?.keys() {
            if next == module {
                return Some(way);
            }
            if seen.insert(next.clone()) {
                ways.push_back([way.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of modules `a` and `b`, both on the map, and of what else is given.
    fn said(sources: &[(&str, &str)]) -> Vec<String> {
        let file = |path: String, text: &str| File { path, text: text.to_owned() };
        let map = "| module | knows |\n|---|---|\n| `a`, `b` | letters |\n| `c::d` | more |\n";
        let mut files = vec![file(MAP.to_owned(), map)];
        files.extend(sources.iter().map(|(path, text)| file(format!("panicwatch/src/{path}"), text)));
        let remarks = check(&files).into_iter().map(|(path, remark)| match remark {
            Remark::Violation(what) | Remark::Warning(what) => format!("{path}: {what}"),
        });
        remarks.collect()
    }

    #[test]
    fn a_circle_is_rejected_however_the_paths_are_written() {
        let back = "use crate::{x, a::{self, A}};\n";
        for there in [
            "use crate::b::B;\n",
            "use crate::{\n    b::{self, B},\n};\n",
            "fn f() -> crate::b::B {}\n",
            "use super::b;\n",
            "use crate::{b as c};\n",
            "pub use super::{x, b::B};\n",
        ] {
            let found = said(&[("a.rs", there), ("b/c.rs", back)]);
            assert_eq!(found, ["panicwatch/src/a.rs: a circle of imports: a -> b -> a"], "{there}");
        }
        let deep = said(&[("a/x/y.rs", "use super::super::super::b;\n"), ("b/mod.rs", back)]);
        assert_eq!(deep, ["panicwatch/src/a/x/y.rs: a circle of imports: a -> b -> a"]);
        let three = [("a.rs", "use crate::b;\n"), ("b.rs", "use crate::c;\n"), ("c.rs", "use crate::a;\n")];
        assert_eq!(said(&three), ["panicwatch/src/a.rs: a circle of imports: a -> b -> c -> a"]);
    }

    #[test]
    fn what_is_no_import_makes_no_circle() {
        for there in [
            "// use crate::b;\n/// See [`crate::b`].\n",
            "pub(crate) fn b() {}\npub(in crate::b) fn c() {}\n",
            "use crate::{c as b};\n",
            "use self::b::B;\nuse std::b;\nuse other::{crate_b, b};\n",
            "#[cfg(test)]\nmod tests {\n    use crate::b;\n}\n",
        ] {
            assert_eq!(said(&[("a.rs", there), ("b.rs", "use crate::a;\n")]), [""; 0], "{there}");
        }
        // A child is not its parent's neighbour, and tests may import what they like.
        let children =
            [("a/b.rs", "use super::b;\n"), ("a/tests.rs", "use crate::b;\n"), ("b.rs", "use crate::a;\n")];
        assert_eq!(said(&children), [""; 0]);
    }

    #[test]
    fn tests_of_a_folder_do_not_hide_the_code_behind_them() {
        let text = "#[cfg(test)]\nmod tests;\nuse crate::b;\n";
        assert_eq!(said(&[("a.rs", text), ("b.rs", "use crate::a;\n")]).len(), 1);
    }

    #[test]
    fn a_module_is_on_the_map() {
        let found = said(&[("lib.rs", ""), ("main.rs", ""), ("c/mod.rs", ""), ("d.rs", "")]);
        assert_eq!(found, ["ARCHITECTURE.md: the code map does not name the module d of panicwatch/src/"]);
    }
}

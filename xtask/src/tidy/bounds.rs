//! Checks that a test crosses each bound of the eBPF programs.
//!
//! The programs limit what they copy, follow and hold, and a bound that no test crosses hides what happens
//! beyond it. The comment of such a constant or map contains "Crossed by `TEST`", where `TEST` is text that
//! occurs in the tests.

use super::{File, Remark};

/// Source folders of the programs, and of what they share with user space.
const PROGRAMS: [&str; 2] = ["panicwatch-ebpf/src/", "panicwatch-common/src/"];
const TESTS: &str = "panicwatch/tests/";
const CROSSED: &str = "Crossed by `";
/// Marker in the comment of a constant that code compares with but that limits nothing.
const NO_BOUND: &str = "No bound: ";

/// Warns about bounds whose comment names no test, and rejects names of tests that do not exist.
pub(super) fn check(files: &[File]) -> Vec<(String, Remark)> {
    let (programs, others): (Vec<&File>, Vec<&File>) = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .partition(|file| PROGRAMS.iter().any(|of| file.path.starts_with(of)));
    let tests: Vec<&File> = others.into_iter().filter(|file| file.path.starts_with(TESTS)).collect();
    let mut remarks = Vec::new();
    for file in &programs {
        for (line, name, comment) in declarations(&file.text) {
            let said = match comment.split_once(CROSSED).and_then(|(_, rest)| rest.split_once('`')) {
                Some((test, _)) if tests.iter().any(|file| file.text.contains(test)) => continue,
                Some((test, _)) => Remark::Violation(format!(
                    "line {line}: no test contains `{test}`, which is to cross {name}"
                )),
                None if comment.contains(NO_BOUND) => continue,
                None if programs.iter().any(|file| is_bound(&file.text, name)) => {
                    Remark::Warning(format!("line {line}: no test is known to cross the bound {name}"))
                }
                None => continue,
            };
            remarks.push((file.path.clone(), said));
        }
    }
    remarks
}

/// Returns constants and maps: line, name, and the comment in front of each.
fn declarations(text: &str) -> Vec<(usize, &str, String)> {
    let mut out = Vec::new();
    let mut comment = String::new();
    for (at, line) in text.lines().enumerate() {
        if let Some(more) = line.strip_prefix("///") {
            comment.push_str(more);
            continue;
        }
        let item = line.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
        let name = item.strip_prefix("const ").or_else(|| item.strip_prefix("static "));
        if let Some((name, _)) = name.and_then(|rest| rest.split_once(':')).filter(|(name, _)| *name != "_") {
            out.push((at + 1, name, comment.clone()));
        }
        if !line.starts_with("#[") {
            comment.clear();
        }
    }
    out
}

/// Reports whether the constant ends a loop or limits a length, or whether the map has its own number of
/// entries.
fn is_bound(text: &str, name: &str) -> bool {
    let whole_word = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let limits = ["..", " > "].iter().any(|before| {
        let pattern = format!("{before}{name}");
        text.match_indices(&pattern).any(|(at, _)| whole_word(&text[at + pattern.len()..]))
    });
    let entries = text
        .lines()
        .filter(|line| line.contains(&format!("static {name}:")) && !line.contains("PerCpuArray"))
        .filter_map(|line| line.split_once("with_max_entries("))
        .any(|(_, rest)| !rest.starts_with("1,") && !rest.starts_with("REASONS"));
    limits || entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(program: &str) -> Vec<Remark> {
        let file = |path: &str, text: &str| File { path: path.to_owned(), text: text.to_owned() };
        let files = [
            file("panicwatch-ebpf/src/memory.rs", program),
            file("panicwatch/tests/live/bounds.rs", "shape(\"bound of labels\")"),
        ];
        check(&files).into_iter().map(|(_, remark)| remark).collect()
    }

    #[test]
    fn a_bound_names_the_test_that_crosses_it() {
        let lacking = "/// Most labels.\nconst LIST: u64 = 64;\nfor i in 0..LIST {\n";
        assert!(matches!(&said(lacking)[..], [Remark::Warning(what)] if what.contains("LIST")));
        let crossed = lacking.replace("labels.", "labels. Crossed by `bound of labels`.");
        assert_eq!(said(&crossed), []);
        let invented = lacking.replace("labels.", "labels. Crossed by `bound of wishes`.");
        assert!(
            matches!(&said(&invented)[..], [Remark::Violation(what)] if what.contains("bound of wishes"))
        );
    }

    #[test]
    fn maps_are_bounds_and_other_constants_are_not() {
        let map =
            "/// Full: lost.\n#[map]\nstatic M: HashMap<u32, u32> = HashMap::with_max_entries(8192, 0);\n";
        assert!(matches!(&said(map)[..], [Remark::Warning(what)] if what.contains("bound M")));
        assert_eq!(said("/// A kind.\nconst KIND: u64 = 22;\nif kind == KIND {}\n"), []);
        assert_eq!(said("static M: Array<u32> = Array::with_max_entries(1, 0);\n"), []);
    }
}

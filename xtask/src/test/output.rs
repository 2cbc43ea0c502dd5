//! Parses the output of a test program, in the format of Rust's own harness and of libtest-mimic.
//!
//! A test counts as skipped if the harness reports it as `ignored`, or if it passed but printed a line
//! `skipped: <reason>`: Rust's harness offers no other way to skip a test at run time. A line
//! `SKIPPED <what>: <reason>` reports a skipped part, which is counted in addition to the test that passed
//! without it.

use std::collections::BTreeMap;

use super::tally::Tally;

/// Maximum number of characters of a failed test's output that the summary repeats.
const REASON_LENGTH: usize = 400;

/// Result of one test.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Passed,
    Failed,
    Skipped(String),
}

/// Parser state for one program's output.
pub(super) struct Reader {
    program: String,
    ends: BTreeMap<String, End>,
    /// Parts of tests that were skipped, and why.
    parts: Vec<(String, String)>,
    /// Beginning of the output of each failed test, by test name.
    reasons: BTreeMap<String, String>,
    /// The test whose captured output is being printed.
    block: Option<String>,
    /// Whether the closing line was seen.
    complete: bool,
}

/// Whether to show a line to the user.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Show {
    Line,
    Nothing,
}

impl Reader {
    pub(super) fn new(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            ends: BTreeMap::new(),
            parts: Vec::new(),
            reasons: BTreeMap::new(),
            block: None,
            complete: false,
        }
    }

    /// Returns the number of tests that have ended.
    pub(super) fn ended(&self) -> usize {
        self.ends.len()
    }

    /// Parses the next line; returns whether to show it.
    pub(super) fn line(&mut self, line: &str) -> Show {
        if let Some((name, end)) = test_end(line) {
            let show = if end == End::Passed { Show::Nothing } else { Show::Line };
            self.ends.insert(name, end);
            return show;
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.split(" stdout ----").next()) {
            self.block = Some(name.trim_end_matches(" ----").to_owned());
        } else if line == "failures:" {
            self.block = None;
        } else if line.starts_with("test result:") {
            self.complete = true;
            return Show::Line;
        } else if let (Some(name), Some(why)) = (&self.block, line.strip_prefix("skipped: "))
            && let Some(end @ End::Passed) = self.ends.get_mut(name)
        {
            *end = End::Skipped(why.to_owned());
            return Show::Line;
        }
        if let (Some(name), Some(part)) = (&self.block, line.strip_prefix("SKIPPED ")) {
            let (what, why) = part.split_once(": ").unwrap_or((part, "no reason given"));
            self.parts.push((format!("{name}, {what}"), why.to_owned()));
            return Show::Line;
        }
        self.note_reason(line);
        match &self.block {
            // Captured output matters only if the test failed.
            Some(name) if self.ends.get(name) != Some(&End::Failed) => Show::Nothing,
            _ if line.is_empty() || line == "successes:" || line.starts_with("running ") => Show::Nothing,
            _ => Show::Line,
        }
    }

    /// Keeps the beginning of a failed test's output for the summary.
    fn note_reason(&mut self, line: &str) {
        let heading = line.is_empty() || line.starts_with("---- ");
        let failed = |name: &&String| !heading && self.ends.get(*name) == Some(&End::Failed);
        if let Some(name) = self.block.as_ref().filter(failed) {
            let reason = self.reasons.entry(name.clone()).or_default();
            let room = REASON_LENGTH.saturating_sub(reason.chars().count());
            let separator = if reason.is_empty() { "" } else { " / " };
            reason.extend(separator.chars().chain(line.trim().chars()).take(room));
        }
    }

    /// Returns the counts; `success` and `how` describe how the program ended.
    pub(super) fn finish(self, success: bool, how: &str) -> Tally {
        let mut tally = Tally::default();
        let program = &self.program;
        for (name, end) in &self.ends {
            match end {
                End::Passed => tally.pass(1),
                End::Failed => {
                    let why = self.reasons.get(name).map_or("", String::as_str);
                    tally.fail(&format!("{program}: {name}"), why);
                }
                End::Skipped(why) => tally.skip(&format!("{program}: {name}"), why),
            }
        }
        for (name, why) in &self.parts {
            tally.skip(&format!("{program}: {name}"), why);
        }
        if !self.complete || (!success && tally.failed() == 0) {
            tally.fail(program, &format!("ended before its tests did ({how})"));
        }
        tally
    }
}

/// Parses `test NAME ... ok`, `... FAILED` and `... ignored, WHY`; libtest-mimic pads names and adds
/// `[kind]`.
fn test_end(line: &str) -> Option<(String, End)> {
    let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let name = name.trim().to_owned();
    let end = match result.trim() {
        "FAILED" => End::Failed,
        ignored if ignored.starts_with("ignored") => {
            // `ignored, WHY`, or `ignored (WHY)` of libtest-mimic.
            let why = ignored.trim_start_matches("ignored").trim_start_matches([',', ' ']);
            let why = why.strip_prefix('(').and_then(|it| it.strip_suffix(')')).unwrap_or(why);
            End::Skipped(if why.is_empty() { "no reason given".to_owned() } else { why.to_owned() })
        }
        // `ok`, or `ok <0.1s>` if times are shown.
        ok if ok == "ok" || ok.starts_with("ok ") => End::Passed,
        // `should panic` and the like are part of the name.
        _ => return None,
    };
    Some((name, end))
}

#[cfg(test)]
mod tests {
    use super::{Reader, Show};

    fn read(text: &str, success: bool) -> String {
        let mut reader = Reader::new("it");
        for line in text.lines() {
            reader.line(line);
        }
        reader.finish(success, "exit status: 1").line()
    }

    #[test]
    fn counts_what_the_harness_says() {
        let text = "running 3 tests\ntest a ... ok\ntest b ... ignored, no BTF\ntest c ... FAILED\n\nfailures:\n\n\
                    ---- c stdout ----\nskipped: not this way\n\ntest result: FAILED. 1 passed; 1 failed; 1 ignored\n";
        assert_eq!(read(text, false), "1 passed, 1 failed, 1 skipped");
    }

    #[test]
    fn the_summary_tells_why() {
        let mut reader = Reader::new("it");
        let text = "test c ... FAILED\n\nfailures:\n\n---- c stdout ----\nthread 'c' panicked at c.rs:1:\nno\n\n\
                    failures:\n    c\n\ntest result: FAILED. 0 passed; 1 failed\n";
        text.lines().for_each(|line| {
            reader.line(line);
        });
        let tally = reader.finish(false, "exit status: 101");
        assert_eq!(
            tally.failures(),
            [("it: c".to_owned(), "thread 'c' panicked at c.rs:1: / no".to_owned())]
        );
    }

    #[test]
    fn a_printed_reason_makes_a_passed_test_a_skipped_one() {
        let text = "test a ... ok\ntest b ... ok\n\nsuccesses:\n\n---- b stdout ----\nskipped: no Go 1.19 here\n\n\
                    successes:\n    a\n    b\n\ntest result: ok. 2 passed; 0 failed\n";
        assert_eq!(read(text, true), "1 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_part_left_out_is_counted_beside_its_test() {
        let text = "test a ... ok\n\nsuccesses:\n\n---- a stdout ----\nSKIPPED go1.19: not here\n\n\
                    test result: ok. 1 passed; 0 failed\n";
        assert_eq!(read(text, true), "1 passed, 0 failed, 1 skipped");
    }

    #[test]
    fn a_program_that_dies_is_a_failure() {
        assert_eq!(read("test a ... ok\n", false), "1 passed, 1 failed, 0 skipped");
        assert_eq!(
            read("test a ... ok\ntest result: ok. 1 passed\n", false),
            "1 passed, 1 failed, 0 skipped"
        );
    }

    #[test]
    fn an_ellipsis_in_a_name_is_part_of_it() {
        let mut reader = Reader::new("it");
        assert_eq!(reader.line("test a ... b ... FAILED"), Show::Line);
        assert_eq!(reader.ended(), 1);
        assert_eq!(reader.line("test waits ... for something"), Show::Line);
        assert_eq!(reader.ended(), 1);
    }
}

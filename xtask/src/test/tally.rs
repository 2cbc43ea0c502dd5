//! Counts of passed, failed and skipped tests, with reasons.

use std::collections::BTreeMap;

use crate::shell;

/// Maximum number of tests that are listed for one skip reason.
const SHOWN: usize = 10;

/// Counts of a run.
#[derive(Default)]
pub(super) struct Tally {
    passed: usize,
    failures: Vec<(String, String)>,
    /// Skipped tests, by reason.
    skips: BTreeMap<String, Vec<String>>,
}

impl Tally {
    pub(super) fn pass(&mut self, tests: usize) {
        self.passed += tests;
    }

    pub(super) fn fail(&mut self, test: &str, why: &str) {
        self.failures.push((test.to_owned(), why.to_owned()));
    }

    pub(super) fn skip(&mut self, test: &str, why: &str) {
        self.skips.entry(why.to_owned()).or_default().push(test.to_owned());
    }

    pub(super) fn failed(&self) -> usize {
        self.failures.len()
    }

    #[cfg(test)]
    pub(super) fn failures(&self) -> &[(String, String)] {
        &self.failures
    }

    pub(super) fn skipped(&self) -> usize {
        self.skips.values().map(Vec::len).sum()
    }

    /// Adds another tally to this one.
    pub(super) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failures.extend(other.failures);
        for (why, tests) in other.skips {
            self.skips.entry(why).or_default().extend(tests);
        }
    }

    /// Returns `N passed, N failed, N skipped`.
    pub(super) fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed(), self.skipped())
    }

    /// Prints every skip reason, every failure, and finally the counts.
    pub(super) fn print(&self) {
        for (why, tests) in &self.skips {
            shell::say(&format!("skipped {}: {why}", tests.len()));
            for test in tests.iter().take(SHOWN) {
                shell::say(&format!("    {test}"));
            }
            if tests.len() > SHOWN {
                shell::say(&format!("    and {} more", tests.len() - SHOWN));
            }
        }
        for (test, why) in &self.failures {
            let separator = if why.is_empty() { "" } else { ": " };
            shell::say(&format!("FAILED {test}{separator}{why}"));
        }
        shell::say(&self.line());
    }
}

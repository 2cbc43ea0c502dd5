//! Results of the scenarios: one line each, the verdict, and the table in docs/reliability.md.

use std::{fmt::Write as _, fs};

use anyhow::{Context as _, Result, bail};

use super::End;
use crate::{paths, shell};

const BEGIN: &str = "<!-- figures: written by cargo xtask harm -->";
const FINISH: &str = "<!-- end of figures -->";

/// Results, in the order in which they were added.
#[derive(Default)]
pub(crate) struct Figures {
    rows: Vec<(String, String)>,
    failed: usize,
    skipped: usize,
}

impl Figures {
    /// Adds a result and prints it.
    pub(crate) fn add(&mut self, name: &str, end: Result<End>) {
        let text = match end {
            Ok(End::Passed(text)) => text,
            Ok(End::Skipped(why)) => {
                self.skipped += 1;
                format!("skipped: {why}")
            }
            Err(error) => {
                self.failed += 1;
                format!("FAILED: {error:#}")
            }
        };
        shell::say(&format!("{name}: {text}"));
        self.rows.push((name.to_owned(), text));
    }

    /// Replaces the table in docs/reliability.md.
    pub(crate) fn write(&self, seed: u64) -> Result<()> {
        let path = paths::root().join("docs/reliability.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        fs::write(&path, replace(&text, &self.table(seed))?).with_context(|| path.display().to_string())
    }

    fn table(&self, seed: u64) -> String {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut table =
            format!("Linux {}, seed {seed}.\n\n| scenario | result |\n|---|---|\n", kernel.trim());
        for (name, text) in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "| `{name}` | {} |", text.replace('|', "\\|").replace('\n', " "));
        }
        table
    }

    /// Prints the summary line; returns an error if a scenario failed.
    pub(crate) fn verdict(&self) -> Result<()> {
        let passed = self.rows.len() - self.failed - self.skipped;
        shell::say(&format!("\n{passed} passed, {} failed, {} skipped", self.failed, self.skipped));
        if self.rows.is_empty() {
            bail!("no such group or scenario: see the table GROUPS in xtask/src/harm/mod.rs");
        }
        if self.failed > 0 {
            bail!("{} scenarios failed", self.failed);
        }
        Ok(())
    }
}

/// Returns `document` with `table` between its two marker lines.
fn replace(document: &str, table: &str) -> Result<String> {
    let markers = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(FINISH)?;
        Some((before, after))
    });
    let Some((before, after)) = markers else {
        bail!("docs/reliability.md lacks the lines {BEGIN} and {FINISH}")
    };
    Ok(format!("{before}{BEGIN}\n\n{table}\n{FINISH}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, FINISH, replace};

    #[test]
    fn only_the_table_is_replaced() {
        let document = format!("a\n{BEGIN}\nold\n{FINISH}\nb\n");
        let new = replace(&document, "new\n").expect("both markers");
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{FINISH}\nb\n"));
        assert!(replace("no markers", "new").is_err());
    }
}

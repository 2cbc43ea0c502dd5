//! Results of the scenarios: one line each, the verdict, and the table in docs/reliability.md.

use std::fs;

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

    /// Writes the results into the table in docs/reliability.md. Rows of scenarios that did not run stay.
    pub(crate) fn write(&self, seed: u64) -> Result<()> {
        let path = paths::root().join("docs/reliability.md");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = release.trim().split('-').next().unwrap_or_default();
        let new: Vec<(String, String)> =
            self.rows.iter().map(|(name, text)| (name.clone(), row(name, seed, kernel, text))).collect();
        fs::write(&path, update(&text, &new)?).with_context(|| path.display().to_string())
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

/// Maximum length of a result in the table, in characters: that of a failure may quote a program's output.
const MAX_RESULT: usize = 300;

/// Returns the row of a scenario.
fn row(name: &str, seed: u64, kernel: &str, text: &str) -> String {
    let root = paths::root().display().to_string();
    let text = text.replace(&root, ".").replace('|', "\\|").replace('\n', " ");
    let text: String = text.chars().take(MAX_RESULT).collect();
    format!("| `{name}` | {text} | {seed} | {kernel} |")
}

/// Returns `document` with the rows `new`, by scenario, in the table between its two marker lines.
fn update(document: &str, new: &[(String, String)]) -> Result<String> {
    let parts = document.split_once(BEGIN).and_then(|(before, rest)| {
        let (table, after) = rest.split_once(FINISH)?;
        Some((before, table, after))
    });
    let Some((before, table, after)) = parts else {
        bail!("docs/reliability.md lacks the lines {BEGIN} and {FINISH}")
    };
    let name = |line: &str| line.strip_prefix("| `")?.split_once('`').map(|(name, _)| name.to_owned());
    let mut rows: Vec<(String, String)> =
        table.lines().filter_map(|line| Some((name(line)?, line.to_owned()))).collect();
    for (name, row) in new {
        match rows.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => known.clone_from(row),
            None => rows.push((name.clone(), row.clone())),
        }
    }
    let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
    let rows = rows.join("\n");
    Ok(format!(
        "{before}{BEGIN}\n\n| scenario | result | seed | Linux |\n|---|---|---|---|\n{rows}\n\n{FINISH}{after}"
    ))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, FINISH, row, update};

    #[test]
    fn rows_of_other_scenarios_stay() {
        let document = format!("a\n{BEGIN}\n| `x` | old | 1 | 6.1 |\n| `y` | old | 1 | 6.1 |\n{FINISH}\nb\n");
        let new = [("y".to_owned(), row("y", 2, "6.12", "a | b\nc")), ("z".to_owned(), "| `z` |".to_owned())];
        let table = "| scenario | result | seed | Linux |\n|---|---|---|---|\n| `x` | old | 1 | 6.1 |\n\
                     | `y` | a \\| b c | 2 | 6.12 |\n| `z` |";
        let updated = update(&document, &new).expect("both markers");
        assert_eq!(updated, format!("a\n{BEGIN}\n\n{table}\n\n{FINISH}\nb\n"));
        assert!(update("no markers", &new).is_err());
    }
}

//! Checks that panicwatch's reports match the program's own count.

use std::path::Path;

use anyhow::{Result, ensure};

use super::programs::{Ended, Reported, printed, stated};

/// Checks that the program ended as it does alone, and that its own count equals the number of panics
/// reported, counted or lost.
pub(super) fn adds_up(ended: &Ended, file: &Path, expected: u64) -> Result<String> {
    ensure!(ended.status == 7, "status {} in place of 7: {}{}", ended.status, ended.stdout, ended.stderr);
    let recovered = printed(ended, "recovered ")?;
    ensure!(recovered == expected, "the program recovered from {recovered} of {expected} panics");
    sums(recovered, &Reported::read(file)?, &ended.stderr)
}

/// Compares the number of recovered panics with the incidents and with panicwatch's final messages.
pub(super) fn sums(recovered: u64, reported: &Reported, stderr: &str) -> Result<String> {
    let counted = stated(stderr, " more panic");
    let lost = stated(stderr, " times, the event ring was full");
    let (caught, unknown) = (reported.of("recovered"), reported.of("unknown"));
    let others: u64 = reported.outcomes.values().sum::<u64>() - caught - unknown;
    ensure!(others == 0, "outcomes that did not happen: {:?}", reported.outcomes);
    ensure!(lost > 0 || unknown == 0, "unknown outcomes without a loss: {:?}; {stderr}", reported.outcomes);
    let seen = caught + unknown + counted;
    ensure!(
        seen == recovered || lost > 0 && seen < recovered,
        "{recovered} panics, {seen} reported: {stderr}"
    );
    Ok(format!(
        "{recovered} panics: {caught} reported, {unknown} unknown, {counted} counted, {lost} records lost"
    ))
}

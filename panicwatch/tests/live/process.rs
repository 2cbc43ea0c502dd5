//! Finds processes and their states in /proc.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Returns the process that runs the executable `exe` and descends from `ancestor`.
pub(crate) fn running(exe: &Path, ancestor: u32) -> Result<u32> {
    let mut found =
        fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    found
        .find(|pid| {
            *pid != ancestor
                && fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|e| e == exe)
                && descends(*pid, ancestor)
        })
        .with_context(|| format!("no process under {ancestor} runs {}", exe.display()))
}

/// Returns the children of `parent` that have not ended.
pub(crate) fn children(parent: u32) -> Result<Vec<u32>> {
    let all = fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    Ok(all.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect())
}

/// Returns the one-letter state: R, S, T (stopped), t (traced) …
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid)?.0
}

fn descends(mut pid: u32, ancestor: u32) -> bool {
    // Bounded: the process table changes while it is walked.
    for _ in 0..16 {
        match stat(pid) {
            Some((_, parent)) if parent == ancestor => return true,
            Some((_, parent)) if parent > 1 => pid = parent,
            _ => return false,
        }
    }
    false
}

/// Parses the state and the parent's PID: the fields after the command's name, which may contain spaces and
/// parentheses.
fn stat(pid: u32) -> Option<(Option<char>, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?.chars().next();
    Some((state, fields.next()?.parse().ok()?))
}

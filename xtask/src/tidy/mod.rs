//! `cargo xtask tidy`: checks house rules that no compiler checks.
//!
//! Checks the files that git tracks or would add. A rule takes a file and returns remarks: warnings are
//! printed, violations fail the task.

mod bounds;
mod comments;
mod go_facts;
mod links;
mod modules;
mod rules;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::{fs, str};

use anyhow::{Context, Result, bail};

use crate::{paths, shell};

/// A text file of the repository, with its path relative to the root.
struct File {
    path: String,
    text: String,
}

/// A rule's finding about a file.
#[derive(Debug, PartialEq, Eq)]
enum Remark {
    Warning(String),
    Violation(String),
}

/// Applies every rule to every file.
pub(crate) fn run() -> Result<()> {
    let names = file_names()?;
    let private = private_paths();
    let mut files = Vec::new();
    let mut remarks = Vec::new();
    for name in &names {
        let path = paths::root().join(name);
        // A deleted file that is still in the index, or a binary file: there is no text to check.
        let Ok(bytes) = fs::read(&path) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        let file = File { path: name.clone(), text };
        let of_file = rules::all(&file, &private).into_iter().chain(links::check(&file, &exists));
        remarks.extend(of_file.map(|remark| (name.clone(), remark)));
        files.push(file);
    }
    if files.is_empty() {
        bail!("tidy found no files: is {} a git work tree?", paths::root().display());
    }
    remarks.extend(bounds::check(&files));
    remarks.extend(modules::check(&files));
    let mut violations = 0;
    for (name, remark) in remarks {
        match remark {
            Remark::Warning(what) => shell::say(&format!("warning: {name}: {what}")),
            Remark::Violation(what) => {
                violations += 1;
                shell::say(&format!("error: {name}: {what}"));
            }
        }
    }
    if violations > 0 {
        bail!("tidy: {violations} violations of the house rules (CONTRIBUTING.md)");
    }
    shell::say(&format!("tidy: {} files in order", files.len()));
    Ok(())
}

/// Returns the paths of this clone and its cache. A short path (`/panicwatch`) is ignored, because it may be
/// part of others.
fn private_paths() -> Vec<String> {
    let paths = [Some(paths::root()), paths::cache().ok()].into_iter().flatten();
    paths.filter(|path| path.components().count() > 3).map(|path| path.display().to_string()).collect()
}

/// Reports whether a path relative to the root exists.
fn exists(path: &str) -> bool {
    paths::root().join(path).exists()
}

fn file_names() -> Result<BTreeSet<String>> {
    let mut git = Command::new("git");
    git.current_dir(paths::root()).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listing = shell::capture(&mut git).context("tidy asks git for the files")?;
    let names = listing.split('\0').filter(|name| !name.is_empty());
    Ok(names.map(PathBuf::from).map(|path| path.to_string_lossy().into_owned()).collect())
}

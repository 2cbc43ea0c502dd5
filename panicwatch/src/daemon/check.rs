//! Checks the files, directories, commands and URLs that a configuration names. Changes nothing.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{exporters, options};
use crate::{
    config::Config,
    hook::{self, Hook},
    http::server::Listeners,
};

/// `RuntimeDirectory` of deploy/systemd/panicwatch.service.
const RUNTIME: &str = "/run/panicwatch/";

/// Returns everything that would prevent the daemon from working, each as the path of its key
/// (`hook[1].command`) and a sentence.
pub fn check(config: &Config) -> Vec<(String, String)> {
    let mut found = places(config);
    let mut wrong = |path: &str, what: String| found.push((path.to_owned(), what));
    for (path, error) in Listeners::check(&config.http) {
        wrong(path, error.to_string());
    }
    if let Err(what) = options::select(&config.watch) {
        wrong("watch", what);
    }
    for (i, hook) in config.hook.iter().enumerate() {
        if let Err(what) = Hook::new(hook) {
            wrong(&format!("hook[{i}]"), format!("hook {}: {what}", hook.name));
        }
    }
    if let Err(error) = exporters::check_otlp(config) {
        wrong("otlp", error.to_string());
    }
    found
}

/// Returns problems that may be resolved by the time they matter: commands of hooks and directories that do
/// not exist.
pub(super) fn places(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut wrong = |path: String, problem: Result<(), String>| {
        if let Err(what) = problem {
            found.push((path, what));
        }
    };
    wrong("store.path".to_owned(), makeable(Path::new(&config.store.path)));
    if !config.jsonl.path.is_empty() && config.jsonl.path != "-" {
        wrong("jsonl.path".to_owned(), file_in_folder(Path::new(&config.jsonl.path)));
    }
    // systemd creates this directory when it starts the shipped unit.
    if !config.http.unix_socket.is_empty() && !config.http.unix_socket.starts_with(RUNTIME) {
        wrong("http.unix_socket".to_owned(), file_in_folder(Path::new(&config.http.unix_socket)));
    }
    for (i, hook) in config.hook.iter().enumerate() {
        if let Some(program) = hook.command.first() {
            let problem = command(program).map_err(|what| format!("hook {}: {what}", hook.name));
            wrong(format!("hook[{i}].command"), problem);
        }
    }
    found
}

/// Checks that the path is a directory, or that the daemon can create it.
fn makeable(path: &Path) -> Result<(), String> {
    let there = path.ancestors().find(|path| fs::symlink_metadata(path).is_ok());
    match there {
        Some(there) if !there.is_dir() => Err(format!("{} is not a directory", there.display())),
        _ => Ok(()),
    }
}

/// Checks that the file exists or can be created: the daemon does not create its directory.
fn file_in_folder(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err(format!("{} is a directory; name a file in it", path.display()));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match folder.is_dir() {
        true => Ok(()),
        false => Err(format!("there is no directory {}; create it", folder.display())),
    }
}

/// Checks that [`hook`] could start the program.
fn command(program: &str) -> Result<(), String> {
    let search = hook::search_path();
    let candidates: Vec<PathBuf> = match program.contains('/') {
        // Commands are started in the root directory.
        true => vec![Path::new("/").join(program)],
        false => search.split(':').map(|folder| Path::new(folder).join(program)).collect(),
    };
    let executable = |path: &&PathBuf| {
        fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if candidates.iter().any(|path| executable(&path)) {
        return Ok(());
    }
    match candidates.iter().find(|path| path.exists()) {
        Some(path) => Err(format!("{} is not executable", path.display())),
        None if program.contains('/') => Err(format!("there is no command {program}")),
        None => Err(format!("there is no command {program} in {search}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, folder) = (dir.path().join("file"), dir.path().join("folder"));
        fs::write(&file, "").expect("written");
        fs::create_dir(&folder).expect("made");
        assert_eq!(makeable(&folder), Ok(()));
        assert_eq!(makeable(&folder.join("a/b")), Ok(()), "the daemon makes it");
        assert!(makeable(&file).is_err_and(|what| what.ends_with("file is not a directory")));
        assert!(makeable(&file.join("a")).is_err());
        assert_eq!((file_in_folder(&file), file_in_folder(&folder.join("new"))), (Ok(()), Ok(())));
        assert!(file_in_folder(&folder).is_err() && file_in_folder(&folder.join("a/b")).is_err());
    }

    #[test]
    fn commands() {
        let dir = tempfile::tempdir().expect("a folder");
        let script = dir.path().join("script");
        fs::write(&script, "#!/bin/sh\n").expect("written");
        let path = script.display().to_string();
        assert!(command(&path).is_err_and(|what| what.ends_with("is not executable")));
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("changed");
        assert_eq!((command(&path), command("sh")), (Ok(()), Ok(())));
        assert!(command(&dir.path().display().to_string()).is_err(), "a folder is no command");
        assert!(command("panicwatch-no-such-command").is_err_and(|what| what.contains(" in ")));
        assert!(command("/no/such").is_err_and(|what| what == "there is no command /no/such"));
    }
}

//! What a running process adds: where the binary lies in it, and which other code it has mapped. Asks /proc.

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use super::facts::{MappedGo, ProcessFacts};
use crate::{
    gobin::{self, Error, GoBinary},
    incident::Addr,
    mappings::{self, Mapping},
    watch::procfs::{self, Executable},
};

/// Most other files that are looked into.
const MAX_FILES: usize = 256;

/// What process `pid`, which runs `exe`, adds to what is known of `bin`.
///
/// # Errors
/// When its mappings cannot be read.
pub fn facts(pid: u32, exe: &Executable, bin: Option<&GoBinary>) -> io::Result<ProcessFacts> {
    let maps = procfs::maps(pid)?;
    let bias = bin.and_then(|bin| mappings::load_bias(bin, &maps, &exe.file));
    let text = bin.zip(bias).map(|(bin, bias)| Addr(bin.text_start().wrapping_add(bias)));
    Ok(ProcessFacts {
        pid,
        deleted: exe.file.path.ends_with(" (deleted)"),
        load_bias: bias.map(Addr),
        text_start: text,
        mapped: others(pid, exe, &maps),
    })
}

/// Other files with code, in the order of their addresses, each once.
fn others(pid: u32, exe: &Executable, maps: &[Mapping]) -> Vec<MappedGo> {
    let own: BTreeSet<u64> = exe.file.mappings(maps).iter().map(|m| m.start).collect();
    let mut seen = BTreeSet::new();
    let code = maps.iter().filter(|m| m.is_file() && m.is_executable() && !own.contains(&m.start));
    code.filter(|m| seen.insert((m.dev, m.inode, m.path.clone())))
        .take(MAX_FILES)
        .map(|m| {
            let first = maps.iter().find(|other| (other.dev, other.inode) == (m.dev, m.inode)).unwrap_or(m);
            let (go_version, unreadable) = match version(pid, m) {
                Ok(version) => (version, None),
                Err(error) => (None, Some(error.to_string())),
            };
            MappedGo { path: m.path.clone(), start: Addr(first.start), go_version, unreadable }
        })
        .collect()
}

/// The release of a mapped file; `None` when it is not Go.
fn version(pid: u32, mapping: &Mapping) -> io::Result<Option<String>> {
    let path = openable(pid, mapping)?;
    match gobin::map(&path).and_then(gobin::identify) {
        Ok((version, _)) => Ok(Some(version.raw)),
        Err(Error::Io { source, .. }) => Err(source),
        Err(_) => Ok(None),
    }
}

/// A path that opens the very file. /proc/PID/map_files does, but asks for capabilities; else the name, as the process
/// sees it, if it is still the same file.
fn openable(pid: u32, mapping: &Mapping) -> io::Result<PathBuf> {
    let exact = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end));
    if fs::metadata(&exact).is_ok() {
        return Ok(exact);
    }
    let named = PathBuf::from(format!("/proc/{pid}/root{}", mapping.path));
    if fs::metadata(&named)?.ino() == mapping.inode {
        return Ok(named);
    }
    Err(io::Error::other("its path now leads to another file"))
}

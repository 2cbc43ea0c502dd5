//! Facts about a process that runs the binary: its load address, and other code that is mapped. Reads /proc.

use std::{collections::BTreeSet, fs, io, os::unix::fs::MetadataExt, path::PathBuf};

use super::facts::{MappedGo, ProcessFacts};
use crate::{
    gobin::{self, Error, GoBinary},
    host::procfs::{self, Executable},
    incident::Addr,
    mappings::{self, Mapping},
};

/// Maximum number of other files to examine.
const MAX_FILES: usize = 256;

/// Returns the facts about process `pid`, which runs the file `exe`; `bin` is that file, if it could be read.
///
/// # Errors
/// When the mappings of the process cannot be read.
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

/// Returns the other mapped files with code, once each, ordered by address.
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

/// Returns the Go version of a mapped file; `None` when it is not Go.
fn version(pid: u32, mapping: &Mapping) -> io::Result<Option<String>> {
    let path = openable(pid, mapping)?;
    match gobin::map(&path).and_then(gobin::identify) {
        Ok((version, _)) => Ok(Some(version.raw)),
        Err(Error::Io { source, .. }) => Err(source),
        Err(_) => Ok(None),
    }
}

/// Returns a path that opens exactly the mapped file. /proc/PID/map_files does, but requires capabilities;
/// otherwise the name as the process sees it, if the inode number still matches.
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

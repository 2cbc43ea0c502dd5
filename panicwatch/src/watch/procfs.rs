//! What /proc tells of a process, read when it is first seen. Anything may have vanished: that gives `None`.

use std::{collections::BTreeMap, fs, io, os::unix::fs::MetadataExt};

use crate::{
    gobin::GoBinary,
    incident::Process,
    mappings::{self, MappedFile},
};

/// The variables that shape how Go behaves (mission: GODEBUG and the like).
pub const GO_VARIABLES: [&str; 5] = ["GODEBUG", "GOTRACEBACK", "GOGC", "GOMAXPROCS", "GOMEMLIMIT"];

/// NUL-separated strings as text.
pub fn strings(block: &[u8]) -> Vec<String> {
    let block = block.strip_suffix(b"\0").unwrap_or(block);
    block.split(|b| *b == 0).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
}

/// The Go variables in an environment block.
pub fn go_variables(block: &[u8]) -> BTreeMap<String, String> {
    let entries = strings(block);
    let pairs = entries.iter().filter_map(|entry| entry.split_once('='));
    let known = pairs.filter(|(name, _)| GO_VARIABLES.contains(name));
    known.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Those of our own environment.
pub fn own_go_variables() -> BTreeMap<String, String> {
    let set = |name: &&str| std::env::var(name).ok().map(|value| ((*name).to_owned(), value));
    GO_VARIABLES.iter().filter_map(set).collect()
}

/// Reads what is there.
pub fn process(pid: u32) -> Process {
    let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).ok();
    Process {
        pid,
        exe: fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| path.to_string_lossy().into_owned()),
        args: read("cmdline").filter(|block| !block.is_empty()).map(|block| strings(&block)),
        env: read("environ").map(|block| go_variables(&block)),
        start_time: start_time(pid),
        ..Process::default()
    }
}

/// Bytes that process `pid` has its executable `bin` above its link addresses; `None` when it does not map it.
///
/// # Errors
/// When there is no such process, or it is not ours to read.
pub fn load_bias(pid: u32, bin: &GoBinary) -> io::Result<Option<u64>> {
    let link = format!("/proc/{pid}/exe");
    let meta = fs::metadata(&link)?;
    let dev = (libc::major(meta.dev()), libc::minor(meta.dev()));
    let path = fs::read_link(&link)?.to_string_lossy().into_owned();
    let file = MappedFile { path, dev, inode: meta.ino() };
    let maps = mappings::parse(&fs::read_to_string(format!("/proc/{pid}/maps"))?);
    Ok(mappings::load_bias(bin, &maps, &file))
}

/// Wall time at which process `pid` began, RFC 3339; to the clock tick of /proc/PID/stat.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22, counted after the parenthesised name, which may hold anything.
    let ticks: i64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    // SAFETY: plain library call.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1);
    let since_boot_ns = i128::from(ticks) * 1_000_000_000 / i128::from(per_second);
    crate::clock::Clock::boot_time_to_rfc3339(since_boot_ns)
}

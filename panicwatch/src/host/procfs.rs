//! Reads descriptions of processes from /proc. A process may end at any time, hence the `Option` and
//! `io::Result` values.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{MetadataExt, OpenOptionsExt as _},
    path::PathBuf,
};

use crate::{
    incident::Process,
    mappings::{self, MappedFile, Mapping},
};

/// Executable of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// `/proc/PID/exe`: opens the file that is being executed, even if it was deleted or replaced.
    pub link: PathBuf,
    /// Path from which it was started, followed by " (deleted)" if it no longer exists.
    pub shown: PathBuf,
    /// Identity, to find it among the mappings.
    pub file: MappedFile,
}

/// Returns the executable of `pid`.
///
/// # Errors
/// NotFound if there is no such process or it has no executable (a kernel thread, a process that has ended);
/// PermissionDenied for another user's process.
pub fn executable(pid: u32) -> io::Result<Executable> {
    let link = PathBuf::from(format!("/proc/{pid}/exe"));
    let shown = fs::read_link(&link)?;
    let meta = fs::metadata(&link)?;
    let dev = (libc::major(meta.dev()), libc::minor(meta.dev()));
    let file = MappedFile { path: shown.to_string_lossy().into_owned(), dev, inode: meta.ino() };
    Ok(Executable { link, shown, file })
}

/// Returns the PIDs of all processes.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the processes that execute the file `wanted` now, compared by inode.
pub fn running(wanted: &fs::File) -> Vec<u32> {
    let Ok(wanted) = wanted.metadata() else { return Vec::new() };
    let same = |pid: &u32| {
        let exe = fs::metadata(format!("/proc/{pid}/exe"));
        exe.is_ok_and(|exe| (exe.dev(), exe.ino()) == (wanted.dev(), wanted.ino()))
    };
    all().into_iter().filter(same).collect()
}

/// Returns the mappings of `pid`.
///
/// # Errors
/// Same as [`executable`].
pub fn maps(pid: u32) -> io::Result<Vec<Mapping>> {
    Ok(mappings::parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/maps"))?)))
}

/// Identity of a mapped file, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MappedId {
    /// Major and minor device number.
    dev: (u32, u32),
    inode: u64,
    /// Path in the process's mount namespace.
    pub path: PathBuf,
}

/// A file that a process has mapped as code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedCode {
    /// Identity of the file: the same in every process of one mount namespace that has mapped it.
    pub id: MappedId,
    /// Start and end address of one of its mappings.
    range: (u64, u64),
}

impl MappedCode {
    /// Opens the mapped file. Without the privilege to do so (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE), opens
    /// the file that now has its path, if that has the same inode number.
    /// <https://man7.org/linux/man-pages/man5/proc_pid_map_files.5.html>
    ///
    /// # Errors
    /// Fails if the file is not mapped any more or cannot be read.
    pub fn open(&self, pid: u32) -> io::Result<fs::File> {
        let (start, end) = self.range;
        let very = fs::File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}"));
        match very {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let path = self.id.path.strip_prefix("/").unwrap_or(&self.id.path);
                let path = PathBuf::from(format!("/proc/{pid}/root")).join(path);
                // The process may have put a FIFO there, on which a blocking open would wait.
                let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
                let meta = file.metadata()?;
                if !meta.is_file() || meta.ino() != self.id.inode {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "its path leads to another file"));
                }
                Ok(file)
            }
            very => very,
        }
    }
}

/// Returns the files that `pid` has mapped as code, each once.
///
/// # Errors
/// Same as [`executable`].
pub fn mapped_code(pid: u32) -> io::Result<Vec<MappedCode>> {
    let mut files: Vec<MappedCode> = Vec::new();
    for mapping in maps(pid)?.iter().filter(|mapping| mapping.is_executable() && mapping.is_file()) {
        let is_known = |file: &MappedCode| (file.id.dev, file.id.inode) == (mapping.dev, mapping.inode);
        if !files.iter().any(is_known) {
            let path = PathBuf::from(&mapping.path);
            let id = MappedId { dev: mapping.dev, inode: mapping.inode, path };
            files.push(MappedCode { id, range: (mapping.start, mapping.end) });
        }
    }
    Ok(files)
}

/// Environment variables that are recorded: those that change Go's behaviour, and OpenTelemetry's, which name
/// the service.
pub const GO_VARIABLES: [&str; 7] = [
    "GODEBUG",
    "GOTRACEBACK",
    "GOGC",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
];

/// Splits a block of NUL-separated strings.
pub fn strings(block: &[u8]) -> Vec<String> {
    let block = block.strip_suffix(b"\0").unwrap_or(block);
    block.split(|b| *b == 0).map(|s| String::from_utf8_lossy(s).into_owned()).collect()
}

/// Returns the variables of [`GO_VARIABLES`] in an environment block.
pub fn go_variables(block: &[u8]) -> BTreeMap<String, String> {
    let entries = strings(block);
    let pairs = entries.iter().filter_map(|entry| entry.split_once('='));
    let known = pairs.filter(|(name, _)| GO_VARIABLES.contains(name));
    known.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Returns the variables of [`GO_VARIABLES`] in our own environment.
pub fn own_go_variables() -> BTreeMap<String, String> {
    let set = |name: &&str| std::env::var(name).ok().map(|value| ((*name).to_owned(), value));
    GO_VARIABLES.iter().filter_map(set).collect()
}

/// Returns what /proc has on process `pid`.
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

/// Returns the start time of process `pid`, clock ticks since boot: identifies the process together with the
/// PID. `None` for a zombie.
pub fn started(pid: u32) -> Option<u64> {
    // A zombie has nothing left to inspect.
    stat(pid).filter(|(state, _)| state != "Z").map(|(_, start)| start)
}

/// Returns the state and the start time of process `pid`.
fn stat(pid: u32) -> Option<(String, u64)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Fields 3 and 22, counted from the end of the parenthesised name, which may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.to_owned(), fields.nth(18)?.parse().ok()?))
}

/// Returns our own resident memory in bytes.
pub fn own_resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    // SAFETY: sysconf has no preconditions.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some(pages * page)
}

/// Returns the effective user ID of process `pid`.
pub fn uid(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|meta| meta.uid())
}

/// Returns the wall time at which process `pid` started, RFC 3339, with the resolution of a clock tick.
fn start_time(pid: u32) -> Option<String> {
    let (_, ticks) = stat(pid)?;
    // SAFETY: sysconf has no preconditions.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1);
    let since_boot_ns = i128::from(ticks) * 1_000_000_000 / i128::from(per_second);
    crate::clock::boot_time_to_rfc3339(since_boot_ns)
}

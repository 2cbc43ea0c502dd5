//! Compares the code of running processes at probe sites with the file, to detect code that others have
//! modified.
//!
//! The kernel does not check this. At a debugger's breakpoint, attaching hides the breakpoint from the
//! debugger, and detaching removes it; where code was modified, the kernel executes the file's instruction
//! instead.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c> (verify_opcode, copy_insn)

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, Metadata},
    io::Read as _,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use crate::{escape, host::procfs, mappings::Mapping};

/// Most untraced processes that are compared: a probe or modification in one is usually in all.
const MAX_UNTRACED: usize = 4;
const PAGE: u64 = 4096;
/// Bytes read of a `status` file: enough for `TracerPid:`, which follows the name (up to 64 bytes, each
/// escaped as up to 4) and six short lines.
/// <https://github.com/torvalds/linux/blob/v6.12/fs/proc/array.c> (task_state)
const STATUS_HEAD: usize = 1024;

/// A process that has mapped the file as code.
pub(super) struct Running {
    pub(super) pid: u32,
    /// Process that traces it (ptrace).
    tracer: Option<u32>,
    memory: File,
    code: Vec<Mapping>,
    /// Cached page: its file offset, and its bytes in the process.
    page: Option<(u64, Vec<u8>)>,
}

/// What a process has in memory at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Same,
    Breakpoint,
    /// A call into the kernel's uprobe trampoline; never a debugger's.
    KernelProbe,
    Other,
}

/// Returns the processes that execute `file`, and traced processes that have mapped it as code.
pub(super) fn running(file: &File) -> Vec<Running> {
    let Ok(wanted) = file.metadata() else { return Vec::new() };
    let mut untraced = 0;
    let mut found = Vec::new();
    for pid in procfs::all() {
        // A kernel thread has no executable, and a process that has ended cannot be compared.
        let Ok(executable) = fs::metadata(format!("/proc/{pid}/exe")) else { continue };
        let runs = is_same(&wanted, &executable);
        let tracer = tracer(pid);
        if (!runs && tracer.is_none()) || (tracer.is_none() && untraced >= MAX_UNTRACED) {
            continue;
        }
        if let Some(running) = Running::open(pid, tracer, &wanted, runs) {
            untraced += usize::from(tracer.is_none());
            found.push(running);
        }
    }
    found
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Returns the process that traces `pid`.
fn tracer(pid: u32) -> Option<u32> {
    // The line is among the first ones, and the kernel formats the file anew for each read from its start.
    let mut status = [0; STATUS_HEAD];
    let n = File::open(format!("/proc/{pid}/status")).and_then(|mut file| file.read(&mut status)).ok()?;
    traced_by(status.get(..n)?)
}

/// Returns the process in the line `TracerPid:` of a `status` file.
fn traced_by(status: &[u8]) -> Option<u32> {
    let lines = status.split(|byte| *byte == b'\n');
    let tracer = lines.filter_map(|line| line.strip_prefix(b"TracerPid:")).next()?;
    str::from_utf8(tracer).ok()?.trim().parse().ok().filter(|tracer| *tracer != 0)
}

impl Running {
    fn open(pid: u32, tracer: Option<u32>, wanted: &Metadata, runs: bool) -> Option<Running> {
        let is_wanted = |mapping: &Mapping| {
            let (start, end) = (mapping.start, mapping.end);
            mapping.is_executable()
                && mapping.inode == wanted.ino()
                && (runs
                    || fs::metadata(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
                        .is_ok_and(|mapped| is_same(wanted, &mapped)))
        };
        let code: Vec<Mapping> = procfs::maps(pid).ok()?.into_iter().filter(is_wanted).collect();
        let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
        (!code.is_empty()).then_some(Running { pid, tracer, memory, code, page: None })
    }

    /// Returns `length` bytes of the process's memory at a file offset; `None` if it has not mapped them.
    /// Fast for ascending offsets.
    fn bytes(&mut self, offset: u64, length: usize) -> Option<Vec<u8>> {
        let mapping =
            self.code.iter().find(|m| (m.offset..m.offset + (m.end - m.start)).contains(&offset))?;
        let address = mapping.start + (offset - mapping.offset);
        let (page, at) = (offset - offset % PAGE, (offset % PAGE) as usize);
        if at + length > PAGE as usize {
            let mut bytes = vec![0; length];
            return self.memory.read_exact_at(&mut bytes, address).ok().map(|()| bytes);
        }
        if self.page.as_ref().is_none_or(|(cached, _)| *cached != page) {
            let mut bytes = vec![0; PAGE as usize];
            self.memory.read_exact_at(&mut bytes, address - at as u64).ok()?;
            self.page = Some((page, bytes));
        }
        Some(self.page.as_ref()?.1.get(at..at + length)?.to_vec())
    }

    /// Returns the sites where this process has a breakpoint; `sites` has each site's file offset and its
    /// bytes in the file.
    pub(super) fn breakpoints(&mut self, sites: &[(u64, Vec<u8>)]) -> BTreeSet<u64> {
        let has = |(offset, bytes): &&(u64, Vec<u8>)| {
            let here = self.bytes(*offset, bytes.len());
            here.is_some_and(|here| matches!(compare(bytes, &here), Found::Breakpoint | Found::KernelProbe))
        };
        sites.iter().filter(has).map(|(offset, _)| *offset).collect()
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn compare(file: &[u8], here: &[u8]) -> Found {
    const INT3: u8 = 0xcc;
    /// First byte of a 5-byte nop, and of the call that replaces it (Linux 6.18).
    const NOP_CALL: (u8, u8) = (0x0f, 0xe8);
    match (file.first(), here.first()) {
        _ if file == here => Found::Same,
        (_, Some(&INT3)) if file.get(1..) == here.get(1..) => Found::Breakpoint,
        (Some(nop), Some(call)) if (*nop, *call) == NOP_CALL && file.len() == 5 => Found::KernelProbe,
        _ => Found::Other,
    }
}

#[cfg(target_arch = "aarch64")]
fn compare(file: &[u8], here: &[u8]) -> Found {
    let brk = |bytes: &[u8]| {
        bytes.first_chunk().is_some_and(|word| u32::from_le_bytes(*word) & 0xffe0_001f == 0xd420_0000)
    };
    match () {
        () if file == here => Found::Same,
        () if brk(here) => Found::Breakpoint,
        () => Found::Other,
    }
}

/// Returns the sites that must not be probed now, each with the reason. `sites` has file offsets, ascending,
/// with the file's bytes; `ours` returns the sites where instances of panicwatch have probes.
pub(super) fn refused(
    file: &File,
    sites: &[(u64, Vec<u8>)],
    ours: impl FnOnce() -> BTreeSet<u64>,
) -> BTreeMap<u64, String> {
    let mut refused = BTreeMap::new();
    let (mut probes, mut debuggers) = (BTreeSet::new(), BTreeMap::new());
    for process in &mut running(file) {
        for (offset, bytes) in sites {
            let Some(here) = process.bytes(*offset, bytes.len()) else { continue };
            match (compare(bytes, &here), process.tracer) {
                (Found::Same, _) => {}
                (Found::Breakpoint, Some(tracer)) => {
                    debuggers.insert(*offset, (process.pid, tracer));
                }
                (Found::Breakpoint | Found::KernelProbe, _) => {
                    probes.insert(*offset);
                }
                (Found::Other, _) => {
                    let reason = format!("process {} has modified its code there", process.pid);
                    refused.insert(*offset, reason);
                }
            }
        }
    }
    if debuggers.is_empty() {
        return refused;
    }
    probes.extend(ours());
    for (offset, (pid, tracer)) in debuggers {
        if !probes.contains(&offset) {
            let name = fs::read_to_string(format!("/proc/{tracer}/comm")).unwrap_or_default();
            let name = escape::one_line(name.trim_end());
            let reason = format!("{name} (process {tracer}) has a breakpoint there in process {pid}");
            refused.insert(offset, reason);
        }
    }
    refused
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_at_a_site() {
        let (nop, push) = ([0x0f, 0x1f, 0x44, 0, 0], [0x48, 0x89, 0xe5]);
        assert_eq!(compare(&push, &push), Found::Same);
        assert_eq!(compare(&push, &[0xcc, 0x89, 0xe5]), Found::Breakpoint);
        assert_eq!(compare(&push, &[0xcc, 0, 0xe5]), Found::Other, "more than its first byte differs");
        assert_eq!(compare(&push, &[0x48, 0x89, 0xe4]), Found::Other);
        assert_eq!(compare(&nop, &[0xe8, 1, 2, 3, 4]), Found::KernelProbe);
        assert_eq!(compare(&nop, &[0xcc, 0x1f, 0x44, 0, 0]), Found::Breakpoint);
    }

    #[test]
    fn a_tracer_is_found_behind_the_longest_name() {
        let status = |name: &str, tracer: u32| {
            format!(
                "Name:\t{name}\nUmask:\t0022\nState:\tt (tracing stop)\nTgid:\t4194304\nNgid:\t0\n\
                 Pid:\t4194304\nPPid:\t4194304\nTracerPid:\t{tracer}\nUid:\t0\t0\t0\t0\n"
            )
        };
        assert_eq!(traced_by(status("TracerPid:\\n7", 0).as_bytes()), None);
        let longest = status(&"\\377".repeat(64), 4_194_304);
        let head = &longest.as_bytes()[..longest.len().min(STATUS_HEAD)];
        assert_eq!(traced_by(head), Some(4_194_304));
        assert_eq!(tracer(std::process::id()), None);
    }

    #[test]
    fn our_own_code_is_the_files() {
        let file = File::open("/proc/self/exe").expect("our executable");
        let us = std::process::id();
        let mut all = running(&file);
        let process = all.iter_mut().find(|process| process.pid == us).expect("this process");
        let (offset, end) = (process.code[0].offset, process.code[0].offset + 3 * PAGE);
        let mut bytes = vec![0; (end - offset) as usize];
        file.read_exact_at(&mut bytes, offset).expect("the file");
        let sites: Vec<(u64, Vec<u8>)> =
            (0..bytes.len() - 8).map(|at| (offset + at as u64, bytes[at..at + 8].to_vec())).collect();
        for (offset, bytes) in &sites {
            assert!(process.bytes(*offset, 8).as_ref() == Some(bytes), "at {offset:#x}");
        }
        assert!(process.breakpoints(&sites).is_empty());
    }
}

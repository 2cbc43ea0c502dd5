//! Removes breakpoints that a killed helper left behind: finds them by its record, then attaches and detaches
//! a no-op program.
//!
//! The kernel keeps such a probe by inode and offset, with the original instruction. It slows every process
//! that maps the file, and once the file's content changes, the old instruction is executed in place of the
//! new one.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c> (alloc_uprobe, prepare_uprobe)

use std::{
    collections::BTreeSet,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Holder, ProgramSites, Target,
    record::{self, Owner, RecordedFile, Sites, Stale},
    text,
    wire::Method,
};
use crate::{escape, host::procfs, probe::multi};

/// Longest x86 instruction, bytes.
const MAX_INSTRUCTION: usize = 15;

/// Result of cleaning up stale records.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CleanedUp {
    /// One sentence for each file whose breakpoints were found in a process.
    pub notes: Vec<String>,
    /// Whether some breakpoints could not be removed.
    pub some_are_left: bool,
}

/// Removes the breakpoints that killed instances left. Records of running instances are not touched.
pub(super) fn clean_up(holder: &Arc<Holder>) -> CleanedUp {
    let mut done = CleanedUp::default();
    for stale in record::stale(&record::folder()) {
        let left = clean_record(holder, &stale, &mut done.notes);
        done.some_are_left |= left;
        if !left {
            stale.remove();
        }
    }
    done
}

/// Reports whether killed helpers have left records.
pub(super) fn some_are_stale() -> bool {
    !record::stale(&record::folder()).is_empty()
}

/// Cleans up one record. Returns whether breakpoints are left.
fn clean_record(holder: &Arc<Holder>, stale: &Stale, notes: &mut Vec<String>) -> bool {
    let mut some_are_left = false;
    for sites in &stale.content.files {
        let Some(file) = find(&sites.file) else { continue };
        let name = escape::one_line(&sites.file.path.to_string_lossy());
        let whose = whose(&stale.content.owner);
        let before = left(&file, sites);
        if !may_touch(&file, sites) {
            some_are_left = true;
            notes.push(format!(
                "{whose} has left breakpoints in {name}, which was overwritten since: its processes may malfunction; \
                 stop them, replace the file with a copy of itself, and start them again"
            ));
            continue;
        }
        if let Err(error) = attach_and_detach(holder, &file, sites) {
            some_are_left = true;
            notes.push(format!("cannot remove the breakpoints that {whose} has left in {name}: {error}"));
            continue;
        }
        let after = left(&file, sites);
        if before.is_empty() && after.is_empty() {
            continue;
        }
        let removed = before.difference(&after).count();
        notes.push(format!("{whose} had left {removed} breakpoints in {name}; they were removed"));
    }
    some_are_left
}

fn whose(owner: &Owner) -> String {
    format!("panicwatch (process {}), which was killed,", owner.pid)
}

/// Opens the recorded file: by its path, else through a process that executes it.
fn find(wanted: &RecordedFile) -> Option<File> {
    let by_processes = || procfs::all().into_iter().map(|pid| PathBuf::from(format!("/proc/{pid}/exe")));
    let is_it = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
        use std::os::unix::fs::MetadataExt as _;
        if (meta.dev(), meta.ino()) != (wanted.dev, wanted.ino) {
            return None;
        }
        let file = File::open(&path).ok()?;
        RecordedFile::of(&file, &path).is_ok_and(|now| now.is_same_file(wanted)).then_some(file)
    };
    is_it(wanted.path.clone()).or_else(|| by_processes().find_map(is_it))
}

/// Returns the recorded sites where a process that executes the file has a breakpoint now.
fn left(file: &File, sites: &Sites) -> BTreeSet<u64> {
    let with_bytes: Vec<(u64, Vec<u8>)> = sites
        .offsets
        .iter()
        .filter_map(|offset| {
            let mut bytes = vec![0; MAX_INSTRUCTION];
            let n = file.read_at(&mut bytes, *offset).ok()?;
            // The record does not have the length of the instruction: the next site's breakpoint may be
            // within these bytes.
            bytes.truncate(n.min(1));
            (n > 0).then_some((*offset, bytes))
        })
        .collect();
    text::running(file).iter_mut().flat_map(|process| process.breakpoints(&with_bytes)).collect()
}

/// Reports whether it is safe to attach. An offset that was recorded for other content may be inside an
/// instruction now, so nothing is attached if the file has changed and is being executed.
fn may_touch(file: &File, sites: &Sites) -> bool {
    let now = RecordedFile::of(file, &sites.file.path);
    now.is_ok_and(|now| now.is_unchanged(&sites.file)) || text::running(file).is_empty()
}

fn attach_and_detach(holder: &Arc<Holder>, file: &File, sites: &Sites) -> io::Result<()> {
    let (method, program) = if multi::supported() {
        (Method::Multi, multi::empty_program()?)
    } else {
        (Method::Perf, multi::empty_uprobe_program()?)
    };
    let target = Target { file, name: Path::new(&sites.file.path) };
    let sites = sites.offsets.iter().map(|offset| (*offset, 0)).collect();
    pass(holder, method, target, ProgramSites { program: Arc::new(program), sites })
}

/// Attaches and detaches the program at its sites. Sites that the kernel rejects have no probe: they are
/// located by bisection and skipped.
fn pass(holder: &Arc<Holder>, method: Method, target: Target<'_>, mut group: ProgramSites) -> io::Result<()> {
    match holder.attach(method, target, std::slice::from_ref(&group)) {
        Ok(links) => {
            super::detach(links.into_iter().flatten().collect());
            Ok(())
        }
        Err(_) if group.sites.len() > 1 => {
            let sites = group.sites.split_off(group.sites.len() / 2);
            let second = ProgramSites { program: group.program.clone(), sites };
            pass(holder, method, target, group)?;
            pass(holder, method, target, second)
        }
        Err(refused) if is_rejection(&refused.error) => Ok(()),
        Err(refused) => Err(refused.error),
    }
}

/// Reports whether the kernel rejects a probe at this site, so that it cannot have one. Any other error (no
/// memory, no file descriptors, no permission) leaves that open.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c> (uprobe_register, prepare_uprobe)
fn is_rejection(error: &io::Error) -> bool {
    /// `ENOTSUPP`, which the kernel returns for an instruction that cannot be probed; libc does not name it.
    const ENOTSUPP: i32 = 524;
    matches!(
        error.raw_os_error(),
        Some(libc::EINVAL | libc::EIO | libc::ENOEXEC | libc::EOPNOTSUPP | libc::ERANGE | ENOTSUPP)
    )
}

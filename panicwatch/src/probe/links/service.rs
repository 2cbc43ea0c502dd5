//! The helper's side: creates and owns the links that put breakpoints into programs.
//!
//! A thread with a fatal signal pending cannot write the pages of another process, and the kernel then leaves
//! the breakpoint in place permanently. So links are not created or closed in the main process, which users
//! and service managers kill, but in the helper, which detaches everything when the main process has ended.
//! <https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c> (uprobe_write_opcode,
//! register_for_each_vma)

use std::{
    collections::BTreeMap,
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use super::{
    perf,
    record::{self, Owner, Record},
    wire::{Method, Reply, Request},
};
use crate::{
    helper::{Message, Socket},
    host::{privileges, procfs},
    probe::{closing, multi},
};

/// Serves the main process until it has closed its socket, then detaches everything.
pub(crate) fn serve(socket: &Socket) {
    // Remaining privileges do no harm: the helper does not use them.
    let _ = privileges::drop_others();
    raise_file_limit();
    let service = Service::new();
    thread::scope(|scope| {
        while let Ok(Some(message)) = socket.receive() {
            // Detaching waits for the kernel and must not delay attaching.
            scope.spawn(|| service.answer(message));
        }
    });
    service.detach_all();
}

/// A link, and the number of the attachment that it belongs to.
type Held = (OwnedFd, u64);

struct Service {
    /// Links by link number.
    links: Mutex<BTreeMap<u64, Held>>,
    /// `None` if the directory of the records cannot be created.
    record: Mutex<Option<Record>>,
    numbers: AtomicU64,
}

impl Service {
    fn new() -> Service {
        // SAFETY: getppid has no preconditions.
        let parent = unsafe { libc::getppid() } as u32;
        let folder = record::create_folder().ok();
        let record = folder.map(|folder| Record::new(&folder, owner(parent), owner(std::process::id())));
        Service { links: Mutex::default(), record: Mutex::new(record), numbers: AtomicU64::new(0) }
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Executes a request and sends the reply to the socket that came with it. A message without a socket is
    /// dropped.
    fn answer(&self, message: Message) {
        let mut fds = message.fds.into_iter();
        let Some(reply_to) = fds.next().map(Socket::from) else { return };
        let reply = match (Request::decode(&message.bytes), fds.next()) {
            (Ok(request @ Request::Attach { .. }), Some(file)) => {
                let programs: Vec<OwnedFd> = fds.collect();
                self.attach(request, &file, &programs)
            }
            (Ok(Request::Detach(links)), None) => {
                self.detach(&links);
                Reply::Detached
            }
            _ => Reply::Failed { group: 0, errno: libc::EBADMSG },
        };
        // Fails if the main process has ended in the meantime.
        let _ = reply_to.send(&reply.encode(), &[]);
    }

    /// Attaches each group's program to the file: all of them, or none.
    fn attach(&self, request: Request, file: &OwnedFd, programs: &[OwnedFd]) -> Reply {
        let failed = |group: usize, errno| Reply::Failed { group: group as u32, errno };
        let Request::Attach { method, file: recorded, groups } = request else {
            return failed(0, libc::EBADMSG);
        };
        if groups.len() != programs.len() {
            return failed(0, libc::EBADMSG);
        }
        let attachments: Vec<u64> = groups.iter().map(|_| self.number()).collect();
        // Recorded first, so that the record exists however this process ends. Attaching goes on without a
        // record; breakpoints then stay undetected if this process is killed.
        if let Some(record) = &mut *lock(&self.record) {
            let offsets = groups.iter().map(|group| group.iter().map(|(offset, _)| *offset).collect());
            let _ = record.add(&recorded, attachments.iter().copied().zip(offsets));
        }
        let mut made: Vec<Held> = Vec::new();
        for (i, ((group, program), attachment)) in groups.iter().zip(programs).zip(&attachments).enumerate() {
            match make(method, program, file, group) {
                Ok(links) => made.extend(links.into_iter().map(|link| (link, *attachment))),
                Err(error) => {
                    closing::side_by_side(made, drop);
                    self.forget(&attachments);
                    return failed(i, error.raw_os_error().unwrap_or(libc::EIO));
                }
            }
        }
        let numbered: Vec<(u64, Held)> = made.into_iter().map(|held| (self.number(), held)).collect();
        let numbers = numbered.iter().map(|(number, _)| *number).collect();
        lock(&self.links).extend(numbered);
        Reply::Attached(numbers)
    }

    fn detach(&self, numbers: &[u64]) {
        let taken: Vec<Held> = {
            let mut links = lock(&self.links);
            numbers.iter().filter_map(|number| links.remove(number)).collect()
        };
        self.close(taken);
    }

    fn detach_all(&self) {
        let all = std::mem::take(&mut *lock(&self.links));
        self.close(all.into_values().collect());
    }

    fn close(&self, links: Vec<Held>) {
        let (links, mut attachments): (Vec<OwnedFd>, Vec<u64>) = links.into_iter().unzip();
        attachments.sort_unstable();
        attachments.dedup();
        closing::side_by_side(links, drop);
        {
            let held = lock(&self.links);
            let is_held = |attachment: &u64| held.values().any(|(_, of)| of == attachment);
            attachments.retain(|attachment| !is_held(attachment));
        }
        self.forget(&attachments);
    }

    fn forget(&self, attachments: &[u64]) {
        if let Some(record) = &mut *lock(&self.record) {
            // A row that stays does no harm: the next instance finds no breakpoints there.
            let _ = record.remove(attachments);
        }
    }
}

/// Creates the links of one attachment: all, or none.
fn make(method: Method, program: &OwnedFd, file: &OwnedFd, sites: &[(u64, u64)]) -> io::Result<Vec<OwnedFd>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if method == Method::Multi {
        return Ok(vec![multi::attach(program, &path, sites)?]);
    }
    let pmu = perf::pmu()?;
    let mut links = Vec::with_capacity(sites.len());
    for (offset, cookie) in sites {
        match perf::attach(pmu, program, &path, *offset, *cookie) {
            Ok(link) => links.push(link),
            Err(error) => {
                closing::side_by_side(links, drop);
                return Err(error);
            }
        }
    }
    Ok(links)
}

fn owner(pid: u32) -> Owner {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    Owner { pid, started: procfs::started(pid), command: procfs::strings(&command) }
}

/// Raises the soft limit on open files to the hard limit: kernels without uprobe_multi links need a
/// descriptor per site.
fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: the struct outlives the call. If it fails, the limit stays.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The links that put breakpoints into programs, as the main process sees them: all of them are made, owned and closed by a helper
//! process ([`service`]), one for the whole process.
//!
//! What is at the kernel's own tracepoints stays in the main process: the kernel takes that off itself.

mod leaks;
mod perf;
mod record;
pub(crate) mod service;
mod text;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io, mem,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

pub use leaks::CleanedUp;
use record::RecordedFile;
use wire::{Method, Reply, Request};

use crate::helper::{self, Kind, Socket};

/// The helper of this process.
static HOLDER: Mutex<Option<Arc<Holder>>> = Mutex::new(None);

/// The helper that holds the probes of this process.
#[derive(Debug)]
pub struct Holder {
    socket: Socket,
    pid: u32,
    cleaned_up: Mutex<CleanedUp>,
    has_ended: AtomicBool,
}

/// Returns the helper of this process, started now if it was not before. It inherits what this process may do at that time. What
/// instances that were killed have left in programs is removed first; [`take_notes`] returns what that was.
///
/// # Errors
/// When it cannot be started.
pub fn holder() -> io::Result<Arc<Holder>> {
    let mut holder = lock(&HOLDER);
    if let Some(holder) = &*holder {
        return Ok(holder.clone());
    }
    let (child, socket) = helper::spawn(Kind::Probes)?;
    let started =
        Arc::new(Holder { socket, pid: child.pid(), cleaned_up: Mutex::default(), has_ended: false.into() });
    *lock(&started.cleaned_up) = leaks::clean_up(&started);
    Ok(holder.insert(started).clone())
}

/// Reports whether the helper has ended although the main process still runs.
pub fn has_ended() -> bool {
    lock(&HOLDER).as_ref().is_some_and(|holder| holder.has_ended())
}

/// Returns, once, what was found when the helper was started, for people.
pub fn take_notes() -> Vec<String> {
    let holder = lock(&HOLDER).clone();
    holder.map(|holder| mem::take(&mut lock(&holder.cleaned_up).notes)).unwrap_or_default()
}

/// Removes what instances that were killed have left, if there is anything.
///
/// # Errors
/// When the helper cannot be started.
pub fn clean_up() -> io::Result<CleanedUp> {
    if !leaks::some_are_stale() {
        return Ok(CleanedUp::default());
    }
    Ok(mem::take(&mut *lock(&holder()?.cleaned_up)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The sites, each with its bytes in the file, that are not to be attached to now, with the reason: a debugger's breakpoint is there, or
/// a process has changed its code.
pub(super) fn refused(target: Target<'_>, mut sites: Vec<(u64, Vec<u8>)>) -> BTreeMap<u64, String> {
    sites.sort_unstable();
    let ours = || {
        let file = RecordedFile::of(target.file, target.name);
        file.map_or_else(|_| BTreeSet::new(), |file| record::living(&record::folder(), &file))
    };
    text::refused(target.file, &sites, ours)
}

/// Links in a file that the helper holds. Dropping does not detach: `closing` does.
#[derive(Debug)]
pub(super) struct Link {
    holder: Arc<Holder>,
    number: u64,
}

/// An opened file to attach to, and its name for people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) file: &'a File,
    pub(super) name: &'a Path,
}

impl Holder {
    /// Process id of the helper.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the helper has ended. It does so only when it is killed or fails.
    pub fn wait_for_end(&self) {
        // The helper sends nothing here: there is something to receive when its end is closed.
        while self.socket.receive().is_ok_and(|message| message.is_some()) {}
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Reports whether [`Holder::wait_for_end`] has returned.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Attaches `program` at file offsets, each with its cookie, for every process: one link with [`Method::Multi`], else one a site.
    fn attach(
        self: &Arc<Holder>,
        method: Method,
        program: &OwnedFd,
        target: Target<'_>,
        sites: &[(u64, u64)],
    ) -> io::Result<Vec<Link>> {
        let file = RecordedFile::of(target.file, target.name)?;
        let request = Request::Attach { method, file, sites: sites.to_vec() };
        let reply = self.ask(&request, &[program.as_fd(), target.file.as_fd()])?;
        match reply {
            Some(Reply::Attached(numbers)) => {
                Ok(numbers.into_iter().map(|number| Link { holder: self.clone(), number }).collect())
            }
            Some(Reply::Failed(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Some(Reply::Detached) => Err(io::ErrorKind::InvalidData.into()),
            None => Err(io::Error::other(
                "panicwatch's process that holds the probes was killed; restart panicwatch",
            )),
        }
    }

    /// Sends a request and waits for its reply, which has a socket of its own; `None`: the helper has ended.
    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<Option<Reply>> {
        let (ours, theirs) = Socket::pair()?;
        let mut all = vec![theirs.as_fd()];
        all.extend_from_slice(fds);
        match self.socket.send(&request.encode(), &all) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(None),
            sent => sent?,
        }
        drop(theirs);
        ours.receive()?.map(|message| Reply::decode(&message.bytes)).transpose()
    }
}

/// Attaches `program` by one uprobe_multi link.
pub(super) fn attach_multi(program: &OwnedFd, target: Target<'_>, sites: &[(u64, u64)]) -> io::Result<Link> {
    let mut links = holder()?.attach(Method::Multi, program, target, sites)?;
    links.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Attaches `program` by a perf event for each site; the links are in the order of the sites.
pub(super) fn attach_perf(
    program: &OwnedFd,
    target: Target<'_>,
    sites: &[(u64, u64)],
) -> io::Result<Vec<Link>> {
    holder()?.attach(Method::Perf, program, target, sites)
}

/// Detaches all of these; returns when no breakpoint of theirs is left. Those of a helper that has ended are gone already.
pub(super) fn detach(links: Vec<Link>) {
    let Some(holder) = links.first().map(|link| link.holder.clone()) else { return };
    let request = Request::Detach(links.into_iter().map(|link| link.number).collect());
    // Nothing more can be done: the helper detaches when this process ends.
    let _ = holder.ask(&request, &[]);
}

//! Links that put breakpoints into programs, from the main process's side: a helper process ([`service`])
//! creates, owns and closes all of them. There is one helper per panicwatch process.
//!
//! Links to the kernel's own tracepoints stay in the main process: the kernel detaches those reliably when it
//! ends.

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

/// The helper of this process; `None` until it is started.
static HOLDER: Mutex<Option<Arc<Holder>>> = Mutex::new(None);

/// The helper process that holds the probes of this process.
#[derive(Debug)]
pub struct Holder {
    socket: Socket,
    pid: u32,
    cleaned_up: Mutex<CleanedUp>,
    has_ended: AtomicBool,
}

/// Returns the helper of this process, starting it if necessary. The helper inherits the privileges that this
/// process has at that time. Breakpoints that killed instances left in programs are removed first;
/// [`take_notes`] returns what was removed.
///
/// # Errors
/// Fails if the helper cannot be started.
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

/// Reports whether the helper has ended although the main process is still running.
pub fn has_ended() -> bool {
    lock(&HOLDER).as_ref().is_some_and(|holder| holder.has_ended())
}

/// Returns, once, the messages for the user about the clean-up at the helper's start.
pub fn take_notes() -> Vec<String> {
    let holder = lock(&HOLDER).clone();
    holder.map(|holder| mem::take(&mut lock(&holder.cleaned_up).notes)).unwrap_or_default()
}

/// Removes breakpoints that killed instances left, if there are any.
///
/// # Errors
/// Fails if the helper cannot be started.
pub fn clean_up() -> io::Result<CleanedUp> {
    if !leaks::some_are_stale() {
        return Ok(CleanedUp::default());
    }
    Ok(mem::take(&mut *lock(&holder()?.cleaned_up)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the sites that must not be probed now, with the reason: a debugger's breakpoint is there, or a
/// process has modified its code. `sites` has each site's file offset and its bytes in the file.
pub(super) fn refused(target: Target<'_>, mut sites: Vec<(u64, Vec<u8>)>) -> BTreeMap<u64, String> {
    sites.sort_unstable();
    let ours = || {
        let file = RecordedFile::of(target.file, target.name);
        file.map_or_else(|_| BTreeSet::new(), |file| record::living(&record::folder(), &file))
    };
    text::refused(target.file, &sites, ours)
}

/// A link in a file, held by the helper. Dropping does not detach: `closing` does.
#[derive(Debug)]
pub(super) struct Link {
    holder: Arc<Holder>,
    number: u64,
}

/// An opened file to attach to, and its path for messages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) file: &'a File,
    pub(super) name: &'a Path,
}

/// A program and the sites in one file at which it is attached: file offsets and cookies.
pub(super) struct ProgramSites {
    pub(super) program: Arc<OwnedFd>,
    pub(super) sites: Vec<(u64, u64)>,
}

/// Why nothing was attached.
#[derive(Debug)]
pub(super) struct Refused {
    /// Index of the group that could not be attached.
    pub(super) group: usize,
    pub(super) error: io::Error,
}

impl Holder {
    /// Returns the process ID of the helper.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the helper has ended, which happens only if it is killed or fails.
    pub fn wait_for_end(&self) {
        // The helper sends nothing on this socket: receiving returns when its end is closed.
        while self.socket.receive().is_ok_and(|message| message.is_some()) {}
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Reports whether [`Holder::wait_for_end`] has returned.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Attaches each group's program at its sites in the file, for every process: all of them, or none.
    /// Returns the links of each group: one with [`Method::Multi`], else one per site.
    fn attach(
        self: &Arc<Holder>,
        method: Method,
        target: Target<'_>,
        groups: &[ProgramSites],
    ) -> Result<Vec<Vec<Link>>, Refused> {
        let all = |error| Refused { group: 0, error };
        let file = RecordedFile::of(target.file, target.name).map_err(all)?;
        let mut fds = vec![target.file.as_fd()];
        fds.extend(groups.iter().map(|group| group.program.as_fd()));
        let sites = groups.iter().map(|group| group.sites.clone()).collect();
        let request = Request::Attach { method, file, groups: sites };
        match self.ask(&request, &fds).map_err(all)? {
            Some(Reply::Attached(numbers)) => {
                let links = numbers.into_iter().map(|number| Link { holder: self.clone(), number });
                by_group(method, groups, links).ok_or_else(|| all(io::ErrorKind::InvalidData.into()))
            }
            Some(Reply::Failed { group, errno }) => {
                Err(Refused { group: group as usize, error: io::Error::from_raw_os_error(errno) })
            }
            Some(Reply::Detached) => Err(all(io::ErrorKind::InvalidData.into())),
            None => Err(all(io::Error::other(
                "panicwatch's process that holds the probes was killed; restart panicwatch",
            ))),
        }
    }

    /// Sends a request and waits for the reply, which arrives on its own socket; `None` if the helper has
    /// ended.
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

/// Splits the links of one request by group; `None` if there are too few.
fn by_group(
    method: Method,
    groups: &[ProgramSites],
    mut links: impl Iterator<Item = Link>,
) -> Option<Vec<Vec<Link>>> {
    let of_group = |group: &ProgramSites| {
        let count = if method == Method::Multi { 1 } else { group.sites.len() };
        let links: Vec<Link> = links.by_ref().take(count).collect();
        (links.len() == count).then_some(links)
    };
    groups.iter().map(of_group).collect()
}

/// Attaches each group's program by one uprobe_multi link: all of them, or none. Returns one link per group.
pub(super) fn attach_multi(target: Target<'_>, groups: &[ProgramSites]) -> Result<Vec<Vec<Link>>, Refused> {
    started()?.attach(Method::Multi, target, groups)
}

/// Attaches each group's program by one perf event per site: all of them, or none. Returns the links of each
/// group, in the order of its sites.
pub(super) fn attach_perf(target: Target<'_>, groups: &[ProgramSites]) -> Result<Vec<Vec<Link>>, Refused> {
    started()?.attach(Method::Perf, target, groups)
}

fn started() -> Result<Arc<Holder>, Refused> {
    holder().map_err(|error| Refused { group: 0, error })
}

/// Detaches all of these and returns when none of their breakpoints is left. Links of a helper that has ended
/// are detached already.
pub(super) fn detach(links: Vec<Link>) {
    let Some(holder) = links.first().map(|link| link.holder.clone()) else { return };
    let request = Request::Detach(links.into_iter().map(|link| link.number).collect());
    // An error is ignored: the helper detaches when this process ends.
    let _ = holder.ask(&request, &[]);
}

//! Fanotify marks of the exec gate: selects the file systems to mark, and marks those that are mounted later.

use std::{
    ffi::CString,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{
        fd::{AsFd as _, AsRawFd, FromRawFd},
        unix::fs::MetadataExt,
    },
    path::PathBuf,
    sync::{Arc, Mutex, mpsc::Receiver},
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        armed::lock,
        mounts::{self, Marked, Mount},
    },
    link::Link,
};

/// Time limit for the gate process to set the first marks.
const FIRST_MARKS: Duration = Duration::from_secs(5);

/// Marks of the gate's fanotify group. The main process walks the paths, here; the gate process receives
/// descriptors.
pub(super) struct Marks {
    link: Arc<Link>,
    /// Receives, for each requested mark, whether it was set; `None` after the first marks.
    is_marked: Mutex<Option<Receiver<bool>>>,
    marked: Mutex<Marked>,
    /// Inode number of panicwatch's own mount namespace.
    own: u64,
}

impl Marks {
    pub(super) fn new(link: Arc<Link>, is_marked: Receiver<bool>) -> Marks {
        let own = namespace("/proc/self/ns/mnt").unwrap_or(0);
        Marks { link, is_marked: Mutex::new(Some(is_marked)), marked: Mutex::default(), own }
    }

    /// Marks the file systems that are mounted in panicwatch's own mount namespace, and those that are
    /// mounted there later.
    ///
    /// # Errors
    /// Fails if no file system can be marked or the thread cannot be started.
    pub(super) fn watch(self: &Arc<Marks>) -> io::Result<()> {
        let mut list = File::open("/proc/self/mountinfo")?;
        let asked = self.add(&read(&mut list)?);
        if !self.is_one_set(asked) {
            return Err(io::Error::other(
                "execs cannot be held on any mounted file system: none is local and has permission events",
            ));
        }
        let of_thread = Arc::downgrade(self);
        thread::Builder::new().name("mounts".into()).spawn(move || {
            while wait_for_change(&list) {
                let (Ok(text), Some(marks)) = (read(&mut list), of_thread.upgrade()) else { return };
                marks.add(&text);
            }
        })?;
        Ok(())
    }

    /// Waits for the results of the first `asked` marks and reports whether at least one was set.
    fn is_one_set(&self, asked: usize) -> bool {
        let Some(is_marked) = lock(&self.is_marked).take() else { return false };
        let until = Instant::now() + FIRST_MARKS;
        let answers = (0..asked)
            .map_while(|_| is_marked.recv_timeout(until.saturating_duration_since(Instant::now())).ok());
        // Waits for all of them, so that later execs are held.
        answers.filter(|done| *done).count() > 0
    }

    /// Sets all marks again after they were removed; those of another mount namespace are set when a watched
    /// process in it executes a program.
    pub(super) fn set_again(&self) {
        lock(&self.marked).forget();
        // Without the list no exec is held, and programs are found after their exec.
        if let Ok(text) = fs::read_to_string("/proc/self/mountinfo") {
            self.add(&text);
        }
    }

    /// Marks new mounts in the mount namespace of process `pid`, unless that is panicwatch's own.
    pub(super) fn cover(&self, pid: u32) {
        let Some(namespace) = namespace(&format!("/proc/{pid}/ns/mnt")).filter(|ns| *ns != self.own) else {
            return;
        };
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/mountinfo")) else { return };
        let all = mounts::parse(&text);
        self.mark_new(namespace, &all, &format!("/proc/{pid}/root"));
    }

    /// Marks new mounts in a mountinfo of our own namespace; returns the number of requested marks.
    fn add(&self, text: &str) -> usize {
        self.mark_new(self.own, &mounts::parse(text), "/")
    }

    fn mark_new(&self, namespace: u64, all: &[Mount], root: &str) -> usize {
        let mut marked = lock(&self.marked);
        let new = marked.new_ones(namespace, all, namespace == self.own);
        let layers_are_local =
            |mount: &&Mount| mount.layers(all).iter().all(|(point, rest)| resolves_within(root, point, rest));
        new.iter().filter(layers_are_local).filter(|mount| self.mark(mount, root)).count()
    }

    /// Requests a mark on the file system of one mount; returns `false` if the path leads elsewhere or there
    /// is no gate.
    fn mark(&self, mount: &Mount, root: &str) -> bool {
        let Some(point) = open_below(root, &mount.point, libc::RESOLVE_NO_SYMLINKS) else { return false };
        // The path of a mount that has another one on top leads to that one.
        mount_id(&point) == Some(mount.id) && self.link.mark(point.as_fd()).is_ok()
    }
}

/// Reports whether the path `rest` below the mount point `point` stays within that mount, even through
/// symbolic links.
fn resolves_within(root: &str, point: &[u8], rest: &[u8]) -> bool {
    let Some(point) = open_below(root, point, libc::RESOLVE_NO_SYMLINKS) else { return false };
    let rest = if rest.is_empty() { b"." } else { rest };
    open_path(point.as_raw_fd(), rest, libc::RESOLVE_NO_XDEV | libc::RESOLVE_NO_MAGICLINKS).is_some()
}

/// Opens `path` relative to the directory `root` as an O_PATH descriptor, without opening the file itself.
fn open_below(root: &str, path: &[u8], resolve: u64) -> Option<File> {
    let root = CString::new(root).ok()?;
    // SAFETY: the path is NUL-terminated; the result is checked.
    let fd = unsafe { libc::open(root.as_ptr(), libc::O_PATH | libc::O_CLOEXEC | libc::O_DIRECTORY) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the call returned a new descriptor that is ours.
    let root = unsafe { File::from_raw_fd(fd) };
    let path = path.strip_prefix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(b".");
    open_path(root.as_raw_fd(), path, resolve)
}

/// Calls openat2 with O_PATH. <https://man7.org/linux/man-pages/man2/openat2.2.html>
fn open_path(at: i32, path: &[u8], resolve: u64) -> Option<File> {
    let path = CString::new(path).ok()?;
    // SAFETY: all zeroes is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
    how.resolve = resolve;
    let size = size_of::<libc::open_how>();
    // SAFETY: path and struct outlive the call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_openat2, at, path.as_ptr(), &raw const how, size) };
    // SAFETY: the call returned a new descriptor that is ours.
    (fd >= 0).then(|| unsafe { File::from_raw_fd(fd as i32) })
}

/// Returns the ID of the mount that an open file is on.
fn mount_id(file: &File) -> Option<u32> {
    let info = fs::read_to_string(PathBuf::from(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))).ok()?;
    info.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Returns the inode number of a namespace.
fn namespace(link: &str) -> Option<u64> {
    fs::metadata(link).ok().map(|meta| meta.ino())
}

/// Reads the whole file from its beginning.
fn read(list: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    list.rewind()?;
    list.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Waits until something is mounted or unmounted; returns false if the kernel does not report changes.
fn wait_for_change(list: &File) -> bool {
    let mut fd = libc::pollfd { fd: list.as_raw_fd(), events: libc::POLLPRI, revents: 0 };
    loop {
        // SAFETY: the struct outlives the call.
        match unsafe { libc::poll(&raw mut fd, 1, -1) } {
            n if n > 0 => return fd.revents & libc::POLLPRI != 0,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return false,
        }
    }
}

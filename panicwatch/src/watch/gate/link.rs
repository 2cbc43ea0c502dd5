//! The main process's end of the exec gate: answers its requests, monitors the gate process, and restarts it
//! if it was killed.
//!
//! The thread here takes no lock that is held while probes are attached, reads no files and never blocks:
//! while it runs, the gate process receives its responses. Each request gets its own thread for attaching.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    BEAT, MAX_FDS, Parts,
    fanotify::Group,
    marks::Marks,
    messages::{Content, FromGate, LetGo, ToGate, decode, encode},
    pauses::Pauses,
    seen::Seen,
    watchdog::{Still, Waits},
};
use crate::{
    clock,
    helper::{self, Child, Kind, Message, Socket},
    vital,
    watch::{
        armed::lock,
        armory::{ArmError, KnownFile},
    },
};

/// Time limit for the gate process to start.
const START: Duration = Duration::from_secs(10);
/// How long a message may wait for room in the socket.
const ROOM: Duration = Duration::from_secs(1);
/// Consequence of a missing gate, for messages.
const UNTIL_AGAIN: &str =
    "until it works again, new programs are watched only from some milliseconds after their exec";

/// Counters of the gate since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Execs that were held.
    pub held: u64,
    /// Execs that were released before their probes were attached, by reason.
    pub released: [u64; LetGo::ALL.len()],
    /// How often a watchdog removed the marks.
    pub resets: u64,
}

impl Counts {
    /// Returns the number of execs that were released before their probes were attached, by reason.
    pub fn by_reason(&self) -> Vec<(String, u64)> {
        LetGo::ALL.iter().zip(self.released).map(|(reason, n)| (reason.label().to_owned(), n)).collect()
    }
}

/// Connection to the current gate process, which may have been restarted.
pub(super) struct Link {
    current: Mutex<Option<Arc<Socket>>>,
    held: AtomicU64,
    released: [AtomicU64; LetGo::ALL.len()],
    resets: AtomicU64,
    stopping: AtomicBool,
}

impl Link {
    pub(super) fn counts(&self) -> Counts {
        let released = self.released.each_ref().map(|count| count.load(Ordering::Relaxed));
        let (held, resets) = (self.held.load(Ordering::Relaxed), self.resets.load(Ordering::Relaxed));
        Counts { held, released, resets }
    }

    /// Sends a message to the gate process, if one is receiving.
    pub(super) fn send(&self, message: &ToGate) {
        // If it cannot be sent, the gate releases held execs at their deadline.
        let _ = self.current().map(|socket| socket.send(&encode(message), &[]));
    }

    /// Requests a mark on the file system of `point`.
    ///
    /// # Errors
    /// Fails if there is no gate process or it does not receive.
    pub(super) fn mark(&self, point: BorrowedFd<'_>) -> io::Result<()> {
        let socket = self.current().ok_or(io::ErrorKind::NotConnected)?;
        let until = Instant::now() + ROOM;
        loop {
            match socket.send(&encode(&ToGate::Mark), &[point]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(1));
                }
                result => return result,
            }
        }
    }

    /// Ends the gate process, and the thread.
    pub(super) fn close(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(socket) = lock(&self.current).take() {
            // SAFETY: shutdown takes integers, and the descriptor is open.
            unsafe { libc::shutdown(socket.as_fd().as_raw_fd(), libc::SHUT_RDWR) };
        }
    }

    fn current(&self) -> Option<Arc<Socket>> {
        lock(&self.current).clone()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// A gate process that has opened its fanotify group.
struct Connection {
    child: Child,
    socket: Arc<Socket>,
    /// Descriptor number of the group in that process.
    group: RawFd,
}

impl Connection {
    /// Starts a gate process and waits until it has opened its group.
    ///
    /// # Errors
    /// Fails if it cannot be started or cannot open a group.
    fn open(parts: &Parts) -> io::Result<Connection> {
        let (child, socket) = helper::spawn(Kind::ExecGate)?;
        let watched = parts.watched.as_ref().map(OwnedFd::as_fd);
        let start = ToGate::Start { deadline_ms: super::deadline().as_millis() as u64 };
        socket.send(&encode(&start), watched.as_slice())?;
        let answer = socket.receive_within(START)?;
        match answer.and_then(|message| decode(&message.bytes)) {
            Some(FromGate::Started { fanotify }) => {
                socket.set_nonblocking(true)?;
                Ok(Connection { child, socket: Arc::new(socket), group: fanotify })
            }
            Some(FromGate::Refused { reason }) => Err(io::Error::other(reason)),
            _ => Err(io::Error::other("the exec gate's process exited at once")),
        }
    }

    /// Removes the marks of a gate process that does not respond, and allows all execs that it holds. Runs on
    /// another thread, because the kernel may have to open files for it. If that is not permitted, the
    /// process is killed: the kernel then does the same.
    fn release_all(&self, releasing: &Arc<AtomicBool>) {
        if releasing.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pid, group, releasing) = (self.child.pid(), self.group, releasing.clone());
        let release = move || {
            match Group::of_process(pid, group) {
                Ok(group) => group.release_all(MAX_FDS),
                Err(_) => kill(pid),
            }
            releasing.store(false, Ordering::Relaxed);
        };
        if thread::Builder::new().name("releasing".into()).spawn(release).is_err() {
            kill(pid);
        }
    }

    /// Waits for the end of the process; returns its exit status as text.
    fn end(mut self) -> String {
        drop(self.socket);
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

/// Kills a child that was not waited for yet, so that no other process can have its PID.
fn kill(pid: u32) {
    // SAFETY: kill takes integers.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
}

/// Starts the gate process and the thread that answers its requests.
///
/// # Errors
/// Fails if the process or the thread cannot be started.
pub(super) fn start(parts: Arc<Parts>, seen: Arc<Seen>) -> io::Result<(Arc<Link>, Arc<Marks>)> {
    let connection = Connection::open(&parts)?;
    let link = Arc::new(Link {
        current: Mutex::new(Some(connection.socket.clone())),
        held: AtomicU64::new(0),
        released: Default::default(),
        resets: AtomicU64::new(0),
        stopping: AtomicBool::new(false),
    });
    let (marked, is_marked) = channel();
    let marks = Arc::new(Marks::new(link.clone(), is_marked));
    let server = Server { parts, link: link.clone(), marks: marks.clone(), seen, marked };
    vital::spawn("exec gate", move || server.supervise(connection))?;
    Ok((link, marks))
}

/// State of the thread.
struct Server {
    parts: Arc<Parts>,
    link: Arc<Link>,
    marks: Arc<Marks>,
    seen: Arc<Seen>,
    marked: Sender<bool>,
}

impl Server {
    /// Serves gate processes, one after the other.
    fn supervise(&self, mut connection: Connection) {
        let mut pauses = Pauses::default();
        loop {
            let began = Instant::now();
            self.serve(&connection);
            pauses.served(began.elapsed());
            lock(&self.link.current).take();
            let ended = connection.end();
            if self.link.is_stopping() {
                return;
            }
            self.seen.lost();
            self.note(&format!("the exec gate's process exited ({ended}): {UNTIL_AGAIN}"));
            connection = loop {
                thread::sleep(pauses.next());
                if self.link.is_stopping() {
                    return;
                }
                // The table of watched processes follows the forks of our own process while that starts a
                // watched program.
                let _ourselves = self.parts.armory.ourselves();
                match Connection::open(&self.parts) {
                    Ok(connection) => break connection,
                    Err(error) => self.note(&format!("cannot restart the exec gate: {error}")),
                }
            };
            *lock(&self.link.current) = Some(connection.socket.clone());
            self.mark_again();
        }
    }

    /// Answers the gate process until it ends.
    fn serve(&self, connection: &Connection) {
        let (mut still, mut heard, mut unmarked) = (Still::default(), 0, false);
        let releasing = Arc::new(AtomicBool::new(false));
        let stat = format!("/proc/{}/stat", connection.child.pid());
        loop {
            match connection.socket.receive_within(BEAT) {
                Ok(Some(message)) => {
                    heard += 1;
                    if std::mem::take(&mut unmarked) {
                        self.mark_again();
                    }
                    self.take(connection, message);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    if still.look(heard, || Waits::read(&stat)) {
                        if !std::mem::replace(&mut unmarked, true) {
                            self.reset("its process did not respond");
                        }
                        connection.release_all(&releasing);
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    fn take(&self, connection: &Connection, message: Message) {
        match decode(&message.bytes) {
            Some(FromGate::Beat { respond: true }) => self.link.send(&ToGate::Alive),
            Some(FromGate::Ask { id, pid }) => {
                self.link.held.fetch_add(1, Ordering::Relaxed);
                self.seen.add(pid, clock::monotonic_ns(), None);
                self.link.send(&ToGate::Alive);
                self.attach(connection, id, pid, message.fds);
            }
            Some(FromGate::Passed { pid, time_ns, armed }) => {
                self.seen.add(pid, time_ns, None);
                if armed {
                    self.seen.go();
                }
            }
            Some(FromGate::Released { pid, time_ns, reason, .. }) => {
                self.link.released[reason as usize].fetch_add(1, Ordering::Relaxed);
                self.seen.add(pid, time_ns, Some(reason));
            }
            Some(FromGate::Marked { done }) => drop(self.marked.send(done)),
            Some(FromGate::Unreported) => self.seen.lost(),
            Some(FromGate::Unmarked) => {
                self.reset("its event loop stalled");
                self.mark_again();
            }
            Some(FromGate::Beat { .. } | FromGate::Started { .. } | FromGate::Refused { .. }) | None => {}
        }
    }

    /// Attaches probes to the file on a new thread, which then answers.
    fn attach(&self, connection: &Connection, id: u64, pid: u32, fds: Vec<OwnedFd>) {
        let (parts, seen, socket) = (self.parts.clone(), self.seen.clone(), connection.socket.clone());
        let attach = move || {
            let Some(file) = fds.into_iter().next().map(File::from) else { return };
            let (content, refusal) = attach(&parts, &seen, pid, &file);
            // If the socket has no room, the exec is released at its deadline.
            let _ = socket.send(&encode(&ToGate::Answer { id, content }), &[]);
            refusal.into_iter().for_each(|error| (parts.refused)(error));
        };
        // Without a thread the exec is allowed at once.
        if thread::Builder::new().name("attaching".into()).spawn(attach).is_err() {
            self.link.send(&ToGate::Answer { id, content: Content::Undecided });
        }
    }

    /// Handles the removal of all marks.
    fn reset(&self, why: &str) {
        // No exec is seen until the marks are set again.
        self.seen.lost();
        self.link.resets.fetch_add(1, Ordering::Relaxed);
        self.link.released[LetGo::Watchdog as usize].fetch_add(self.seen.release_all(), Ordering::Relaxed);
        self.note(&format!("the exec gate was opened because {why}: {UNTIL_AGAIN}"));
    }

    /// Sets all marks again on a new thread, because that walks paths.
    fn mark_again(&self) {
        let marks = self.marks.clone();
        // Without a thread no exec is held, and programs are found after their exec.
        let _ = thread::Builder::new().name("marking".into()).spawn(move || marks.set_again());
    }

    fn note(&self, note: &str) {
        (self.parts.note)(note.to_owned());
    }
}

/// Attaches probes to `file`; returns what kind of file it is, and why it cannot be watched, if so.
fn attach(parts: &Parts, seen: &Seen, pid: u32, file: &File) -> (Content, Option<ArmError>) {
    let known = || parts.armory.known(file);
    let content = |known| match known {
        Some(KnownFile::Armed(_)) => Content::Armed,
        Some(known) if !known.may_be_armed() => Content::Other,
        _ => Content::Undecided,
    };
    let before = content(known());
    if before != Content::Undecided {
        if before == Content::Armed {
            seen.go();
        }
        return (before, None);
    }
    let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let name = name.unwrap_or_else(|_| PathBuf::from("(unknown)"));
    let refusal = match (parts.arm)(pid, file, &name) {
        Ok(()) => {
            seen.go();
            None
        }
        Err(ArmError::NotGo(_)) => None,
        Err(error) => Some(error),
    };
    (content(known()), refusal)
}

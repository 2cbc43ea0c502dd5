//! The main process's end of the exec gate: answers its questions, watches it, and starts it again when it was killed.
//!
//! The thread here takes no lock that attaching holds, reads no file and waits for nobody: while it runs, the gate's process gets
//! its responses. Attaching is done by a thread for each question.

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
    seen::Seen,
    watchdog::{Still, Waits},
};
use crate::{
    clock::Clock,
    helper::{self, Child, Kind, Message, Socket},
    vital,
    watch::{
        armed::lock,
        armory::{ArmError, KnownFile},
    },
};

/// How long the gate's process may take to start, and to set a mark.
const START: Duration = Duration::from_secs(10);
/// How long a message may wait for room in the socket.
const ROOM: Duration = Duration::from_secs(1);
/// Before a gate that was killed is started again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// What it means that there is no gate.
const UNTIL_AGAIN: &str =
    "until it works again, new programs are watched only from some milliseconds after their exec";

/// What the gate did, since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Execs that were held until they were answered.
    pub held: u64,
    /// Execs that were let go before their probes were attached, by reason.
    pub released: [u64; LetGo::ALL.len()],
    /// Times that a watchdog removed the marks.
    pub resets: u64,
}

impl Counts {
    /// Execs that were let go before their probes were attached, by reason.
    pub fn by_reason(&self) -> Vec<(String, u64)> {
        LetGo::ALL.iter().zip(self.released).map(|(reason, n)| (reason.label().to_owned(), n)).collect()
    }
}

/// The connection to the gate's process, of which there may be several, one after the other.
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

    /// Sends a message to the gate's process, if there is one that receives.
    pub(super) fn send(&self, message: &ToGate) {
        // Of what is not sent the gate lets go of by itself.
        let _ = self.current().map(|socket| socket.send(&encode(message), &[]));
    }

    /// Asks for a mark on the file system of `point`.
    ///
    /// # Errors
    /// When there is no gate, or it receives nothing.
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

    /// Ends the gate's process, and the thread.
    pub(super) fn close(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(socket) = lock(&self.current).take() {
            // SAFETY: plain system call on a descriptor that is open.
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

/// A gate's process that has opened its group.
struct Connection {
    child: Child,
    socket: Arc<Socket>,
    /// The group's descriptor in that process.
    group: RawFd,
}

impl Connection {
    /// Starts the process.
    ///
    /// # Errors
    /// When it cannot be started, or opens no group.
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

    /// Removes the marks of a process that does not respond, and lets everything go on that waits for it. Not on the calling thread:
    /// the kernel may have to open files for it. The process is killed where that is not permitted: the kernel does the same then.
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

    /// Waits for the end of the process; returns how it ended, for people.
    fn end(mut self) -> String {
        drop(self.socket);
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

/// The process is a child that was not waited for yet: no other has its pid.
fn kill(pid: u32) {
    // SAFETY: plain system call.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
}

/// Starts the gate's process and the thread that answers its questions.
///
/// # Errors
/// When the process cannot be started, or the kernel refuses.
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

/// The thread.
struct Server {
    parts: Arc<Parts>,
    link: Arc<Link>,
    marks: Arc<Marks>,
    seen: Arc<Seen>,
    marked: Sender<bool>,
}

impl Server {
    /// Serves one gate's process after the other.
    fn supervise(&self, mut connection: Connection) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.serve(&connection);
            lock(&self.link.current).take();
            let ended = connection.end();
            if self.link.is_stopping() {
                return;
            }
            self.seen.lost();
            self.note(&format!("the exec gate's process exited ({ended}): {UNTIL_AGAIN}"));
            connection = loop {
                thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
                if self.link.is_stopping() {
                    return;
                }
                // The table of watched processes follows the forks of this process while it starts a program.
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

    /// Answers the process until it ends.
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
                self.seen.add(pid, Clock::monotonic_ns(), None);
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

    /// Attaches probes to the file, on a thread of its own, and answers then.
    fn attach(&self, connection: &Connection, id: u64, pid: u32, fds: Vec<OwnedFd>) {
        let (parts, seen, socket) = (self.parts.clone(), self.seen.clone(), connection.socket.clone());
        let attach = move || {
            let Some(file) = fds.into_iter().next().map(File::from) else { return };
            let (content, refusal) = attach(&parts, &seen, pid, &file);
            // Where there is no room, the exec goes on at its deadline.
            let _ = socket.send(&encode(&ToGate::Answer { id, content }), &[]);
            refusal.into_iter().for_each(|error| (parts.refused)(error));
        };
        // Without a thread the exec goes on at once.
        if thread::Builder::new().name("attaching".into()).spawn(attach).is_err() {
            self.link.send(&ToGate::Answer { id, content: Content::Undecided });
        }
    }

    /// All marks were removed.
    fn reset(&self, why: &str) {
        // Until the marks are set again, no exec is seen.
        self.seen.lost();
        self.link.resets.fetch_add(1, Ordering::Relaxed);
        self.link.released[LetGo::Watchdog as usize].fetch_add(self.seen.release_all(), Ordering::Relaxed);
        self.note(&format!("the exec gate was opened because {why}: {UNTIL_AGAIN}"));
    }

    /// Sets all marks, on a thread of its own: that walks paths.
    fn mark_again(&self) {
        let marks = self.marks.clone();
        // Without a thread nothing is held: programs are found after their exec.
        let _ = thread::Builder::new().name("marking".into()).spawn(move || marks.set_again());
    }

    fn note(&self, note: &str) {
        (self.parts.note)(note.to_owned());
    }
}

/// Attaches probes to `file`; returns what it holds, and why it cannot be watched.
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

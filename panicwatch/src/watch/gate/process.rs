//! The gate process: reads permission events and answers them, independently of the main process.
//!
//! Its loop never opens, reads or looks up a file: the kernel opens the file that a process is about to
//! execute, on local file systems only ([`super::super::mounts`]), and the loop reads its inode. The main
//! process walks the paths of mounts. Watched processes are looked up in the table that the eBPF programs
//! keep in the kernel. When this process ends, for whatever reason, the kernel closes the only descriptor of
//! the group and allows all held execs.

use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _},
        unix::fs::MetadataExt as _,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    BEAT, MAX_FDS,
    decide::{Decider, Decision, FileId, Held},
    fanotify::{BATCH, Exec, Group},
    messages::{FromGate, LetGo, ToGate, decode, encode},
    stall,
    watchdog::{self, Pulse},
};
use crate::{
    clock,
    helper::{Message, Socket},
    probe::object::Watched,
};

/// Most execs that are held at the same time; each has a descriptor, and at most [`BATCH`] more are being
/// read.
const MAX_HELD: usize = MAX_FDS as usize / 2;
const _: () = assert!(MAX_HELD + BATCH + 64 < MAX_FDS as usize);
/// Most messages that wait for room in the socket.
const MAX_WAITING: usize = 4096;

/// Serves the main process at the other end of `socket` until the socket is closed.
pub fn serve(socket: &Socket) {
    let Ok(Some(first)) = socket.receive() else { return };
    let Some(ToGate::Start { deadline_ms }) = decode(&first.bytes) else { return };
    match Gate::open(socket, first, Duration::from_millis(deadline_ms)) {
        Ok(mut gate) => gate.run(),
        Err(error) => drop(socket.send(&encode(&FromGate::Refused { reason: error.to_string() }), &[])),
    }
}

struct Gate<'a> {
    socket: &'a Socket,
    group: Arc<Group>,
    /// PID of the main process, whose own execs must never be held.
    main: u32,
    /// Table of watched processes; without it every process counts as watched.
    watched: Option<Watched>,
    decider: Decider<File>,
    /// Messages for which the socket had no room.
    waiting: VecDeque<FromGate>,
    beaten: Instant,
    pulse: Pulse,
    stall: stall::Stall,
}

impl Gate<'_> {
    fn open(socket: &Socket, first: Message, patience: Duration) -> io::Result<Gate<'_>> {
        let watched = first.fds.into_iter().next().map(Watched::from_fd).transpose();
        let watched = watched.map_err(|error| io::Error::other(error.to_string()))?;
        end_with_main()?;
        limit_descriptors()?;
        run_before_others();
        let group = Arc::new(Group::open()?);
        let pulse = Pulse::default();
        watchdog::start(group.clone(), pulse.clone(), socket.as_fd().try_clone_to_owned()?.into())?;
        stay_in_memory();
        socket.send(&encode(&FromGate::Started { fanotify: group.fd() }), &[])?;
        socket.set_nonblocking(true)?;
        Ok(Gate {
            socket,
            group,
            // SAFETY: getppid has no preconditions.
            main: unsafe { libc::getppid() as u32 },
            watched,
            decider: Decider::new(patience, MAX_HELD),
            waiting: VecDeque::new(),
            beaten: Instant::now(),
            pulse,
            stall: stall::Stall::of_environment(),
        })
    }

    fn run(&mut self) {
        loop {
            self.pulse.turn();
            let (has_execs, has_messages) = self.wait();
            if has_messages && !self.receive() {
                return;
            }
            if has_execs {
                self.pulse.busy(true);
                let goes_on = self.execs();
                self.pulse.busy(false);
                if !goes_on {
                    return;
                }
            }
            self.release_overdue();
            if self.beaten.elapsed() >= BEAT {
                self.beat();
            }
            self.flush();
        }
    }

    /// Waits until there are events or messages, or something is due. Returns whether there are events, and
    /// messages.
    fn wait(&self) -> (bool, bool) {
        let beat = BEAT.saturating_sub(self.beaten.elapsed());
        let due = self.decider.next_ns().map(|due| due.saturating_sub(clock::monotonic_ns()));
        let most = due.map_or(beat, |due| beat.min(Duration::from_nanos(due)));
        // Rounded up: poll would not wait for less than a millisecond.
        let most = libc::c_int::try_from(most.as_millis() + 1).unwrap_or(libc::c_int::MAX);
        let poll = |fd, events| libc::pollfd { fd, events, revents: 0 };
        let room = if self.waiting.is_empty() { 0 } else { libc::POLLOUT };
        let mut fds =
            [poll(self.group.fd(), libc::POLLIN), poll(self.socket.as_fd().as_raw_fd(), libc::POLLIN | room)];
        // SAFETY: the array outlives the call.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, most) };
        (fds[0].revents != 0, fds[1].revents & !libc::POLLOUT != 0)
    }

    /// Handles the messages of the main process; returns `false` if that has ended.
    fn receive(&mut self) -> bool {
        loop {
            match self.socket.receive() {
                Ok(Some(message)) => self.take(message),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Ok(None) | Err(_) => return false,
            }
        }
    }

    fn take(&mut self, message: Message) {
        self.decider.heard();
        match decode(&message.bytes) {
            Some(ToGate::Mark) => {
                let point = message.fds.first();
                let done = point.is_some_and(|point| self.group.mark(point.as_fd()).is_ok());
                self.send(FromGate::Marked { done });
            }
            Some(ToGate::Answer { id, content }) => {
                let held = self.decider.answered(id, content);
                held.into_iter().for_each(|held| self.allow(&held.exec));
            }
            Some(ToGate::ForgetFiles) => self.decider.forget_files(),
            Some(ToGate::Start { .. } | ToGate::Alive) | None => {}
        }
    }

    /// Decides about the pending events; returns `false` if the group is not usable any more.
    fn execs(&mut self) -> bool {
        match self.group.read() {
            Ok(execs) => execs.into_iter().for_each(|exec| self.exec(exec)),
            // The kernel could not open one of the files, or ran out of memory, and has denied that exec.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => return false,
            Err(_) => {}
        }
        true
    }

    fn exec(&mut self, Exec { pid, file }: Exec) {
        self.stall.at_an_exec();
        let watched = pid != self.main && self.watched.as_ref().is_none_or(|watched| watched.contains(pid));
        // The inode is not needed for unwatched processes.
        let id = if watched { identify(&file) } else { None };
        let now = clock::monotonic_ns();
        match self.decider.exec(pid, watched, id, file, now) {
            Decision::Unwatched(file) => self.allow(&file),
            Decision::Known { exec, armed } => {
                // Sent before the exec is allowed, so that the kernel's exec event cannot arrive first.
                self.send(FromGate::Passed { pid, time_ns: now, armed });
                self.allow(&exec);
            }
            Decision::Release(file, reason) => self.release(None, pid, &file, reason),
            Decision::Hold(id) => self.ask(id),
        }
    }

    fn ask(&mut self, id: u64) {
        let Some(held) = self.decider.held(id) else { return };
        let question = encode(&FromGate::Ask { id, pid: held.pid });
        if self.socket.send(&question, &[held.exec.as_fd()]).is_err()
            && let Some(Held { pid, exec, .. }) = self.decider.unasked(id)
        {
            self.release(Some(id), pid, &exec, LetGo::Unresponsive);
        }
    }

    fn release_overdue(&mut self) {
        for (id, Held { pid, exec, .. }, reason) in self.decider.overdue(clock::monotonic_ns()) {
            self.release(Some(id), pid, &exec, reason);
        }
    }

    fn release(&mut self, id: Option<u64>, pid: u32, file: &File, reason: LetGo) {
        self.send(FromGate::Released { id, pid, time_ns: clock::monotonic_ns(), reason });
        self.allow(file);
    }

    fn allow(&self, file: &File) {
        // Fails if a watchdog has allowed the exec before.
        self.group.allow(file.as_raw_fd());
    }

    fn beat(&mut self) {
        let respond = self.decider.wants_response();
        // If the heartbeat cannot be sent, the main process does not receive, and no response is expected.
        if self.socket.send(&encode(&FromGate::Beat { respond }), &[]).is_ok() && respond {
            self.decider.asked(clock::monotonic_ns());
        }
        self.beaten = Instant::now();
    }

    /// Sends a message, after those that wait for room.
    fn send(&mut self, message: FromGate) {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.clear();
            self.waiting.push_back(FromGate::Unreported);
        }
        self.waiting.push_back(message);
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(message) = self.waiting.front() {
            if self.socket.send(&encode(message), &[]).is_err() {
                return;
            }
            self.waiting.pop_front();
        }
    }
}

/// Reads the identity of a file that the kernel opened for us.
fn identify(file: &File) -> Option<FileId> {
    let meta = file.metadata().ok()?;
    let ns = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Some(FileId {
        dev: meta.dev(),
        ino: meta.ino(),
        size: meta.size(),
        mtime_ns: ns(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: ns(meta.ctime(), meta.ctime_nsec()),
    })
}

/// Requests that the kernel kill this process when the thread that started it ends, even if this process is
/// stopped: a group that no process reads must not stay open.
/// <https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html>
fn end_with_main() -> io::Result<()> {
    // SAFETY: prctl takes integers here.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Limits descriptor numbers to those below [`MAX_FDS`], and allows all of these.
fn limit_descriptors() -> io::Result<()> {
    let most = libc::rlim_t::from(MAX_FDS as u32);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the struct outlives the call.
    unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit = libc::rlimit { rlim_cur: most, rlim_max: limit.rlim_max.max(most) };
    // SAFETY: the struct outlives the call.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the highest priority for this thread and those that it starts. If that is not permitted, the priority
/// of the main process stays.
fn run_before_others() {
    const MOST: libc::c_int = -20;
    // SAFETY: setpriority takes integers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, MOST) };
}

/// Locks pages in memory once they are used, because every exec of a watched process waits for this process.
/// If that is not permitted, pages may have to be read from disk again.
fn stay_in_memory() {
    // SAFETY: mlockall takes integers.
    unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) };
}

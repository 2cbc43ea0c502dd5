//! Follows processes after their exec, and attaches probes to Go code that the exec gate could not cover.
//!
//! Two kinds of Go code start without the exec gate: programs on file systems that it does not mark (other
//! mount namespaces, memfd, file systems served by user space or the network), and Go files that are not the
//! executable of their process (c-shared libraries of C and Python hosts, programs started through ld.so).
//! The kernel reports every exec, which finds the first kind at once. For the second kind, the mappings of a
//! process are read a few times after its exec, with growing intervals (`docs/run.md` has the cost). What
//! happened before the probes were attached is unknown: the incidents and the end of `run` report that.

mod found;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

pub use self::found::Unseen;
use self::found::{Found, Late};
use super::{
    armed::{Armed, lock},
    armory::{ArmError, Armory, KnownFile, Unarmed},
    gate::{Gate, Sight},
};
use crate::{
    clock,
    host::procfs::{self, MappedCode, MappedId},
};

/// Schedule on which the mappings of a process are read.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Delay between the exec and the first reading.
    first: Duration,
    /// Factor by which each interval exceeds the one before.
    growth: u32,
    /// Longest interval between two readings.
    longest: Duration,
    /// Pause between two rounds of the thread, each of which handles everything that is due: each round is
    /// one wake-up.
    round: Duration,
}

impl Pace {
    /// For sessions that watch the processes of one program.
    const PROGRAM: Pace = Pace {
        first: Duration::from_millis(4),
        growth: 2,
        longest: Duration::from_secs(1),
        round: Duration::ZERO,
    };
    /// For the daemon: most processes of a host are short-lived and exit before the first reading.
    const HOST: Pace = Pace {
        first: Duration::from_millis(250),
        growth: 4,
        longest: Duration::from_secs(60),
        round: Duration::from_millis(250),
    };
}

/// Attaches probes to a Go file that process `pid` executes; `None` if the process is not selected.
pub(super) type Attach = dyn Fn(u32, &File, &Path) -> Result<Option<Arc<Armed>>, ArmError> + Send + Sync;
/// Called with Go files to which probes could not be attached.
pub(super) type OnRefusal = dyn Fn(ArmError) + Send + Sync;

/// Most files without Go code that are remembered; when the set is full, it is cleared and files are parsed
/// again.
const MAX_OTHERS: usize = 65_536;
/// Longest wait for the thread at the end; a slow file system may block it.
const SETTLE: Duration = Duration::from_secs(2);

enum Ask {
    /// A process executed a program at `exec_ns`, CLOCK_MONOTONIC nanoseconds.
    Exec {
        pid: u32,
        exec_ns: u64,
        /// What the gate did with the exec.
        sight: Sight,
    },
    /// A process that is already running.
    Running(u32),
    /// Every process of the host.
    AllRunning,
    /// Reply when all earlier requests are done.
    Settle(Sender<()>),
    Stop,
}

/// Handle of a session's follower thread.
pub struct Follower {
    armory: Arc<Armory>,
    gate: Option<Arc<Gate>>,
    attach: Box<Attach>,
    refused: Arc<OnRefusal>,
    pace: Pace,
    /// Whether it also handles executables; the daemon leaves them to process discovery.
    finds_programs: bool,
    found: Mutex<Found>,
    queue: Mutex<Sender<Ask>>,
}

/// Scheduled reading of a process's mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Visit {
    /// Interval between the last reading and this one.
    pause: Duration,
    /// Time of its exec; `None` if that was not seen.
    exec_ns: Option<u64>,
}

/// Schedule of the thread.
#[derive(Default)]
struct Agenda {
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    /// By process, with the time at which it is due: other entries of the process in `due` are stale.
    visits: HashMap<u32, (Instant, Visit)>,
    /// Mapped files without Go code.
    others: HashSet<MappedId>,
}

impl Agenda {
    fn plan(&mut self, pid: u32, visit: Visit) {
        let at = Instant::now() + visit.pause;
        self.visits.insert(pid, (at, visit));
        self.due.push(Reverse((at, pid)));
    }

    /// Removes and returns the next process that is due now.
    fn take_due(&mut self) -> Option<(u32, Visit)> {
        loop {
            let Reverse((at, pid)) = *self.due.peek().filter(|Reverse((at, _))| *at <= Instant::now())?;
            self.due.pop();
            if self.visits.get(&pid).is_some_and(|(planned, _)| *planned == at) {
                return self.visits.remove(&pid).map(|(_, visit)| (pid, visit));
            }
        }
    }

    fn next(&self) -> Duration {
        const IDLE: Duration = Duration::from_secs(60);
        self.due.peek().map_or(IDLE, |Reverse((at, _))| at.saturating_duration_since(Instant::now()))
    }
}

impl Follower {
    /// Starts the follower thread.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub(super) fn start(
        armory: Arc<Armory>,
        gate: Option<Arc<Gate>>,
        attach: Box<Attach>,
        refused: Arc<OnRefusal>,
        finds_programs: bool,
    ) -> std::io::Result<Arc<Follower>> {
        let (queue, asked) = channel();
        let (found, queue) = (Mutex::default(), Mutex::new(queue));
        let pace = if finds_programs { Pace::PROGRAM } else { Pace::HOST };
        let follower =
            Arc::new(Follower { armory, gate, attach, refused, pace, finds_programs, found, queue });
        let of_thread = follower.clone();
        // Not an abort-on-panic thread: the gate and the eBPF programs work without it.
        thread::Builder::new().name("follower".into()).spawn(move || of_thread.serve(&asked))?;
        Ok(follower)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        lock(&self.found)
    }

    fn ask(&self, ask: Ask) {
        // Fails after the thread has ended, at the end of the session.
        let _ = lock(&self.queue).send(ask);
    }

    /// Handles an exec event of the kernel.
    pub(super) fn exec(&self, pid: u32, exec_ns: u64) {
        let sight = self.sight(pid, exec_ns);
        let mut found = self.found();
        found.forget(pid);
        if !self.finds_programs {
            found.sight(pid, exec_ns, sight);
        }
        drop(found);
        self.ask(Ask::Exec { pid, exec_ns, sight });
    }

    /// Handles the end of a process.
    pub(super) fn ended(&self, pid: u32) {
        self.found().forget(pid);
        if let Some(gate) = &self.gate {
            gate.forget(pid);
        }
    }

    /// Returns what the gate did with the exec of process `pid` at `exec_ns`.
    fn sight(&self, pid: u32, exec_ns: u64) -> Sight {
        self.gate.as_ref().map_or(Sight::Unseen, |gate| gate.saw(pid, exec_ns))
    }

    /// Searches for Go code in a process that is already running.
    pub(super) fn running(&self, pid: u32) {
        self.ask(Ask::Running(pid));
    }

    /// Searches for Go code in every process of the host.
    pub(super) fn all_running(&self) {
        self.ask(Ask::AllRunning);
    }

    /// Ends the follower thread.
    pub(super) fn stop(&self) {
        self.ask(Ask::Stop);
    }

    /// Waits until all earlier requests are done, at most [`SETTLE`].
    pub(super) fn settle(&self) {
        let (done, is_done) = channel();
        self.ask(Ask::Settle(done));
        // After a time-out, processes that are not inspected yet are missing from the final report.
        let _ = is_done.recv_timeout(SETTLE);
    }

    /// Reports whether process `pid` executes Go code that has probes.
    pub(super) fn runs_go(&self, pid: u32) -> bool {
        self.found().runs_go(pid)
    }

    /// Returns why the start of process `pid` is not covered, if it is not.
    pub(super) fn late(&self, pid: u32) -> Option<String> {
        self.found().late(pid)
    }

    /// For sessions that watch the whole host: returns why the probes in `armed` were attached too late for
    /// process `pid`, if its exec should have been held.
    pub(super) fn released(&self, pid: u32, armed: &Armed) -> Option<String> {
        self.found().released(pid, armed)
    }

    /// Returns what was not seen so far.
    pub(super) fn unseen(&self) -> Unseen {
        let ran_go = self.gate.as_ref().is_some_and(|gate| gate.ran_go());
        self.found().unseen(ran_go)
    }

    fn serve(&self, asked: &Receiver<Ask>) {
        let mut agenda = Agenda::default();
        loop {
            match asked.recv_timeout(agenda.next()) {
                Ok(ask) => {
                    if !self.serves(&mut agenda, ask) {
                        return;
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            while let Ok(ask) = asked.try_recv() {
                if !self.serves(&mut agenda, ask) {
                    return;
                }
            }
            while let Some((pid, visit)) = agenda.take_due() {
                let pause = (visit.pause * self.pace.growth).min(self.pace.longest);
                self.scan(&mut agenda, pid, Visit { pause, ..visit });
            }
            thread::sleep(self.pace.round);
        }
    }

    /// Executes one request; returns `false` if it asks the thread to end.
    fn serves(&self, agenda: &mut Agenda, ask: Ask) -> bool {
        match ask {
            Ask::Exec { pid, exec_ns, sight } => self.look(agenda, pid, exec_ns, sight),
            Ask::Running(pid) => self.meet(agenda, pid),
            Ask::AllRunning => self.meet_all(agenda),
            Ask::Settle(done) => drop(done.send(())),
            Ask::Stop => return false,
        }
        true
    }

    /// Schedules every process of the host, one after the other. Starts late, because process discovery
    /// parses the same files and has priority.
    fn meet_all(&self, agenda: &mut Agenda) {
        const BEFORE: Duration = Duration::from_secs(2);
        const BETWEEN: Duration = Duration::from_millis(20);
        let others = procfs::all().into_iter().filter(|pid| *pid != std::process::id());
        for (pid, pause) in others.zip((0..).map(|n| BEFORE + BETWEEN * n)) {
            agenda.plan(pid, Visit { pause, exec_ns: None });
        }
    }

    /// Inspects a process that is already running, unless it is followed.
    fn meet(&self, agenda: &mut Agenda, pid: u32) {
        if pid != std::process::id() && !agenda.visits.contains_key(&pid) && !self.found().runs_go(pid) {
            self.scan(agenda, pid, Visit { pause: self.pace.first, exec_ns: None });
        }
    }

    /// Inspects a process after its exec: is it a Go program, and were its probes attached in time?
    fn look(&self, agenda: &mut Agenda, pid: u32, exec_ns: u64, sight: Sight) {
        agenda.visits.remove(&pid);
        // Its previous program may have been found in the meantime.
        self.found().runs_another(pid);
        let later = Visit { pause: self.pace.first, exec_ns: Some(exec_ns) };
        if !self.finds_programs {
            return agenda.plan(pid, later);
        }
        let opened = procfs::executable(pid).and_then(|exe| Ok((File::open(&exe.link)?, exe.shown)));
        let Ok((file, shown)) = opened else {
            if sight != Sight::Held {
                self.found().unread();
            }
            return;
        };
        if let Some(gate) = &self.gate {
            gate.cover(pid);
        }
        match self.armory.known(&file) {
            Some(KnownFile::Unarmed(Unarmed::NotGo)) => {}
            // The gate, or the first caller that parsed the file, has reported the reason.
            Some(KnownFile::Unarmed(Unarmed::Refused(_))) => return,
            Some(KnownFile::Armed(armed)) => return self.program(pid, exec_ns, &armed, sight),
            Some(KnownFile::Unarmed(Unarmed::Go { .. })) | None => match (self.attach)(pid, &file, &shown) {
                Ok(Some(armed)) => return self.program(pid, exec_ns, &armed, sight),
                Ok(None) => return,
                Err(ArmError::NotGo(_)) => {}
                Err(error) => return (self.refused)(error),
            },
        }
        agenda.plan(pid, later);
    }

    /// Notes that process `pid` executes the Go program `armed`.
    fn program(&self, pid: u32, exec_ns: u64, armed: &Armed, sight: Sight) {
        // After panicwatch was stopped for a while, the kernel's event can arrive before the gate's message.
        let sight = if sight == Sight::Unseen { self.sight(pid, exec_ns) } else { sight };
        let late = Late::program(exec_ns, armed, self.gate.is_some().then_some(sight));
        self.found().go(pid, late);
    }

    /// Reads the mappings of process `pid`, and schedules the next reading if there is no Go code among them.
    fn scan(&self, agenda: &mut Agenda, pid: u32, next: Visit) {
        let Ok(files) = procfs::mapped_code(pid) else { return };
        let began_ns = next.exec_ns.unwrap_or_else(clock::monotonic_ns);
        for file in files {
            if agenda.others.contains(&file.id) {
                continue;
            }
            match self.mapped(pid, &file) {
                Ok(Some(armed)) => {
                    let late = Late::library(began_ns, &armed, next.exec_ns.is_some());
                    return self.found().go(pid, late);
                }
                // The process is not selected; its next program may be.
                Ok(None) => return,
                Err(error) => {
                    if agenda.others.len() >= MAX_OTHERS {
                        agenda.others.clear();
                    }
                    agenda.others.insert(file.id);
                    error.into_iter().for_each(|error| (self.refused)(error));
                }
            }
        }
        agenda.plan(pid, next);
    }

    /// Attaches probes to a file that process `pid` has mapped, if it is a Go file; otherwise returns an
    /// error, with what to report.
    fn mapped(&self, pid: u32, code: &MappedCode) -> Result<Option<Arc<Armed>>, Option<ArmError>> {
        let file = code.open(pid).map_err(|_| None)?;
        match self.armory.known(&file) {
            Some(KnownFile::Unarmed(Unarmed::NotGo | Unarmed::Refused(_))) => Err(None),
            Some(KnownFile::Armed(armed)) => (self.attach)(pid, &file, &armed.program.path).map_err(Some),
            Some(KnownFile::Unarmed(Unarmed::Go { .. })) | None => (self.attach)(pid, &file, &code.id.path)
                .map_err(|error| match error {
                    ArmError::NotGo(_) => None,
                    error => Some(error),
                }),
        }
    }
}

/// Returns the Go files that process `pid` has mapped as code, opened; empty if they cannot be read.
pub fn mapped_go(pid: u32) -> Vec<(File, std::path::PathBuf)> {
    let Ok(files) = procfs::mapped_code(pid) else { return Vec::new() };
    let opened = files.into_iter().filter_map(|code| Some((code.open(pid).ok()?, code.id.path)));
    opened.filter(|(file, _)| super::armory::open(file).is_ok()).collect()
}

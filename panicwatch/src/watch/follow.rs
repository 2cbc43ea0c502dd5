//! Follows processes after their exec, and attaches probes to the Go code that no exec gate could attach them to before.
//!
//! Two kinds of Go code begin to run unannounced: programs on file systems without a mark of the exec gate (other mount namespaces,
//! memfd, what user space or the network serves), and Go files that are no executable of their process: c-shared libraries of C and
//! Python hosts, programs started through ld.so. The kernel reports every exec, which finds the first kind at once. For the second
//! kind the mappings of a process are read a few times after its exec and ever more rarely then (`docs/run.md` has the cost). What
//! ran before the probes were attached is not known: the incidents and the end of `run` say so.

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

/// How often the mappings of a process are read.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Between the exec and the first time.
    first: Duration,
    /// Each pause is the last one times this.
    growth: u32,
    /// The longest pause.
    longest: Duration,
    /// Between two rounds of the thread, which handles everything that is due: each round wakes it once.
    round: Duration,
}

impl Pace {
    /// Of sessions that watch the processes of one program.
    const PROGRAM: Pace = Pace {
        first: Duration::from_millis(4),
        growth: 2,
        longest: Duration::from_secs(1),
        round: Duration::ZERO,
    };
    /// Of the daemon: most processes of a host are short-lived, and are gone before the first time.
    const HOST: Pace = Pace {
        first: Duration::from_millis(250),
        growth: 4,
        longest: Duration::from_secs(60),
        round: Duration::from_millis(250),
    };
}

/// Attaches probes to a Go file that process `pid` runs; `None` where the process is not selected.
pub(super) type Attach = dyn Fn(u32, &File, &Path) -> Result<Option<Arc<Armed>>, ArmError> + Send + Sync;
/// Called with Go files to which probes could not be attached.
pub(super) type OnRefusal = dyn Fn(ArmError) + Send + Sync;

/// Files without Go code that are remembered; with more, they are read again.
const MAX_OTHERS: usize = 65_536;
/// The longest wait for the thread at the end: it may be held up by a file system.
const SETTLE: Duration = Duration::from_secs(2);

enum Ask {
    /// This process executed a program then, CLOCK_MONOTONIC nanoseconds.
    Exec {
        pid: u32,
        exec_ns: u64,
        /// What the gate did with it.
        sight: Sight,
    },
    /// This process runs already.
    Running(u32),
    /// Every process of the host.
    AllRunning,
    /// Answer when everything asked before is done.
    Settle(Sender<()>),
    Stop,
}

/// The follower of a session.
pub struct Follower {
    armory: Arc<Armory>,
    gate: Option<Arc<Gate>>,
    attach: Box<Attach>,
    refused: Arc<OnRefusal>,
    pace: Pace,
    /// Executables are its business too; the daemon has process discovery for them.
    finds_programs: bool,
    found: Mutex<Found>,
    queue: Mutex<Sender<Ask>>,
}

/// A process whose mappings will be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Visit {
    /// Between the last time and the next.
    pause: Duration,
    /// Its exec; `None` when that was not seen.
    exec_ns: Option<u64>,
}

/// What the thread has to do later.
#[derive(Default)]
struct Agenda {
    due: BinaryHeap<Reverse<(Instant, u32)>>,
    /// By process, with the time at which it is due: other times of it in `due` are void.
    visits: HashMap<u32, (Instant, Visit)>,
    /// Mapped files that hold no Go code.
    others: HashSet<MappedId>,
}

impl Agenda {
    fn plan(&mut self, pid: u32, visit: Visit) {
        let at = Instant::now() + visit.pause;
        self.visits.insert(pid, (at, visit));
        self.due.push(Reverse((at, pid)));
    }

    /// The next process that is due now.
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
    /// Starts the thread.
    ///
    /// # Errors
    /// Without threads.
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
        // Not a vital thread: what the gate and the programs in the kernel do goes on without it.
        thread::Builder::new().name("follower".into()).spawn(move || of_thread.serve(&asked))?;
        Ok(follower)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        lock(&self.found)
    }

    fn ask(&self, ask: Ask) {
        // The thread ends with the session.
        let _ = lock(&self.queue).send(ask);
    }

    /// The kernel reports an exec.
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

    /// The kernel reports the end of a process.
    pub(super) fn ended(&self, pid: u32) {
        self.found().forget(pid);
        if let Some(gate) = &self.gate {
            gate.forget(pid);
        }
    }

    /// What the gate did with the exec of process `pid` at `exec_ns`.
    fn sight(&self, pid: u32, exec_ns: u64) -> Sight {
        self.gate.as_ref().map_or(Sight::Unseen, |gate| gate.saw(pid, exec_ns))
    }

    /// Looks for Go code in a process that runs already.
    pub(super) fn running(&self, pid: u32) {
        self.ask(Ask::Running(pid));
    }

    /// Looks for Go code in every process of the host.
    pub(super) fn all_running(&self) {
        self.ask(Ask::AllRunning);
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.ask(Ask::Stop);
    }

    /// Waits until everything that was asked before is done, within bounds.
    pub(super) fn settle(&self) {
        let (done, is_done) = channel();
        self.ask(Ask::Settle(done));
        // On a time-out, what is not known yet stays out of the account.
        let _ = is_done.recv_timeout(SETTLE);
    }

    /// Does process `pid` run Go code that has probes?
    pub(super) fn runs_go(&self, pid: u32) -> bool {
        self.found().runs_go(pid)
    }

    /// Why the start of process `pid` is not covered, if it is not.
    pub(super) fn late(&self, pid: u32) -> Option<String> {
        self.found().late(pid)
    }

    /// Of a session about the whole host: why the probes in `armed` came too late for process `pid`, if its exec was to be held.
    pub(super) fn released(&self, pid: u32, armed: &Armed) -> Option<String> {
        self.found().released(pid, armed)
    }

    /// What was not seen so far.
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

    /// Carries out one request; `false` when it asks the thread to end.
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

    /// Every process of the host, one after the other: process discovery, which has the same files to read, comes first.
    fn meet_all(&self, agenda: &mut Agenda) {
        const BEFORE: Duration = Duration::from_secs(2);
        const BETWEEN: Duration = Duration::from_millis(20);
        let others = procfs::all().into_iter().filter(|pid| *pid != std::process::id());
        for (pid, pause) in others.zip((0..).map(|n| BEFORE + BETWEEN * n)) {
            agenda.plan(pid, Visit { pause, exec_ns: None });
        }
    }

    /// A process that runs already, unless it is followed.
    fn meet(&self, agenda: &mut Agenda, pid: u32) {
        if pid != std::process::id() && !agenda.visits.contains_key(&pid) && !self.found().runs_go(pid) {
            self.scan(agenda, pid, Visit { pause: self.pace.first, exec_ns: None });
        }
    }

    /// A process has executed a program: is it Go, and were its probes in?
    fn look(&self, agenda: &mut Agenda, pid: u32, exec_ns: u64, sight: Sight) {
        agenda.visits.remove(&pid);
        // Its program before may have been found since.
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
            // The gate, or the first caller that met it, reported why.
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

    /// Process `pid` runs the Go program `armed`.
    fn program(&self, pid: u32, exec_ns: u64, armed: &Armed, sight: Sight) {
        // After a time in which this process was stopped, the kernel's report can come before the gate's.
        let sight = if sight == Sight::Unseen { self.sight(pid, exec_ns) } else { sight };
        let late = Late::program(exec_ns, armed, self.gate.is_some().then_some(sight));
        self.found().go(pid, late);
    }

    /// Reads the mappings of process `pid`, and plans the next time if no Go code is among them.
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
                // Not selected; its next program may be.
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

    /// Attaches probes to a file that process `pid` has mapped, if that is Go; else an error, with what is to be reported.
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

/// The Go files that process `pid` has mapped as code, opened; none when they cannot be read.
pub fn mapped_go(pid: u32) -> Vec<(File, std::path::PathBuf)> {
    let Ok(files) = procfs::mapped_code(pid) else { return Vec::new() };
    let opened = files.into_iter().filter_map(|code| Some((code.open(pid).ok()?, code.id.path)));
    opened.filter(|(file, _)| super::armory::open(file).is_ok()).collect()
}

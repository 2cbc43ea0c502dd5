//! All Go processes of the host: found when watching begins and at every exec, watched if they are selected.
//!
//! A thread of its own reads /proc and arms binaries, so that the event loop never waits for a disk. What a process is
//! cannot be read once it is gone; a short-lived one is then told of by what its exec and its binary say.

mod cri;
mod find;
mod gone;
mod place;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use super::{armed::Armed, armory::Armory};
use crate::{container::Place, host::procfs, incident, vital};

pub use gone::Unread;

/// Between two looks at all of /proc: a net under the exec events, which can be lost.
const SWEEP: Duration = Duration::from_secs(30);
/// A binary that no process runs keeps its probes for so long: the next may be started soon.
const IDLE: Duration = Duration::from_secs(600);
/// One that has no name any more, or none that we can reach, for so long: probes keep its disk space and its mount.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c> (struct uprobe holds the inode),
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/trace/bpf_trace.c> (bpf_uprobe_multi_link holds the path)
const IDLE_UNREACHABLE: Duration = Duration::from_secs(10);
/// Between two looks for binaries that nobody runs.
const RETIRE: Duration = Duration::from_secs(1);
/// Execs that are remembered until somebody asks who that was, each with a few kilobytes of arguments and environment; those
/// of programs that are not Go are forgotten at once.
const MAX_EXECS: usize = 1024;

/// Who is to be selected.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// What /proc tells.
    pub process: &'a incident::Process,
    /// Main module of its binary.
    pub module: Option<&'a str>,
    /// Control group, container, pod.
    pub place: &'a Place,
    /// Effective user; `None` when the process is gone.
    pub uid: Option<u32>,
}

/// Says whether a process is watched; else why not, as a sentence.
pub type Select = dyn Fn(&Candidate<'_>) -> Result<(), String> + Send + Sync;

/// A Go process.
#[derive(Debug, Clone)]
pub struct Known {
    /// Clock ticks from boot to its start: with the pid its identity. `None` when it was gone before it was looked at.
    pub started: Option<u64>,
    /// What is known of it.
    pub process: incident::Process,
    /// Row of its binary; `None` when that has no probes.
    pub row: Option<u32>,
    /// Why it is not watched.
    pub left_out: Option<String>,
    /// Incidents so far.
    pub incidents: u64,
}

/// What the kernel told of an exec.
struct Exec {
    pid: u32,
    args: Option<Vec<u8>>,
    env: Option<Vec<u8>>,
    /// What /proc told since, while the process was there: its panic may be heard of when it is gone.
    seen: Option<Seen>,
}

/// What /proc tells of a process.
#[derive(Clone)]
struct Seen {
    started: Option<u64>,
    process: incident::Process,
    place: Place,
    uid: Option<u32>,
}

#[derive(Default)]
struct State {
    known: HashMap<u32, Known>,
    execs: VecDeque<Exec>,
    /// Binaries that no process runs, since when.
    idle: HashMap<u32, Instant>,
    /// Go binaries that cannot be watched, by path, with the reason.
    refused: HashMap<String, String>,
}

/// What the thread is asked to do.
enum Look {
    At(u32),
    AtAll,
    Stop,
}

/// The host's Go processes.
pub struct Census {
    armory: Arc<Armory>,
    state: Mutex<State>,
    select: Mutex<Arc<Select>>,
    names: place::Names,
    queue: Mutex<Sender<Look>>,
    looked: AtomicBool,
    /// Programs that ended before their file could be read, by [`Unread`].
    unread: [AtomicU64; Unread::ALL.len()],
}

impl Census {
    /// Starts looking: first at all processes there are.
    ///
    /// # Errors
    /// Without threads.
    pub fn start(armory: Arc<Armory>, select: Arc<Select>) -> std::io::Result<Arc<Census>> {
        let (queue, looks) = channel();
        let census = Arc::new(Census {
            armory,
            state: Mutex::default(),
            select: Mutex::new(select),
            names: place::Names::default(),
            queue: Mutex::new(queue),
            looked: AtomicBool::new(false),
            unread: Default::default(),
        });
        census.ask(Look::AtAll);
        let of_thread = census.clone();
        vital::spawn("census", move || of_thread.serve(&looks))?;
        Ok(census)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, look: Look) {
        // The thread ends last of all; nobody misses what it would have found then.
        let _ = self.queue.lock().unwrap_or_else(PoisonError::into_inner).send(look);
    }

    /// Ends the thread: nothing is armed or retired any more.
    pub fn stop(&self) {
        self.ask(Look::Stop);
    }

    /// Another selection: everybody is looked at again.
    pub fn reselect(&self, select: Arc<Select>) {
        *self.select.lock().unwrap_or_else(PoisonError::into_inner) = select;
        self.state().known.clear();
        self.ask(Look::AtAll);
    }

    fn selection(&self) -> Arc<Select> {
        self.select.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A process has begun a program, the kernel says.
    pub(super) fn exec(&self, pid: u32, args: Option<Vec<u8>>, env: Option<Vec<u8>>) {
        let mut state = self.state();
        state.known.remove(&pid);
        state.execs.retain(|exec| exec.pid != pid);
        if state.execs.len() >= MAX_EXECS {
            state.execs.pop_front();
        }
        state.execs.push_back(Exec { pid, args, env, seen: None });
        drop(state);
        self.ask(Look::At(pid));
    }

    /// A process has ended, and its last event was taken.
    pub(super) fn ended(&self, pid: u32) {
        let mut state = self.state();
        state.known.remove(&pid);
        state.execs.retain(|exec| exec.pid != pid);
    }

    /// Is an event of that process, from a probe in `armed`, wanted?
    pub(super) fn wants(&self, pid: u32, armed: &Armed) -> bool {
        if let Some(known) = self.state().known.get(&pid) {
            return known.left_out.is_none();
        }
        let mut known = self.meet(pid, armed.module().as_deref(), Some(&armed.program.path));
        known.row = Some(armed.index);
        let wanted = known.left_out.is_none();
        if !wanted {
            self.ignore(pid);
        }
        self.state().known.insert(pid, known);
        wanted
    }

    /// What is known of a process that [`Census::wants`] was asked about.
    pub fn process(&self, pid: u32) -> incident::Process {
        let state = self.state();
        state.known.get(&pid).map_or_else(|| procfs::process(pid), |known| known.process.clone())
    }

    /// Row of the binary that process `pid` runs, if that has probes.
    pub(super) fn row(&self, pid: u32) -> Option<u32> {
        self.state().known.get(&pid)?.row
    }

    /// Nobody will ask what the kernel told of that exec.
    fn forget_exec(&self, pid: u32) {
        self.state().execs.retain(|exec| exec.pid != pid);
    }

    /// An incident of that process is told.
    pub(super) fn had_incident(&self, pid: u32) {
        if let Some(known) = self.state().known.get_mut(&pid) {
            known.incidents += 1;
        }
    }

    /// Every process that there was has been looked at.
    pub fn has_looked_at_all(&self) -> bool {
        self.looked.load(Ordering::Acquire)
    }

    /// All Go processes.
    pub fn known(&self) -> Vec<Known> {
        self.state().known.values().cloned().collect()
    }

    /// Go binaries that cannot be watched: path and reason.
    pub fn refused(&self) -> Vec<(String, String)> {
        self.state().refused.iter().map(|(path, reason)| (path.clone(), reason.clone())).collect()
    }

    /// Programs that ended before their file could be read, by reason.
    pub fn unread(&self) -> Vec<(Unread, u64)> {
        Unread::ALL.map(|unread| (unread, self.unread[unread as usize].load(Ordering::Relaxed))).to_vec()
    }

    fn serve(&self, looks: &Receiver<Look>) {
        let mut swept = Instant::now();
        let mut retired = Instant::now();
        loop {
            match looks.recv_timeout(Duration::from_secs(1)) {
                Ok(Look::At(pid)) => {
                    if let Err(unread) = self.look(pid) {
                        self.unread[unread as usize].fetch_add(1, Ordering::Relaxed);
                    }
                }
                Ok(Look::AtAll) => {
                    self.look_at_all();
                    self.looked.store(true, Ordering::Release);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Look::Stop) | Err(RecvTimeoutError::Disconnected) => return,
            }
            if swept.elapsed() >= SWEEP {
                self.look_at_all();
                self.forget_vanished();
                swept = Instant::now();
            }
            if retired.elapsed() >= RETIRE {
                self.retire_idle();
                retired = Instant::now();
            }
        }
    }

    /// Whom nobody told us the end of.
    fn forget_vanished(&self) {
        let known: Vec<(u32, Option<u64>)> =
            self.state().known.iter().map(|(pid, known)| (*pid, known.started)).collect();
        for (pid, started) in known {
            let now = procfs::started(pid);
            if now.is_none() || (started.is_some() && now != started) {
                self.state().known.remove(&pid);
                if now.is_none() {
                    // It is not in the table if its end was seen by the kernel's side.
                    let _ = self.armory.with_programs(|programs| programs.unwatch(pid));
                }
            }
        }
    }

    /// Takes the probes off binaries that nobody has run for a while.
    fn retire_idle(&self) {
        let mut state = self.state();
        let now = Instant::now();
        let mut over = Vec::new();
        for armed in self.armory.all() {
            let row = armed.index;
            if state.known.values().any(|known| known.row == Some(row) && known.left_out.is_none()) {
                state.idle.remove(&row);
                continue;
            }
            let since = *state.idle.entry(row).or_insert(now);
            let bound = if armed.is_reachable() { IDLE } else { IDLE_UNREACHABLE };
            if now.duration_since(since) >= bound {
                over.push(row);
            }
        }
        over.iter().for_each(|row| {
            state.idle.remove(row);
        });
        drop(state);
        over.into_iter().for_each(|row| self.armory.retire(row));
    }

    fn ignore(&self, pid: u32) {
        // The table is full of processes that are watched: then this one's events are dropped here.
        let _ = self.armory.with_programs(|programs| programs.ignore(pid));
    }
}

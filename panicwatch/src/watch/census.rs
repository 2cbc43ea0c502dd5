//! Process discovery: finds all Go processes of the host, at start and at every exec, and watches those that
//! match the selector.
//!
//! A thread reads /proc and arms binaries, so that the event loop never waits for a disk. A process cannot be
//! inspected after its end; a short-lived one is described by its exec event and its binary instead.

mod cri;
mod find;
mod gone;
mod place;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use super::{armed::Armed, armory::Armory};
use crate::{container::Place, host::procfs, incident, vital};

pub use gone::Unread;

/// Interval of full scans of /proc, in case exec events are lost.
const SWEEP: Duration = Duration::from_secs(30);
/// How long the probes of a binary that no process executes stay attached: it may be started again soon.
const IDLE: Duration = Duration::from_secs(600);
/// The same for a binary that was deleted or that we cannot reach: probes keep its disk space and its mount
/// in use.
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c> (struct uprobe holds the inode),
/// <https://github.com/torvalds/linux/blob/v6.12/kernel/trace/bpf_trace.c> (bpf_uprobe_multi_link holds the
/// path)
const IDLE_UNREACHABLE: Duration = Duration::from_secs(10);
/// Interval at which unused binaries are looked for.
const RETIRE: Duration = Duration::from_secs(1);
/// Maximum number of exec events kept, each with a few kilobytes of arguments and environment: this many
/// whose process is not inspected yet, and this many Go programs that were. Crossed by
/// `a_backlog_is_bounded`.
const MAX_EXECS: usize = 1024;

/// Process to match against the selector.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Description of the process, from /proc.
    pub process: &'a incident::Process,
    /// Path of the main module of its binary.
    pub module: Option<&'a str>,
    /// Its cgroup, container and pod.
    pub place: &'a Place,
    /// Effective user ID; `None` if the process has exited.
    pub uid: Option<u32>,
}

/// Selector: returns whether a process is watched; if not, why, as a sentence.
pub type Select = dyn Fn(&Candidate<'_>) -> Result<(), String> + Send + Sync;

/// A discovered Go process.
#[derive(Debug, Clone)]
pub struct Known {
    /// Start time, clock ticks since boot: identifies the process together with the PID. `None` if it exited
    /// before it was inspected.
    pub started: Option<u64>,
    /// Description of the process.
    pub process: incident::Process,
    /// Row of its binary; `None` if the binary has no probes.
    pub row: Option<u32>,
    /// Why it is not watched; `None` if it is.
    pub left_out: Option<String>,
    /// Number of its incidents so far.
    pub incidents: u64,
}

/// What the kernel reports of an exec.
#[derive(Debug)]
struct Reported {
    /// Time of the exec, CLOCK_MONOTONIC nanoseconds.
    time_ns: u64,
    /// Arguments and environment of the program, if they could be read.
    args: Option<Vec<u8>>,
    env: Option<Vec<u8>>,
}

/// An exec event of the kernel.
struct Exec {
    pid: u32,
    reported: Arc<Reported>,
    /// What /proc had on the process while it existed: its panic may be processed after its end.
    seen: Option<Seen>,
}

/// Description of a process, read from /proc.
#[derive(Clone)]
struct Seen {
    started: Option<u64>,
    /// Row of the binary that the process was seen to map, if that was checked.
    row: Option<u32>,
    process: incident::Process,
    place: Place,
    uid: Option<u32>,
}

#[derive(Default)]
struct State {
    known: HashMap<u32, Known>,
    execs: VecDeque<Exec>,
    /// Binaries that no process executes, by row, with the time since when.
    idle: HashMap<u32, Instant>,
    /// Go binaries that cannot be watched, by path, with the reason.
    refused: HashMap<String, String>,
}

/// Request to the thread.
enum Look {
    /// Inspects a process after its exec.
    At(u32, Executed),
    AtAll,
    Stop,
}

/// What is known of the exec of a process that is to be inspected, which may have ended by then.
enum Executed {
    Reported(Arc<Reported>),
    /// Nothing, because [`MAX_EXECS`] processes were to be inspected already.
    Dropped,
}

/// Process discovery and the table of the host's Go processes.
pub struct Census {
    armory: Arc<Armory>,
    state: Mutex<State>,
    select: Mutex<Arc<Select>>,
    names: place::Names,
    queue: Mutex<Sender<Look>>,
    /// Processes in the queue whose [`Reported`] is kept.
    queued: AtomicUsize,
    looked: AtomicBool,
    /// Number of programs that ended before they were inspected and have no probes, by [`Unread`].
    unread: [AtomicU64; Unread::ALL.len()],
}

impl Census {
    /// Starts the thread, which first inspects all existing processes.
    ///
    /// # Errors
    /// Fails if the thread cannot be started.
    pub fn start(armory: Arc<Armory>, select: Arc<Select>) -> std::io::Result<Arc<Census>> {
        let (queue, looks) = channel();
        let census = Arc::new(Census {
            armory,
            state: Mutex::default(),
            select: Mutex::new(select),
            names: place::Names::default(),
            queue: Mutex::new(queue),
            queued: AtomicUsize::new(0),
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
        // The receiver is gone only after the thread has ended; its results are not needed then.
        let _ = self.queue.lock().unwrap_or_else(PoisonError::into_inner).send(look);
    }

    /// Ends the thread: no binary is armed or retired any more.
    pub fn stop(&self) {
        self.ask(Look::Stop);
    }

    /// Replaces the selector and inspects all processes again.
    pub fn reselect(&self, select: Arc<Select>) {
        *self.select.lock().unwrap_or_else(PoisonError::into_inner) = select;
        self.state().known.clear();
        self.ask(Look::AtAll);
    }

    fn selection(&self) -> Arc<Select> {
        self.select.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Handles an exec event of the kernel.
    pub(super) fn exec(&self, pid: u32, time_ns: u64, args: Option<Vec<u8>>, env: Option<Vec<u8>>) {
        let reported = Arc::new(Reported { time_ns, args, env });
        let mut state = self.state();
        state.known.remove(&pid);
        state.execs.retain(|exec| exec.pid != pid);
        if state.execs.len() >= MAX_EXECS {
            state.execs.pop_front();
        }
        state.execs.push_back(Exec { pid, reported: reported.clone(), seen: None });
        drop(state);
        self.ask(Look::At(pid, queued(&self.queued, reported)));
    }

    /// Handles the end of a process, after its last event.
    pub(super) fn ended(&self, pid: u32) {
        let mut state = self.state();
        state.known.remove(&pid);
        state.execs.retain(|exec| exec.pid != pid);
    }

    /// Reports whether events of process `pid`, from a probe in `armed`, are wanted.
    pub(super) fn wants(&self, pid: u32, armed: &Armed) -> bool {
        if let Some((row, is_wanted)) = self.known_of(pid)
            && (row.is_none_or(|row| row == armed.index)
                || armed.is_library()
                || armed.is_mapped_by(pid) == Some(true))
        {
            return is_wanted;
        }
        // Either the process is unknown, or the known one is a later process with the same PID.
        let mut known = self.meet(pid, armed.module().as_deref(), Some(&armed.program.path), Some(armed));
        known.row = Some(armed.index);
        let wanted = known.left_out.is_none();
        if !wanted {
            self.ignore(pid);
        }
        self.state().known.insert(pid, known);
        wanted
    }

    /// Returns the row of process `pid` and whether it is watched, if it is known.
    fn known_of(&self, pid: u32) -> Option<(Option<u32>, bool)> {
        self.state().known.get(&pid).map(|known| (known.row, known.left_out.is_none()))
    }

    /// Returns the description of a process for which [`Census::wants`] was called.
    pub fn process(&self, pid: u32) -> incident::Process {
        let state = self.state();
        state.known.get(&pid).map_or_else(|| procfs::process(pid), |known| known.process.clone())
    }

    /// Returns the row of the binary that process `pid` executes, if that has probes.
    pub(super) fn row(&self, pid: u32) -> Option<u32> {
        self.state().known.get(&pid)?.row
    }

    /// Drops the exec event of process `pid`, which will not be needed.
    fn forget_exec(&self, pid: u32) {
        self.state().execs.retain(|exec| exec.pid != pid);
    }

    /// Counts an incident of process `pid`.
    pub(super) fn had_incident(&self, pid: u32) {
        if let Some(known) = self.state().known.get_mut(&pid) {
            known.incidents += 1;
        }
    }

    /// Reports whether all processes that existed at start have been inspected.
    pub fn has_looked_at_all(&self) -> bool {
        self.looked.load(Ordering::Acquire)
    }

    /// Returns all discovered Go processes.
    pub fn known(&self) -> Vec<Known> {
        self.state().known.values().cloned().collect()
    }

    /// Returns the Go binaries that cannot be watched: path and reason.
    pub fn refused(&self) -> Vec<(String, String)> {
        self.state().refused.iter().map(|(path, reason)| (path.clone(), reason.clone())).collect()
    }

    /// Returns the number of programs that ended before they were inspected and have no probes, by reason.
    pub fn unread(&self) -> Vec<(Unread, u64)> {
        Unread::ALL.map(|unread| (unread, self.unread[unread as usize].load(Ordering::Relaxed))).to_vec()
    }

    /// Counts a program that ended before it was inspected and has no probes.
    fn count(&self, unread: Unread) {
        self.unread[unread as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn serve(&self, looks: &Receiver<Look>) {
        let mut swept = Instant::now();
        let mut retired = Instant::now();
        loop {
            match looks.recv_timeout(Duration::from_secs(1)) {
                Ok(Look::At(pid, executed)) => {
                    if matches!(executed, Executed::Reported(_)) {
                        self.queued.fetch_sub(1, Ordering::Relaxed);
                    }
                    if let Err(unread) = self.look(pid).or_else(|_| self.for_the_next(pid, &executed)) {
                        self.count(unread);
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

    /// Drops processes whose exit event was lost.
    fn forget_vanished(&self) {
        let known: Vec<(u32, Option<u64>)> =
            self.state().known.iter().map(|(pid, known)| (*pid, known.started)).collect();
        for (pid, started) in known {
            let now = procfs::started(pid);
            if now.is_none() || (started.is_some() && now != started) {
                self.state().known.remove(&pid);
                if now.is_none() {
                    // Fails if the eBPF program has seen the exit and removed the process from the table.
                    let _ = self.armory.with_programs(|programs| programs.unwatch(pid));
                }
            }
        }
    }

    /// Retires binaries that no watched process has executed for a while.
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
        // Fails if the table of watched processes is full: this process's events are then dropped in user
        // space.
        let _ = self.armory.with_programs(|programs| programs.ignore(pid));
    }
}

/// Keeps the data of an exec for the thread, unless that is too far behind.
fn queued(count: &AtomicUsize, reported: Arc<Reported>) -> Executed {
    if count.fetch_add(1, Ordering::Relaxed) < MAX_EXECS {
        return Executed::Reported(reported);
    }
    count.fetch_sub(1, Ordering::Relaxed);
    Executed::Dropped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_is_bounded() {
        let count = AtomicUsize::new(0);
        let add = || {
            matches!(
                queued(&count, Arc::new(Reported { time_ns: 0, args: None, env: None })),
                Executed::Reported(_)
            )
        };
        assert!((0..MAX_EXECS).all(|_| add()));
        assert!(!add() && !add());
        count.fetch_sub(1, Ordering::Relaxed);
        assert!(add() && !add(), "room for one");
    }
}

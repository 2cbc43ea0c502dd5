//! A watching session: the probes, processes and events of `run`, `attach` or the daemon, until the program
//! ends or the session is stopped.

mod counted;
mod descendants;
mod event_loop;
mod holding;
mod incidents;
mod start;

use std::{
    collections::VecDeque,
    fs::File,
    io,
    path::Path,
    process::ExitStatus,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender},
    },
};

pub use self::counted::Counted;
use self::counted::CountedPanics;
use super::{
    armed::Armed,
    armory::{ArmError, Armory},
    census::{Census, Select},
    flight::Flight,
    follow::Follower,
    gate::Gate,
    governor::{Account, Told},
    host,
    reader::Reader,
};
use crate::{
    capture::Program,
    correlate::Correlator,
    event::Assembler,
    incident::{Incident, Process},
    init_trace::{Collected, Collector},
    probe::error::ProbeError,
};

/// Which processes a session watches.
pub enum Scope {
    /// Processes passed to [`Session::watch`] and their descendants.
    Chosen,
    /// Every process of an armed binary as well.
    Binaries,
    /// Every Go process of the host that matches the selector.
    Host {
        /// Decides which processes are watched.
        select: Arc<Select>,
        /// Whether the first exec of a binary is held until its probes are attached.
        hold: bool,
    },
}

/// Input of the session's loop.
pub enum Input {
    /// A record of the event ring.
    Record(Vec<u8>),
    /// A binary that is about to be executed could not be armed.
    Refused(ArmError),
    /// The program that `run` started has ended.
    ChildExited(ExitStatus),
    /// A message for the user.
    Note(String),
    /// A message that the next incident contains, too.
    Aside(String),
    /// A request to stop.
    Stop,
}

/// Result of [`Session::wait`].
#[derive(Debug)]
pub enum Output {
    /// A complete incident.
    Incident(Box<Incident>),
    /// A message for the user, as a sentence.
    Note(String),
    /// A message for a user who follows the session live; the next incident contains it, too.
    Aside(String),
    /// Panics that were raised faster than they are captured.
    Counted(Counted),
    /// The initialisation of the traced program is over; with the binary that it executed. Incidents at its
    /// end are returned earlier.
    Init(Box<Collected>, Arc<Program>),
    /// The program has ended, and everything before its end was returned.
    ChildExited(ExitStatus),
    /// The session was stopped, and everything before that was returned.
    Stopped,
    /// Once a second in a session that watches the whole host: an opportunity for periodic work.
    Tick,
}

/// A running session; dropping it detaches all probes.
pub struct Session {
    armory: Arc<Armory>,
    reader: Reader,
    inputs: Receiver<Input>,
    sender: SyncSender<Input>,
    assembler: Assembler,
    correlator: Correlator,
    outputs: VecDeque<Output>,
    gate: Result<Arc<Gate>, io::Error>,
    follower: Arc<Follower>,
    /// Whether the session continues after the end of the program that `run` started.
    waits_for_descendants: bool,
    /// Exit status of that program, once it has ended.
    child_status: Option<ExitStatus>,
    /// The process that we started, until its image is seen.
    launched: Option<Process>,
    /// Collects the initialisation in a session that traces it, until that is over.
    init: Option<Collector>,
    /// The flight recorder, in a session that records.
    flight: Option<Flight>,
    /// Host name and boot ID, added to every incident.
    host: host::Current,
    /// Panics that were counted but not captured.
    counted: CountedPanics,
    /// Process discovery, in a session that watches the whole host.
    census: Option<Arc<Census>>,
    /// Number of records taken from the ring.
    records: u64,
    /// Number of lost records at the time when exited processes were last looked for.
    lost_records: u64,
    account: Account,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.follower.stop();
        self.armory.take_all_off();
    }
}

impl Session {
    /// Traces the initialisation of the first Go program that starts: binaries that are armed from now on get
    /// the probes for it, until [`Output::Init`].
    pub fn trace_init(&mut self) {
        self.armory.trace_init();
        self.init = Some(Collector::new());
    }

    /// Returns why descendants of watched processes will not be covered from their first instruction; `None`
    /// if they will.
    pub fn gate_problem(&self) -> Option<&io::Error> {
        self.gate.as_ref().err()
    }

    /// Returns the exec gate, if there is one.
    pub fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.as_ref().ok().cloned()
    }

    /// Returns a sender for threads that pass input to the loop.
    pub fn sender(&self) -> SyncSender<Input> {
        self.sender.clone()
    }

    /// Returns process discovery, in a session that watches the whole host.
    pub fn census(&self) -> Option<Arc<Census>> {
        self.census.clone()
    }

    /// Returns the probe registry.
    pub fn armory(&self) -> Arc<Armory> {
        self.armory.clone()
    }

    /// Returns the number of records taken from the event ring so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Returns the number of records that were read from the ring and not processed yet.
    pub fn queued(&self) -> u64 {
        self.reader.passed().saturating_sub(self.records)
    }

    /// Returns the status of the governor.
    pub fn governor(&self) -> Told {
        self.account.get().clone()
    }

    /// Attaches probes to a binary.
    ///
    /// # Errors
    /// Fails if it is not a Go program, cannot be read, or the kernel rejects a probe.
    pub fn arm(&self, file: &File, name: &Path) -> Result<Arc<Armed>, ArmError> {
        self.armory.arm(file, name)
    }

    /// Watches a process and its future descendants; `runs` is the binary that it executes already, if it
    /// does.
    ///
    /// # Errors
    /// Fails if the table of watched processes is full.
    pub fn watch(&self, pid: u32, runs: Option<&Armed>) -> Result<(), ProbeError> {
        self.armory.with_programs(|programs| programs.watch(pid, runs.map(|armed| armed.index)))
    }

    /// Runs `start` so that the processes it starts are watched from their fork on: the eBPF programs follow
    /// the forks of watched processes, so our own process is watched for that time.
    ///
    /// # Errors
    /// Fails if the table of watched processes is full.
    pub fn watching_forks<R>(&self, start: impl FnOnce() -> R) -> Result<R, ProbeError> {
        let _ourselves = self.armory.ourselves();
        let us = std::process::id();
        self.watch(us, None)?;
        let started = start();
        self.unwatch(us)?;
        Ok(started)
    }

    /// Removes a process from the table of watched processes; its descendants stay.
    ///
    /// # Errors
    /// Fails if the process was not in the table.
    fn unwatch(&self, pid: u32) -> Result<(), ProbeError> {
        self.armory.with_programs(|programs| programs.unwatch(pid))
    }

    /// Describes the process that we started: its arguments and environment are then known even if it ends
    /// before it is inspected.
    pub fn launched(&mut self, info: Process) {
        self.launched = Some(info);
    }

    /// Passes the description of a process to the correlator.
    pub fn describe(&mut self, info: Process) {
        self.correlator.describe(info);
    }
}

fn program(armory: &Armory, index: u32) -> Option<Arc<Program>> {
    armory.get(index).map(|armed| armed.program.clone())
}

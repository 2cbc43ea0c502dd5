//! A watching session: the probes, processes and events of `run`, `attach` or the daemon, until the program
//! ends or the session is stopped.

mod descendants;
mod holding;
mod incidents;

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    path::Path,
    process::ExitStatus,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use panicwatch_common::{counted::Place, reason::Reason};

use self::holding::Holding;
use super::{
    armed::Armed,
    armory::{ArmError, Armory},
    census::{Census, Select},
    flight::{Ear, Flight, Recorder},
    follow::{self, Follower},
    gate::{self, Gate},
    governor::{self, Account, Governed, Told},
    host,
    reader::{Listener, QUEUE, Reader},
};
use crate::{
    capture::Program,
    clock,
    correlate::Correlator,
    event::Assembler,
    incident::{Frame, Incident, Process},
    init_trace::{Collected, Collector},
    probe::{
        error::ProbeError,
        kernel::KernelFacts,
        links::{self, Holder},
        object::{CaptureLimits, Programs},
        rings::RingSizes,
    },
    recorder::Options,
};

/// Size of the event ring. The pages that were read count as our memory, twice, because the ring is mapped
/// twice.
const RING_BYTES: u32 = 32 << 20;
/// Size of the event ring in a session that watches the whole host.
const HOST_RING_BYTES: u32 = 8 << 20;

/// Environment variable for tests: another size, a power of two.
const FORCED_RING_BYTES: &str = "PANICWATCH_EVENT_RING_BYTES";

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

/// Panics of one process at one place that were counted but not captured, since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Process ID of the program.
    pub pid: u32,
    /// Where they were raised; `None` if there were too many places.
    pub site: Option<Frame>,
    /// Number of panics.
    pub count: u64,
}

/// Interval at which counted panics are read.
const COUNTED_PACE: Duration = Duration::from_secs(1);

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
    /// Counts of panics that were not captured, as last reported, and the time of that report.
    counted: HashMap<Place, u64>,
    counted_at: Instant,
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
    /// Loads the eBPF programs and starts the ring reader. `options` configures the flight recorder.
    ///
    /// # Errors
    /// Fails if the kernel rejects a program, map or probe, or a thread or helper cannot be started.
    pub fn start(scope: Scope, options: &Options) -> Result<Session, ProbeError> {
        // Started before anything is watched, and before programs are started whose forks are followed.
        let holder = links::holder().map_err(ProbeError::Helper)?;
        let mut kernel = KernelFacts::detect();
        let on_host = matches!(scope, Scope::Host { .. });
        kernel.config.exec_all = u32::from(on_host);
        let ring_bytes = if on_host { HOST_RING_BYTES } else { RING_BYTES };
        let forced = std::env::var(FORCED_RING_BYTES).ok().and_then(|bytes| bytes.parse().ok());
        let ring_bytes = forced.unwrap_or(ring_bytes);
        let sources = options.sources();
        let sizes = (!sources.is_empty()).then(|| RingSizes::of(options)).transpose()?;
        let limits =
            CaptureLimits { per_window: options.captures_per_window(), nanoseconds: options.capture_ns() };
        let mut programs = Programs::load(&kernel, ring_bytes, sizes, limits)?;
        let mut outputs: VecDeque<Output> = links::take_notes().into_iter().map(Output::Note).collect();
        let recorder = match sizes {
            Some(sizes) => Some(Arc::new(Recorder::new(programs.map_rings(sizes)?, options))),
            None => None,
        };
        let mut recorded = sources.clone();
        for source in sources.iter().filter(|source| !source.is_in_program()) {
            if let (Err(error), Some(recorder)) = (programs.attach_source(*source), &recorder) {
                recorded.retain(|recorded| recorded != source);
                recorder.is_off(*source, error.to_string());
                if matches!(error, ProbeError::NoSends) {
                    continue; // Each timeline lists it; the user can do nothing about it.
                }
                if options.is_exact() {
                    return Err(ProbeError::Source(source.recording(), Box::new(error), source.name()));
                }
                outputs.push_back(Output::Note(format!("{} is not recorded: {error}", source.name())));
            }
        }
        let (sender, inputs) = sync_channel(QUEUE);
        tell_of_its_end(holder, sender.clone(), on_host);
        let ear = recorder.clone().map(|recorder| Box::new(Ear::new(recorder)) as Box<dyn Listener>);
        let reader = Reader::start(programs.take_events()?, sender.clone(), Input::Record, ear, on_host)
            .map_err(|error| ProbeError::Thread("event ring reader", error))?;
        let watched = programs.watched_fd()?;
        let account = Account::default();
        let armory = Arc::new(Armory::new(programs, !matches!(scope, Scope::Chosen)));
        if let Some(recorder) = &recorder {
            armory.record(&sources, &options.functions);
            let governed = Governed {
                armory: armory.clone(),
                recorder: recorder.clone(),
                sources: recorded,
                options: options.clone(),
                notes: sender.clone(),
                account: account.clone(),
            };
            governor::start(governed);
        }
        let refusals = sender.clone();
        let refused: Arc<gate::OnRefusal> = Arc::new(move |error| {
            let _ = refusals.send(Input::Refused(error));
        });
        let on_refusal: Arc<follow::OnRefusal> = refused.clone();
        let holding = holding::start(scope, &armory, watched, refused, &sender)
            .map_err(|error| ProbeError::Thread("process discovery", error))?;
        let Holding { census, gate } = holding;
        let attach: Box<follow::Attach> = match census.clone() {
            Some(census) => Box::new(move |pid, file, path| census.mapped(pid, file, path)),
            None => {
                let armory = armory.clone();
                Box::new(move |_, file, path| armory.arm(file, path).map(Some))
            }
        };
        let of_follower = gate.as_ref().ok().cloned();
        let follower = Follower::start(armory.clone(), of_follower, attach, on_refusal, census.is_none());
        let follower = follower.map_err(|error| ProbeError::Thread("search for libraries", error))?;
        if census.is_some() {
            follower.all_running();
        }
        Ok(Session {
            armory,
            reader,
            inputs,
            sender,
            assembler: Assembler::new(),
            correlator: Correlator::new(clock::measure(), crate::host::random::bits),
            outputs,
            gate,
            follower,
            waits_for_descendants: false,
            child_status: None,
            launched: None,
            init: None,
            flight: recorder.map(Flight::new),
            host: host::Current::default(),
            counted: HashMap::new(),
            counted_at: Instant::now(),
            census,
            records: 0,
            lost_records: 0,
            account,
        })
    }

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

    /// Returns the next output, waiting for it if necessary.
    pub fn wait(&mut self) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            if self.counted_at.elapsed() >= COUNTED_PACE {
                self.tell_counted();
                self.look_for_vanished();
                if let Some(status) = self.child_status.filter(|_| self.alive().is_empty()) {
                    self.drain();
                    self.outputs.push_back(Output::ChildExited(status));
                    continue;
                }
                if self.census.is_some() {
                    // The wall clock may have been set.
                    self.correlator.set_clock(clock::measure());
                    self.outputs.push_back(Output::Tick);
                    continue;
                }
            }
            match self.inputs.recv_timeout(COUNTED_PACE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Input::ChildExited(status)) => self.child_exited(status),
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.drain();
                    self.outputs.push_back(Output::Stopped);
                }
                Ok(input) => self.take(input),
            }
        }
    }

    /// Processes everything that happened before now, then completes what is in progress.
    fn drain(&mut self) {
        // The reader may be waiting for room in the channel: keep receiving until its thread has ended.
        if let Some(census) = &self.census {
            census.stop();
        }
        self.reader.request_stop();
        loop {
            match self.inputs.recv_timeout(Duration::from_millis(5)) {
                Ok(input @ (Input::Record(_) | Input::Refused(_) | Input::Note(_) | Input::Aside(_))) => {
                    self.take(input)
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if !self.reader.has_ended() => {}
                Err(_) => break,
            }
        }
        for event in self.assembler.finish() {
            self.event(event);
        }
        let armory = self.armory.clone();
        for pid in self.correlator.pids().collect::<Vec<_>>() {
            self.note_lost(pid);
        }
        self.correlator.finish(&|index| program(&armory, index));
        self.flush();
        self.init_is_over();
        self.tell_counted();
        let failures = self.armory.with_programs(Programs::failures).unwrap_or_default();
        for (reason, count) in failures {
            if !matches!(reason, Reason::StackRead) {
                self.outputs.push_back(Output::Note(format!("{count} times, {}", reason.sentence())));
            }
        }
    }

    /// Reports panics since the last call that were counted but not captured.
    fn tell_counted(&mut self) {
        self.counted_at = Instant::now();
        self.armory.with_programs(Programs::log_diagnostics);
        let counted = self.armory.with_programs(Programs::counted).unwrap_or_default();
        if counted.is_empty() && self.census.is_some() {
            return;
        }
        let watched = self.armory.with_programs(Programs::watched).unwrap_or_default();
        if self.census.is_none() {
            // Finds child processes that never call exec.
            watched.iter().for_each(|pid| self.follower.running(*pid));
        }
        for (place, count) in counted {
            let before = self.counted.insert(place, count).unwrap_or(0);
            if count > before {
                let site = program(&self.armory, place.binary).and_then(|program| program.raised_at(place));
                let counted = Counted { pid: place.tgid, site, count: count - before };
                self.outputs.push_back(Output::Counted(counted));
            } else if !watched.contains(&place.tgid) {
                // The process has ended, and no panics were added since the last call.
                self.counted.remove(&place);
                // If it fails, the place stays in the table, which does no harm.
                let _ = self.armory.with_programs(|programs| programs.forget_counted(place));
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Record(bytes) => {
                self.records += 1;
                match self.assembler.push(&bytes) {
                    Ok(events) => events.into_iter().for_each(|event| self.event(event)),
                    Err(error) => self.outputs.push_back(Output::Note(error.to_string())),
                }
            }
            Input::Refused(error) => self.outputs.push_back(Output::Note(format!("not watched: {error}"))),
            Input::Note(note) => self.outputs.push_back(Output::Note(note)),
            Input::Aside(aside) => self.outputs.push_back(Output::Aside(aside)),
            Input::ChildExited(_) | Input::Stop => {}
        }
    }
}

/// Reports the end of the helper that holds the probes: the kernel has then detached them, and no event
/// arrives any more. With `stops` the session ends, so that panicwatch can be restarted.
fn tell_of_its_end(holder: Arc<Holder>, session: SyncSender<Input>, stops: bool) {
    thread::spawn(move || {
        holder.wait_for_end();
        let note =
            "the process that holds the probes was killed: nothing is watched any more; restart panicwatch";
        let _ = session.send(Input::Note(note.to_owned()));
        if stops {
            let _ = session.send(Input::Stop);
        }
    });
}

fn program(armory: &Armory, index: u32) -> Option<Arc<Program>> {
    armory.get(index).map(|armed| armed.program.clone())
}

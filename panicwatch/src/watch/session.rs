//! One watching session: probes, processes and events of `run` or `attach`, until the program ends.

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
    clock::Clock,
    correlate::{Correlator, Program},
    event::Assembler,
    incident::{Frame, Incident, Process},
    init_trace::{Collected, Collector},
    probe::{
        error::ProbeError,
        kernel::KernelFacts,
        links::{self, Holder},
        object::Programs,
        rings::RingSizes,
    },
    recorder::Options,
};

/// Bytes of the event ring. The pages that were read count as our memory, twice, for the ring is mapped twice.
const RING_BYTES: u32 = 32 << 20;
/// Of a session that lasts.
const HOST_RING_BYTES: u32 = 8 << 20;

/// For tests: another size, a power of two.
const FORCED_RING_BYTES: &str = "PANICWATCH_EVENT_RING_BYTES";

/// Whom a session is about.
pub enum Scope {
    /// Those given to [`Session::watch`] and what they start.
    Chosen,
    /// Every process of an armed binary as well.
    Binaries,
    /// Every Go process of the host that is selected.
    Host {
        /// Who is.
        select: Arc<Select>,
        /// The first exec of a binary waits until its probes are in.
        hold: bool,
    },
}

/// What reaches the session's loop.
pub enum Input {
    /// A ring record.
    Record(Vec<u8>),
    /// A binary about to be executed could not be armed.
    Refused(ArmError),
    /// The program that `run` started has ended.
    ChildExited(ExitStatus),
    /// Something a person should know.
    Note(String),
    /// Something that the next incident will tell too.
    Aside(String),
    /// Somebody asked us to stop.
    Stop,
}

/// What [`Session::wait`] gives.
#[derive(Debug)]
pub enum Output {
    /// A complete incident.
    Incident(Box<Incident>),
    /// Something a person should know, as a sentence.
    Note(String),
    /// Something that whoever follows along may want to know; the next incident tells it too.
    Aside(String),
    /// Panics that came faster than they are captured.
    Counted(Counted),
    /// The initialisation of the traced program is over, with the binary it ran. Incidents of its end come before.
    Init(Box<Collected>, Arc<Program>),
    /// The program has ended, with everything before it reported.
    ChildExited(ExitStatus),
    /// Stopped, with everything before it reported.
    Stopped,
    /// Of a session about the whole host, once a second: nothing is wrong, and time to look around.
    Tick,
}

/// Panics of one process raised at one place that were counted only, since the last time they were told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// Process.
    pub pid: u32,
    /// Where they were raised; `None` when there were too many places.
    pub site: Option<Frame>,
    /// How many.
    pub count: u64,
}

/// Between two looks at the panics that were counted only.
const COUNTED_PACE: Duration = Duration::from_secs(1);

/// A running session.
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
    /// The end of the program that `run` started is not the end of the session.
    waits_for_descendants: bool,
    /// How that program ended, when it has.
    child_status: Option<ExitStatus>,
    /// What we started ourselves, until its image is seen.
    launched: Option<Process>,
    /// Of a session that traces an initialisation, until it is over.
    init: Option<Collector>,
    /// Of a session that records.
    flight: Option<Flight>,
    /// Added to every incident.
    host: host::Current,
    /// Panics that were counted only, as far as they were told of, and when that was.
    counted: HashMap<Place, u64>,
    counted_at: Instant,
    /// Of a session about the whole host.
    census: Option<Arc<Census>>,
    /// Records taken from the ring.
    records: u64,
    /// Records that were lost, when processes whose end may be among them were last looked for.
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
    /// Loads the programs and starts reading. `options` say what the flight recorder shall record.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(scope: Scope, options: &Options) -> Result<Session, ProbeError> {
        // Before anything is watched, and before programs are started whose forks are followed.
        let holder = links::holder().map_err(ProbeError::Helper)?;
        let mut kernel = KernelFacts::detect();
        let on_host = matches!(scope, Scope::Host { .. });
        kernel.config.exec_all = u32::from(on_host);
        let ring_bytes = if on_host { HOST_RING_BYTES } else { RING_BYTES };
        let forced = std::env::var(FORCED_RING_BYTES).ok().and_then(|bytes| bytes.parse().ok());
        let ring_bytes = forced.unwrap_or(ring_bytes);
        let sources = options.sources();
        let sizes = (!sources.is_empty()).then(|| RingSizes::of(options)).transpose()?;
        let mut programs = Programs::load(&kernel, ring_bytes, sizes, options.captures_per_window())?;
        let mut outputs: VecDeque<Output> = links::take_notes().into_iter().map(Output::Note).collect();
        let recorder = match sizes {
            Some(sizes) => Some(Arc::new(Recorder::new(programs.map_rings(sizes)?, options))),
            None => None,
        };
        let mut recorded = sources.clone();
        for source in sources.iter().filter(|source| !source.is_in_program()) {
            if let (Err(error), Some(recorder)) = (programs.attach_source(*source), &recorder) {
                if options.is_exact() {
                    return Err(ProbeError::Source(source.recording(), Box::new(error), source.name()));
                }
                recorded.retain(|recorded| recorded != source);
                recorder.is_off(*source, error.to_string());
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
            correlator: Correlator::new(Clock::measure()),
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

    /// Traces the initialisation of the first Go program that will start: what is armed from now on gets the probes
    /// for it, until [`Output::Init`].
    pub fn trace_init(&mut self) {
        self.armory.trace_init();
        self.init = Some(Collector::new());
    }

    /// Why programs that the watched ones start will not be covered from their first instruction, if so.
    pub fn gate_problem(&self) -> Option<&io::Error> {
        self.gate.as_ref().err()
    }

    /// The gate, if there is one.
    pub fn gate(&self) -> Option<Arc<Gate>> {
        self.gate.as_ref().ok().cloned()
    }

    /// For threads that have something to say to the loop.
    pub fn sender(&self) -> SyncSender<Input> {
        self.sender.clone()
    }

    /// Of a session about the whole host: its processes.
    pub fn census(&self) -> Option<Arc<Census>> {
        self.census.clone()
    }

    /// The probes.
    pub fn armory(&self) -> Arc<Armory> {
        self.armory.clone()
    }

    /// Records taken from the event ring so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Records that were read from the ring and wait for us.
    pub fn queued(&self) -> u64 {
        self.reader.passed().saturating_sub(self.records)
    }

    /// How the recorder's budget is doing.
    pub fn governor(&self) -> Told {
        self.account.get().clone()
    }

    /// Puts probes into a binary.
    ///
    /// # Errors
    /// When it is not Go, cannot be read, or the kernel refuses.
    pub fn arm(&self, file: &File, name: &Path) -> Result<Arc<Armed>, ArmError> {
        self.armory.arm(file, name)
    }

    /// Watches a process and all that it will start; `runs` is the binary that it runs already, if it does.
    ///
    /// # Errors
    /// When the table is full.
    pub fn watch(&self, pid: u32, runs: Option<&Armed>) -> Result<(), ProbeError> {
        self.armory.with_programs(|programs| programs.watch(pid, runs.map(|armed| armed.index)))
    }

    /// Runs `start` in such a way that the processes it starts are watched from their fork on: the kernel programs follow
    /// the forks of whom they watch, so for that moment our own process is watched.
    ///
    /// # Errors
    /// When the table is full.
    pub fn watching_forks<R>(&self, start: impl FnOnce() -> R) -> Result<R, ProbeError> {
        let _ourselves = self.armory.ourselves();
        let us = std::process::id();
        self.watch(us, None)?;
        let started = start();
        self.unwatch(us)?;
        Ok(started)
    }

    /// Takes a process out of the table; what it has started stays.
    ///
    /// # Errors
    /// When it was not in it.
    fn unwatch(&self, pid: u32) -> Result<(), ProbeError> {
        self.armory.with_programs(|programs| programs.unwatch(pid))
    }

    /// Says what we started: its arguments and environment are known even when it is gone before anybody can look.
    pub fn launched(&mut self, info: Process) {
        self.launched = Some(info);
    }

    /// Says what is known of a process.
    pub fn describe(&mut self, info: Process) {
        self.correlator.describe(info);
    }

    /// The next thing to tell.
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
                    // Wall time is set now and then.
                    self.correlator.set_clock(Clock::measure());
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

    /// Everything that happened before now, then what is still under way.
    fn drain(&mut self) {
        // The reader may be waiting for room in the channel: keep emptying it until the thread has ended.
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

    /// Panics that were counted only since the last look.
    fn tell_counted(&mut self) {
        self.counted_at = Instant::now();
        let counted = self.armory.with_programs(Programs::counted).unwrap_or_default();
        if counted.is_empty() && self.census.is_some() {
            return;
        }
        let watched = self.armory.with_programs(Programs::watched).unwrap_or_default();
        if self.census.is_none() {
            // Children that execute nothing are met here.
            watched.iter().for_each(|pid| self.follower.running(*pid));
        }
        for (place, count) in counted {
            let before = self.counted.insert(place, count).unwrap_or(0);
            if count > before {
                let site = program(&self.armory, place.binary).and_then(|program| program.raised_at(place));
                let counted = Counted { pid: place.tgid, site, count: count - before };
                self.outputs.push_back(Output::Counted(counted));
            } else if !watched.contains(&place.tgid) {
                // It has ended, and nothing was added since the last look.
                self.counted.remove(&place);
                // Should it fail, the place stays in the table: no harm is done.
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

/// Reports the end of the helper that holds the probes: the kernel has detached them, and nothing is seen any more. A session that
/// `stops` ends then, to be started again.
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

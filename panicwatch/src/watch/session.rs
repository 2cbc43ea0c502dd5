//! One watching session: probes, processes and events of `run` or `attach`, until the program ends.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use panicwatch_common::{counted::Place, event::kind, reason::Reason};

use super::{
    armory::{ArmError, Armed, Armory},
    flight::{Ear, Flight, Recorder},
    gate::{self, Gate},
    governor::{self, Governed},
    procfs,
    reader::{Listener, QUEUE, Reader},
};
use crate::{
    clock::Clock,
    correlate::{Correlator, Program},
    event::{Assembler, Body, Event},
    incident::{Frame, Incident, Missing, Process},
    init_trace::{Collected, Collector},
    probe::{
        calibrate::Baseline, error::ProbeError, kernel::KernelFacts, object::Programs, rings::RingSizes,
    },
    recorder::Options,
};

/// Bytes of the event ring.
const RING_BYTES: u32 = 32 << 20;

/// What reaches the session's loop.
pub enum Input {
    /// A ring record.
    Record(Vec<u8>),
    /// A binary about to be executed could not be armed.
    Refused(ArmError),
    /// The program that `run` started has ended.
    ChildExited(std::process::ExitStatus),
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
    ChildExited(std::process::ExitStatus),
    /// Stopped, with everything before it reported.
    Stopped,
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
    /// What we started ourselves, until its image is seen.
    launched: Option<Process>,
    /// Of a session that traces an initialisation, until it is over.
    init: Option<Collector>,
    /// Of a session that records.
    flight: Option<Flight>,
    /// Panics that were counted only, as far as they were told of, and when that was.
    counted: HashMap<Place, u64>,
    counted_at: Instant,
}

impl Session {
    /// Loads the programs and starts reading. With `watch_all` every process of an armed binary is reported, else
    /// those given to [`Session::watch`] and what they start. `options` say what the flight recorder shall record.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(watch_all: bool, options: &Options) -> Result<Session, ProbeError> {
        let kernel = KernelFacts::detect();
        let sources = options.sources();
        let sizes = (!sources.is_empty()).then(|| RingSizes::of(options)).transpose()?;
        let mut programs = Programs::load(&kernel, RING_BYTES, sizes, options.captures_per_window())?;
        let mut outputs = VecDeque::new();
        let recorder = match sizes {
            Some(sizes) => Some(Arc::new(Recorder::new(programs.map_rings(sizes)?, options))),
            None => None,
        };
        let baseline = recorder.is_some().then(Baseline::measure);
        let mut recorded = sources.clone();
        for source in sources.iter().filter(|source| !source.is_in_program()) {
            if let (Err(error), Some(recorder)) =
                (programs.attach_source(*source, options.samples_per_second), &recorder)
            {
                recorded.retain(|recorded| recorded != source);
                recorder.is_off(*source, error.to_string());
                outputs.push_back(Output::Note(format!("{} is not recorded: {error}", source.name())));
            }
        }
        let (sender, inputs) = sync_channel(QUEUE);
        let failed = |error| ProbeError::Attach { name: "event ring".into(), path: PathBuf::new(), error };
        let ear = recorder.clone().map(|recorder| Box::new(Ear::new(recorder)) as Box<dyn Listener>);
        let reader =
            Reader::start(programs.take_events()?, sender.clone(), Input::Record, ear).map_err(failed)?;
        let watched = programs.take_watched()?;
        let armory = Arc::new(Armory::new(programs, watch_all));
        if let (Some(recorder), Some(baseline)) = (&recorder, baseline) {
            armory.record(&sources, &options.functions);
            let governed = Governed {
                armory: armory.clone(),
                recorder: recorder.clone(),
                sources: recorded,
                options: options.clone(),
                baseline,
                notes: sender.clone(),
            };
            governor::start(governed);
        }
        let refusals = sender.clone();
        let gate = gate::start(
            armory.clone(),
            Arc::new(move |pid| watched.contains(pid)),
            Arc::new(move |error| {
                let _ = refusals.send(Input::Refused(error));
            }),
        );
        Ok(Session {
            armory,
            reader,
            inputs,
            sender,
            assembler: Assembler::new(),
            correlator: Correlator::new(Clock::measure()),
            outputs,
            gate: gate.map(Arc::new),
            launched: None,
            init: None,
            flight: recorder.map(Flight::new),
            counted: HashMap::new(),
            counted_at: Instant::now(),
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

    /// Puts probes into a binary.
    ///
    /// # Errors
    /// When it is not Go, cannot be read, or the kernel refuses.
    pub fn arm(&self, file: &File, name: &Path) -> Result<Arc<Armed>, ArmError> {
        self.armory.arm(file, name)
    }

    /// No Go binary has been armed so far.
    pub fn saw_no_go(&self) -> bool {
        self.armory.is_empty()
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
            }
            match self.inputs.recv_timeout(COUNTED_PACE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Input::ChildExited(status)) => {
                    self.drain();
                    self.outputs.push_back(Output::ChildExited(status));
                }
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
        self.correlator.finish(Clock::monotonic_ns(), &|index| program(&armory, index));
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
        let watched = self.armory.with_programs(Programs::watched).unwrap_or_default();
        for (place, count) in self.armory.with_programs(Programs::counted).unwrap_or_default() {
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
            Input::Record(bytes) => match self.assembler.push(&bytes) {
                Ok(events) => events.into_iter().for_each(|event| self.event(event)),
                Err(error) => self.outputs.push_back(Output::Note(error.to_string())),
            },
            Input::Refused(error) => self.outputs.push_back(Output::Note(format!("not watched: {error}"))),
            Input::Note(note) => self.outputs.push_back(Output::Note(note)),
            Input::Aside(aside) => self.outputs.push_back(Output::Aside(aside)),
            Input::ChildExited(_) | Input::Stop => {}
        }
    }

    fn event(&mut self, event: Event) {
        let init_is_over = self.init.as_mut().is_some_and(|collector| collector.push(&event));
        if !matches!(event.head.kind, kind::INIT_STEP | kind::INIT_TASK) {
            self.correlate(event);
        }
        if init_is_over {
            self.init_is_over();
        }
    }

    /// Tells what was collected, and takes the probes for it off.
    fn init_is_over(&mut self) {
        let Some(collected) = self.init.take().and_then(|mut collector| collector.take()) else { return };
        self.armory.stop_tracing_init();
        if let Some(program) = program(&self.armory, collected.first.head.binary) {
            self.outputs.push_back(Output::Init(Box::new(collected), program));
        }
    }

    fn correlate(&mut self, event: Event) {
        let pid = event.head.tgid;
        let armory = self.armory.clone();
        let exec = match &event.body {
            Body::Process(process) if event.head.kind == kind::EXEC => {
                Some((process.args.clone(), process.env.clone(), event.head.time_ns))
            }
            _ => None,
        };
        let ended = event.head.kind == kind::PROCESS_EXIT;
        if let Some(flight) = &mut self.flight {
            flight.event(&event, program(&armory, event.head.binary).as_deref());
        }
        let describe = exec.is_none() && !ended && !self.correlator.knows(pid);
        self.correlator.push(event, &|index| program(&armory, index));
        if let Some((args, env, _)) = exec {
            // What the kernel's copy does not have, /proc may, or we ourselves do.
            let mut info = procfs::process(pid);
            if let Some(ours) = self.launched.take_if(|ours| ours.pid == pid) {
                info.args = info.args.or(ours.args);
                info.env = info.env.or(ours.env);
                info.start_time = info.start_time.or(ours.start_time);
            }
            info.args = args.map(|block| procfs::strings(&block)).or(info.args);
            info.env = env.map(|block| procfs::go_variables(&block)).or(info.env);
            self.correlator.describe(info);
        } else if describe {
            self.correlator.describe(procfs::process(pid));
        }
        self.flush();
        if ended && let Some(flight) = &mut self.flight {
            flight.forget(pid);
        }
    }

    fn add_timeline(&mut self, incident: &mut Incident) {
        let made = match &mut self.flight {
            None => Err("nothing was recorded: timelines were not asked for".to_owned()),
            Some(flight) => flight
                .binary_of(incident.process.pid)
                .and_then(|row| program(&self.armory, row))
                .ok_or_else(|| "the process's binary is not known any more".to_owned())
                .and_then(|program| flight.timeline(incident, &program)),
        };
        match made {
            Ok(timeline) => incident.timeline = Some(timeline),
            Err(reason) => incident.missing.push(Missing { what: "timeline".to_owned(), reason }),
        }
    }

    fn flush(&mut self) {
        for mut incident in self.correlator.take() {
            self.add_timeline(&mut incident);
            self.outputs.push_back(Output::Incident(Box::new(incident)));
        }
    }
}

fn program(armory: &Armory, index: u32) -> Option<Arc<Program>> {
    armory.get(index).map(|armed| armed.program.clone())
}

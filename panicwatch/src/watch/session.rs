//! One watching session: probes, processes and events of `run` or `attach`, until the program ends.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::Duration,
};

use panicwatch_common::{event::kind, reason::Reason};

use super::{
    armory::{ArmError, Armed, Armory},
    gate::{self, Gate},
    procfs,
    reader::{QUEUE, Reader},
};
use crate::{
    clock::Clock,
    correlate::{Correlator, Program},
    event::{Assembler, Body, Event},
    incident::{Incident, Process},
    init_trace::{Collected, Collector},
    probe::{error::ProbeError, kernel::KernelFacts, object::Programs},
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
    /// The initialisation of the traced program is over, with the binary it ran. Incidents of its end come before.
    Init(Box<Collected>, Arc<Program>),
    /// The program has ended, with everything before it reported.
    ChildExited(std::process::ExitStatus),
    /// Stopped, with everything before it reported.
    Stopped,
}

/// A running session.
pub struct Session {
    armory: Arc<Armory>,
    reader: Reader,
    inputs: Receiver<Input>,
    sender: SyncSender<Input>,
    assembler: Assembler,
    correlator: Correlator,
    outputs: std::collections::VecDeque<Output>,
    gate: Result<Arc<Gate>, io::Error>,
    /// What we started ourselves, until its image is seen.
    launched: Option<Process>,
    /// Of a session that traces an initialisation, until it is over.
    init: Option<Collector>,
}

impl Session {
    /// Loads the programs and starts reading. With `watch_all` every process of an armed binary is reported, else
    /// those given to [`Session::watch`] and what they start.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn start(watch_all: bool) -> Result<Session, ProbeError> {
        let kernel = KernelFacts::detect();
        let mut programs = Programs::load(&kernel, RING_BYTES)?;
        let (sender, inputs) = sync_channel(QUEUE);
        let failed = |error| ProbeError::Attach { name: "event ring".into(), path: PathBuf::new(), error };
        let reader = Reader::start(programs.take_events()?, sender.clone(), Input::Record).map_err(failed)?;
        let watched = programs.take_watched()?;
        let armory = Arc::new(Armory::new(programs, watch_all));
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
            outputs: Default::default(),
            gate: gate.map(Arc::new),
            launched: None,
            init: None,
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

    /// Watches a process and all that it will start.
    ///
    /// # Errors
    /// When the table is full.
    pub fn watch(&self, pid: u32) -> Result<(), ProbeError> {
        self.armory.with_programs(|programs| programs.watch(pid))
    }

    /// Takes a process out of the table; what it has started stays.
    ///
    /// # Errors
    /// When it was not in it.
    pub fn unwatch(&self, pid: u32) -> Result<(), ProbeError> {
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
            match self.inputs.recv() {
                Ok(Input::ChildExited(status)) => {
                    self.drain();
                    self.outputs.push_back(Output::ChildExited(status));
                }
                Ok(Input::Stop) | Err(_) => {
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
                Ok(input @ (Input::Record(_) | Input::Refused(_))) => self.take(input),
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
        let failures = self.armory.with_programs(Programs::failures).unwrap_or_default();
        for (reason, count) in failures {
            if !matches!(reason, Reason::StackRead) {
                self.outputs.push_back(Output::Note(format!("{count} times, {}", reason.sentence())));
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
        let describe = exec.is_none() && event.head.kind != kind::PROCESS_EXIT && !self.correlator.knows(pid);
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
    }

    fn flush(&mut self) {
        for incident in self.correlator.take() {
            self.outputs.push_back(Output::Incident(Box::new(incident)));
        }
    }
}

fn program(armory: &Armory, index: u32) -> Option<Arc<Program>> {
    armory.get(index).map(|armed| armed.program.clone())
}

//! Starts a session: loads the eBPF programs, then starts the recorder, the ring reader, process discovery
//! and the search for Go code.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use super::{
    Input, Output, Scope, Session,
    counted::CountedPanics,
    holding::{self, Holding},
};
use crate::{
    clock,
    correlate::Correlator,
    event::Assembler,
    probe::{
        error::ProbeError,
        kernel::KernelFacts,
        links::{self, Holder},
        object::{CaptureLimits, Programs},
        rings::RingSizes,
    },
    recorder::{Options, Source},
    watch::{
        armory::Armory,
        census::Census,
        flight::{Ear, Flight, Recorder},
        follow::{self, Follower},
        gate::{self, Gate},
        governor::{self, Account, Governed},
        host,
        reader::{Listener, QUEUE, Reader},
    },
};

/// Size of the event ring. The pages that were read count as our memory, twice, because the ring is mapped
/// twice.
const RING_BYTES: u32 = 32 << 20;
/// Size of the event ring in a session that watches the whole host.
const HOST_RING_BYTES: u32 = 8 << 20;

/// Environment variable for tests: another size, a power of two.
const FORCED_RING_BYTES: &str = "PANICWATCH_EVENT_RING_BYTES";

impl Session {
    /// Loads the eBPF programs and starts the ring reader. `options` configures the flight recorder.
    ///
    /// # Errors
    /// Fails if the kernel rejects a program, map or probe, or a thread or helper cannot be started.
    pub fn start(scope: Scope, options: &Options) -> Result<Session, ProbeError> {
        // Started before anything is watched, and before programs are started whose forks are followed.
        let holder = links::holder().map_err(ProbeError::Helper)?;
        let on_host = matches!(scope, Scope::Host { .. });
        let sizes = (!options.sources().is_empty()).then(|| RingSizes::of(options)).transpose()?;
        let mut programs = load(on_host, sizes, options)?;
        let mut outputs: VecDeque<Output> = links::take_notes().into_iter().map(Output::Note).collect();
        let recording = match sizes {
            Some(sizes) => Some(start_recording(&mut programs, sizes, options, &mut outputs)?),
            None => None,
        };
        let recorder = recording.as_ref().map(|recording| recording.recorder.clone());
        let (sender, inputs) = sync_channel(QUEUE);
        watch_helper(holder, sender.clone(), on_host);
        let ear = recorder.clone().map(|recorder| Box::new(Ear::new(recorder)) as Box<dyn Listener>);
        let reader = Reader::start(programs.take_events()?, sender.clone(), Input::Record, ear, on_host)
            .map_err(|error| ProbeError::Thread("event ring reader", error))?;
        let watched = programs.watched_fd()?;
        let armory = Arc::new(Armory::new(programs, !matches!(scope, Scope::Chosen)));
        let account = Account::default();
        if let Some(recording) = recording {
            armory.record(&options.sources(), &options.functions);
            recording.govern(&armory, options, &sender, &account);
        }
        let refused = on_refusal(&sender);
        let Holding { census, gate } = holding::start(scope, &armory, watched, refused.clone(), &sender)
            .map_err(|error| ProbeError::Thread("process discovery", error))?;
        let follower = follow(&armory, census.as_ref(), gate.as_ref().ok(), refused)?;
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
            counted: CountedPanics::new(),
            census,
            records: 0,
            lost_records: 0,
            account,
        })
    }
}

/// Loads the programs that every session needs, with an event ring of the right size.
fn load(on_host: bool, sizes: Option<RingSizes>, options: &Options) -> Result<Programs, ProbeError> {
    let mut kernel = KernelFacts::detect();
    kernel.config.exec_all = u32::from(on_host);
    let forced = std::env::var(FORCED_RING_BYTES).ok().and_then(|bytes| bytes.parse().ok());
    let ring_bytes = forced.unwrap_or(if on_host { HOST_RING_BYTES } else { RING_BYTES });
    let limits =
        CaptureLimits { per_window: options.captures_per_window(), nanoseconds: options.capture_ns() };
    Programs::load(&kernel, ring_bytes, sizes, limits)
}

/// The flight recorder, and the sources that this kernel records.
struct Recording {
    recorder: Arc<Recorder>,
    sources: Vec<Source>,
}

/// Maps the rings and attaches the sources in the kernel. A source that cannot be recorded is listed in each
/// timeline and reported; with a level that must be recorded in full it is an error.
fn start_recording(
    programs: &mut Programs,
    sizes: RingSizes,
    options: &Options,
    outputs: &mut VecDeque<Output>,
) -> Result<Recording, ProbeError> {
    let recorder = Arc::new(Recorder::new(programs.map_rings(sizes)?, options));
    let mut sources = options.sources();
    for source in options.sources().into_iter().filter(|source| !source.is_in_program()) {
        let Err(error) = programs.attach_source(source) else { continue };
        sources.retain(|recorded| *recorded != source);
        recorder.is_off(source, error.to_string());
        if matches!(error, ProbeError::NoSends) {
            continue; // Each timeline lists it; the user can do nothing about it.
        }
        if options.is_exact() {
            return Err(ProbeError::Source(source.recording(), Box::new(error), source.name()));
        }
        outputs.push_back(Output::Note(format!("{} is not recorded: {error}", source.name())));
    }
    Ok(Recording { recorder, sources })
}

impl Recording {
    /// Starts the governor, which keeps the overhead budgets.
    fn govern(self, armory: &Arc<Armory>, options: &Options, notes: &SyncSender<Input>, account: &Account) {
        governor::start(Governed {
            armory: armory.clone(),
            recorder: self.recorder,
            sources: self.sources,
            options: options.clone(),
            notes: notes.clone(),
            account: account.clone(),
        });
    }
}

/// Returns what to do with a binary that could not be armed: tell the session.
fn on_refusal(sender: &SyncSender<Input>) -> Arc<gate::OnRefusal> {
    let sender = sender.clone();
    Arc::new(move |error| drop(sender.send(Input::Refused(error))))
}

/// Starts the search for Go code in watched processes; a session that watches the whole host searches those
/// that run already.
fn follow(
    armory: &Arc<Armory>,
    census: Option<&Arc<Census>>,
    gate: Option<&Arc<Gate>>,
    refused: Arc<follow::OnRefusal>,
) -> Result<Arc<Follower>, ProbeError> {
    let attach: Box<follow::Attach> = match census.cloned() {
        Some(census) => Box::new(move |pid, file, path| census.mapped(pid, file, path)),
        None => {
            let armory = armory.clone();
            Box::new(move |_, file, path| armory.arm(file, path).map(Some))
        }
    };
    let follower = Follower::start(armory.clone(), gate.cloned(), attach, refused, census.is_none())
        .map_err(|error| ProbeError::Thread("search for libraries", error))?;
    if census.is_some() {
        follower.all_running();
    }
    Ok(follower)
}

/// Reports the end of the helper that holds the probes: the kernel has then detached them, and no event
/// arrives any more. With `stops` the session ends, so that panicwatch can be restarted.
fn watch_helper(holder: Arc<Holder>, session: SyncSender<Input>, stops: bool) {
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

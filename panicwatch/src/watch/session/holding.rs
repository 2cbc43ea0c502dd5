//! Starts the exec gate of a session, and process discovery, which decides whose execs are held in a session
//! that watches the whole host.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, mpsc::SyncSender},
};

use super::{Input, Scope};
use crate::watch::{
    armory::Armory,
    census::Census,
    gate::{self, Arm, Gate, OnNote, OnRefusal, Parts},
};

/// Process discovery and exec gate of a session.
pub(super) struct Holding {
    pub(super) census: Option<Arc<Census>>,
    /// The exec gate, or why there is none.
    pub(super) gate: io::Result<Arc<Gate>>,
}

/// Starts both as `scope` requires. `watched` is a descriptor of the table of watched processes.
///
/// # Errors
/// Fails if a thread cannot be started. A failure to start the gate is not an error here: [`Holding::gate`]
/// has the reason.
pub(super) fn start(
    scope: Scope,
    armory: &Arc<Armory>,
    watched: OwnedFd,
    refused: Arc<OnRefusal>,
    sender: &SyncSender<Input>,
) -> io::Result<Holding> {
    let notes = sender.clone();
    // The gate must not block, so a message is dropped if the session is too busy to receive it.
    let note: Arc<OnNote> = Arc::new(move |note| drop(notes.try_send(Input::Note(note))));
    let start = |watched, arm: Arc<Arm>| {
        let gate = Arc::new(gate::start(Parts { armory: armory.clone(), watched, arm, refused, note })?);
        let of_armory = Arc::downgrade(&gate);
        armory.on_retire(move || of_armory.upgrade().iter().for_each(|gate| gate.forget_files()));
        Ok(gate)
    };
    match scope {
        Scope::Host { select, hold } => {
            let census = Census::start(armory.clone(), select)?;
            let gate = if hold {
                let arming = census.clone();
                start(
                    None,
                    Arc::new(move |pid: u32, file: &File, name: &Path| arming.before_exec(pid, file, name)),
                )
            } else {
                Err(io::Error::other("it was not requested"))
            };
            Ok(Holding { census: Some(census), gate })
        }
        Scope::Chosen | Scope::Binaries => {
            let arming = armory.clone();
            let arm = move |_: u32, file: &File, name: &Path| arming.arm(file, name).map(drop);
            Ok(Holding { census: None, gate: start(Some(watched), Arc::new(arm)) })
        }
    }
}

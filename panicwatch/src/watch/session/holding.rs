//! The exec gate of a session, and process discovery, which decides for whom a session about the whole host holds execs.

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

/// What was started.
pub(super) struct Holding {
    pub(super) census: Option<Arc<Census>>,
    /// Why there is none, else.
    pub(super) gate: io::Result<Arc<Gate>>,
}

/// Starts both as far as `scope` wants them. `watched` is the kernel's table of watched processes.
///
/// # Errors
/// Without threads. A gate that cannot be started is none: the inner error has the reason.
pub(super) fn start(
    scope: Scope,
    armory: &Arc<Armory>,
    watched: OwnedFd,
    refused: Arc<OnRefusal>,
    sender: &SyncSender<Input>,
) -> io::Result<Holding> {
    let notes = sender.clone();
    // The gate must not wait: of a session that is so busy a note is dropped.
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

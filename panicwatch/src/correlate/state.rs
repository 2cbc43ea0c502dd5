//! What is under way: panics of goroutines, and processes that are dying. Data only.

use std::collections::HashMap;

use crate::{
    event::Event,
    incident::{Defer, DeferEnd, Process, Recover},
};

/// A panic that has been raised and whose end has not been seen.
#[derive(Debug)]
pub(super) struct OpenPanic {
    /// The capture at gopanic.
    pub(super) raise: Event,
    /// The fault it was made from.
    pub(super) signal: Option<Event>,
    /// Distance of its `_panic` from the top of the stack, which growing the stack preserves; known once one of its
    /// deferred calls ran.
    pub(super) place: Option<u64>,
    /// In the order they ran.
    pub(super) defers: Vec<Defer>,
    /// recover() caught it.
    pub(super) recover: Option<Recover>,
}

impl OpenPanic {
    /// Ends the deferred call that is running, if one is.
    pub(super) fn end_defer(&mut self, time_ns: u64, how: DeferEnd) {
        if let Some(running) = self.defers.last_mut().filter(|defer| defer.end_ns.is_none()) {
            running.end_ns = Some(time_ns);
            running.ended = Some(how);
        }
    }

    pub(super) fn defer_is_running(&self) -> bool {
        self.defers.last().is_some_and(|defer| defer.end_ns.is_none())
    }
}

/// A way to die, seen begun.
#[derive(Debug, Default)]
pub(super) struct Dying {
    /// throw or fatal.
    pub(super) throw: Option<Event>,
    /// fatalsignal, or in Go 1.19 the signal that startpanic_m followed.
    pub(super) signal: Option<Event>,
    /// dopanic_m: the stack as Go prints it, and the chain with its values resolved.
    pub(super) die: Option<Event>,
    /// Panics of the goroutine when it began to die.
    pub(super) panics: Vec<OpenPanic>,
}

/// One process.
#[derive(Debug, Default)]
pub(super) struct ProcessState {
    pub(super) info: Process,
    /// `info` has been given.
    pub(super) described: bool,
    /// Open panics by goid, oldest first.
    pub(super) goroutines: HashMap<u64, Vec<OpenPanic>>,
    /// The last fault by thread, until the panic it becomes.
    pub(super) faults: HashMap<u32, Event>,
    /// Deaths under way by thread, in the order they began.
    pub(super) dying: Vec<(u32, Dying)>,
    /// Whoever called runtime.exit: goid, status.
    pub(super) exit: Option<(u64, i32, u64)>,
}

impl ProcessState {
    /// The death on this thread, begun if need be.
    pub(super) fn dying(&mut self, thread: u32) -> &mut Dying {
        let at = self.dying.iter().position(|(tid, _)| *tid == thread).unwrap_or_else(|| {
            self.dying.push((thread, Dying::default()));
            self.dying.len() - 1
        });
        &mut self.dying[at].1
    }
}

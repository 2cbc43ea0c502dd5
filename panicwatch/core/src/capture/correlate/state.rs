//! What is under way: panics of goroutines, and processes that are dying. Data only.

use std::collections::HashMap;

use crate::{
    capture::event::Event,
    incident::{Defer, DeferEnd, Process, Recover},
};

/// A panic that has been raised and whose end has not been seen.
#[derive(Debug, Clone)]
pub(super) struct OpenPanic {
    /// The capture at gopanic.
    pub(super) raise: Event,
    /// The fault it was made from.
    pub(super) signal: Option<Event>,
    /// Where it is on the stack.
    pub(super) place: Place,
    /// In the order they ran.
    pub(super) defers: Vec<Defer>,
    /// recover() caught it.
    pub(super) recover: Option<Recover>,
    /// Records of its goroutine that were lost since its raise.
    pub(super) lost: u32,
}

/// Where gopanic's frame is: distances from the top of the goroutine's stack, which growing the stack preserves.
///
/// Each gopanic has its `_panic` in its own frame, so an address of one says whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the caller's stack pointer.
    pub(super) start: u64,
    /// Of the innermost byte of the frame.
    pub(super) inner: u64,
}

impl Place {
    /// The `_panic` at this distance is in this frame.
    pub(super) fn holds(&self, panic: u64) -> bool {
        self.start < panic && panic <= self.inner
    }

    /// It is in Go's list when the list begins with the `_panic` at this distance: newer ones lie further in.
    pub(super) fn is_linked(&self, newest: u64) -> bool {
        self.start < newest
    }
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

/// The open panics of one goroutine.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Oldest first.
    pub(super) open: Vec<OpenPanic>,
    /// Where those are that there was no room for in `open`. They are older than its newer half, newer than the other.
    pub(super) left_out: Vec<Place>,
    /// Records of the goroutine that were lost up to its newest event.
    pub(super) lost: u32,
}

impl Chain {
    /// Takes note of how many records of the goroutine were lost so far.
    pub(super) fn note_lost(&mut self, so_far: u32) {
        let more = so_far.wrapping_sub(self.lost);
        self.lost = so_far;
        for panic in &mut self.open {
            panic.lost = panic.lost.saturating_add(more);
        }
    }

    /// Takes out those panics that `ends` says.
    pub(super) fn take(
        &mut self,
        ends: impl Fn(&OpenPanic) -> bool,
        place_ends: impl Fn(&Place) -> bool,
    ) -> Ended {
        let panics = self.open.extract_if(.., |panic| ends(panic)).collect();
        let before = self.left_out.len();
        self.left_out.retain(|place| !place_ends(place));
        Ended { panics, left_out: before - self.left_out.len() }
    }

    /// All of them.
    pub(super) fn into_ended(self) -> Ended {
        Ended { panics: self.open, left_out: self.left_out.len() }
    }
}

/// Panics of one goroutine that ended together.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Oldest first.
    pub(super) panics: Vec<OpenPanic>,
    /// How many more there were in the middle.
    pub(super) left_out: usize,
}

impl Ended {
    /// Records that were lost while they were under way.
    pub(super) fn lost(&self) -> u32 {
        self.panics.iter().map(|panic| panic.lost).max().unwrap_or(0)
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
    pub(super) ended: Ended,
    /// Records of the goroutine that were lost after its newest event.
    pub(super) lost: u32,
}

impl Dying {
    /// The event that tells most.
    pub(super) fn event(&self) -> Option<&Event> {
        self.die.as_ref().or(self.throw.as_ref()).or(self.signal.as_ref())
    }
}

/// One process.
#[derive(Debug, Default)]
pub(super) struct ProcessState {
    pub(super) info: Process,
    /// `info` has been given.
    pub(super) described: bool,
    /// Open panics by goid.
    pub(super) goroutines: HashMap<u64, Chain>,
    /// The last fault by thread, until the panic it becomes.
    pub(super) faults: HashMap<u32, Event>,
    /// Deaths under way by thread, in the order they began.
    pub(super) dying: Vec<(u32, Dying)>,
    /// Whoever called runtime.exit: goid, status, when.
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

    /// Takes note of how many records of each goroutine were lost, after the last event of the process.
    pub(super) fn note_lost(&mut self, so_far: impl Fn(u64) -> u32) {
        for (goid, chain) in &mut self.goroutines {
            chain.note_lost(so_far(*goid));
        }
        for (_, dying) in &mut self.dying {
            if let Some(head) = dying.event().map(|event| event.head) {
                dying.lost = so_far(head.goid).wrapping_sub(head.lost);
            }
        }
    }
}

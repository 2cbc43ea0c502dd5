//! State in progress: panics of goroutines, and processes that are dying. Data only.

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
    /// The fault from which the runtime made this panic.
    pub(super) signal: Option<Event>,
    /// Position of gopanic's frame on the stack.
    pub(super) place: Place,
    /// Deferred calls in the order they ran.
    pub(super) defers: Vec<Defer>,
    /// The recover() that caught this panic.
    pub(super) recover: Option<Recover>,
    /// Number of records of its goroutine lost since the raise.
    pub(super) lost: u32,
}

/// Position of a gopanic frame as distances in bytes from the top of the goroutine's stack, which stack
/// growth preserves.
///
/// Each gopanic has its `_panic` in its own frame, so the address of a `_panic` identifies the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Distance of the caller's stack pointer.
    pub(super) start: u64,
    /// Distance of the innermost byte of the frame.
    pub(super) inner: u64,
}

impl Place {
    /// Reports whether the `_panic` at this distance is in this frame.
    pub(super) fn holds(&self, panic: u64) -> bool {
        self.start < panic && panic <= self.inner
    }

    /// Reports whether the panic is in Go's list if the list begins with the `_panic` at this distance: newer
    /// panics are further in.
    pub(super) fn is_linked(&self, newest: u64) -> bool {
        self.start < newest
    }
}

impl OpenPanic {
    /// Ends the deferred call that is running, if any.
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
    /// Open panics, oldest first.
    pub(super) open: Vec<OpenPanic>,
    /// Positions of the panics dropped from `open` at its limit. They are older than its newer half, newer
    /// than its older half.
    pub(super) left_out: Vec<Place>,
    /// Number of records of the goroutine lost up to its newest event.
    pub(super) lost: u32,
}

impl Chain {
    /// Records how many records of the goroutine have been lost so far.
    pub(super) fn note_lost(&mut self, so_far: u32) {
        let more = so_far.wrapping_sub(self.lost);
        self.lost = so_far;
        for panic in &mut self.open {
            panic.lost = panic.lost.saturating_add(more);
        }
    }

    /// Removes and returns the panics for which `ends` is true.
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

    /// Returns all panics as ended.
    pub(super) fn into_ended(self) -> Ended {
        Ended { panics: self.open, left_out: self.left_out.len() }
    }
}

/// Panics of one goroutine that ended together.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Kept panics, oldest first.
    pub(super) panics: Vec<OpenPanic>,
    /// Number of panics dropped from the middle of the chain.
    pub(super) left_out: usize,
}

impl Ended {
    /// Returns the number of records lost while they were in progress.
    pub(super) fn lost(&self) -> u32 {
        self.panics.iter().map(|panic| panic.lost).max().unwrap_or(0)
    }
}

/// A death that has begun.
#[derive(Debug, Default)]
pub(super) struct Dying {
    /// Event of throw or fatal.
    pub(super) throw: Option<Event>,
    /// Event of fatalsignal, or in Go 1.19 of the signal that preceded startpanic_m.
    pub(super) signal: Option<Event>,
    /// Event of dopanic_m: the stack as Go prints it, and the chain with resolved values.
    pub(super) die: Option<Event>,
    /// Panics of the goroutine when it began to die.
    pub(super) ended: Ended,
    /// Number of records of the goroutine lost after its newest event.
    pub(super) lost: u32,
}

impl Dying {
    /// Returns the most informative event.
    pub(super) fn event(&self) -> Option<&Event> {
        self.die.as_ref().or(self.throw.as_ref()).or(self.signal.as_ref())
    }
}

/// State of one process.
#[derive(Debug, Default)]
pub(super) struct ProcessState {
    pub(super) info: Process,
    /// Whether `info` has been set.
    pub(super) described: bool,
    /// Open panics by goid.
    pub(super) goroutines: HashMap<u64, Chain>,
    /// The last fault of each thread, until it becomes a panic.
    pub(super) faults: HashMap<u32, Event>,
    /// Deaths in progress by thread, in the order they began.
    pub(super) dying: Vec<(u32, Dying)>,
    /// Last call of runtime.exit: goid, status, time in nanoseconds.
    pub(super) exit: Option<(u64, i32, u64)>,
}

impl ProcessState {
    /// Returns the death on this thread; begins one if there is none.
    pub(super) fn dying(&mut self, thread: u32) -> &mut Dying {
        let at = self.dying.iter().position(|(tid, _)| *tid == thread).unwrap_or_else(|| {
            self.dying.push((thread, Dying::default()));
            self.dying.len() - 1
        });
        &mut self.dying[at].1
    }

    /// Records how many records of each goroutine were lost, after the last event of the process.
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

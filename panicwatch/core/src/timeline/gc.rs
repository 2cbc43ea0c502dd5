//! The garbage collector: when it was marking, and when and why the world was stopped.
//!
//! Knows the collector's records only, not the states of threads.

use panicwatch_common::recorder::kind;

use super::{
    Input,
    states::{Lane, around_gaps, reason, state},
    steps::Steps,
    words,
};
use crate::{
    incident::timeline::{Doing, Slice, SliceKind, State, Track, TrackKind},
    recorder::Source,
};

/// A stop-the-world pause, including the time until all goroutines had stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) from_ns: u64,
    /// `None` if no record shows that the world was started again.
    pub(super) to_ns: Option<u64>,
    pub(super) reason: String,
    /// Whether this release of Go records no reason.
    untold: bool,
}

/// What the garbage collector did.
pub(super) struct Gc {
    /// Pauses in order, without overlaps.
    pub(super) stops: Vec<Stop>,
    phase: Steps<Option<Phase>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Marking,
    /// Marking has ended, and the world is still stopped.
    Terminating,
    Idle,
}

/// Evaluates the collector's records.
pub(super) fn gc(input: &Input<'_>) -> Gc {
    let mut out = Gc { stops: Vec::new(), phase: Steps::new(0, None) };
    // The collector stops the world right after it has begun and right before marking ends; so these two
    // reasons are known even if none was recorded.
    // https://github.com/golang/go/blob/go1.19.8/src/runtime/mgc.go#L660
    let mut begins = false;
    // If the source was disabled for a time, the world may have been stopped and started without a record.
    for (_, slot) in input.own_records().filter(|_| !input.lacks(Source::Gc)) {
        let at = slot.time_ns;
        match slot.kind {
            kind::GC_START => {
                begins = true;
                out.becomes(at, Phase::Idle, Phase::Marking);
            }
            // A worker marks, so the collector was marking before, too.
            kind::GC_WORKER if out.phase.last().is_none() => out.becomes(at, Phase::Marking, Phase::Marking),
            kind::GC_MARK_DONE => {
                if let Some(stop) = out.stops.last_mut().filter(|stop| stop.untold && stop.to_ns.is_none()) {
                    stop.reason = "GC mark termination".to_owned();
                }
                out.becomes(at, Phase::Marking, Phase::Terminating);
            }
            kind::STW_BEGIN => {
                out.starts(at);
                let untold = slot.extra == words::UNTOLD;
                let reason = if untold && begins {
                    "GC sweep termination".to_owned()
                } else {
                    words::stw_reason(input, slot.extra)
                };
                begins = false;
                out.stops.push(Stop { from_ns: at, to_ns: None, reason, untold });
            }
            kind::STW_END => {
                if out.stops.is_empty() {
                    let reason = "reason not recorded".to_owned();
                    let from_ns = input.from_ns.min(at);
                    out.stops.push(Stop { from_ns, to_ns: None, reason, untold: false });
                }
                out.starts(at);
                if *out.phase.last() == Some(Phase::Terminating) {
                    out.phase.set(at, Some(Phase::Idle));
                }
            }
            _ => {}
        }
    }
    // The record of the restart may have been lost.
    for stop in out.stops.iter_mut().filter(|stop| stop.to_ns.is_none()) {
        let from = stop.from_ns;
        stop.to_ns = input.gaps.iter().map(|gap| gap.from_ns).filter(|at| *at > from).min();
    }
    out
}

impl Gc {
    fn starts(&mut self, at: u64) {
        if let Some(stop) = self.stops.last_mut().filter(|stop| stop.to_ns.is_none()) {
            stop.to_ns = Some(at);
        }
    }

    /// Pushes `state`, divided so that it is stopped where the world was.
    pub(super) fn stop(&self, state: State, lane: &mut Lane) {
        let mut at = state.from_ns;
        let first = self.stops.partition_point(|stop| stop.to_ns.is_some_and(|to| to <= at));
        for stop in self.stops[first..].iter().take_while(|stop| stop.from_ns < state.to_ns) {
            let (from, to) = (stop.from_ns.max(at), stop.to_ns.unwrap_or(u64::MAX).min(state.to_ns));
            if from < to {
                lane.push(State { to_ns: from, from_ns: at, ..state.clone() });
                let detail = Some(stop.reason.clone());
                lane.push(State { from_ns: from, to_ns: to, state: Doing::Stopped, detail, ..state.clone() });
                at = to;
            }
        }
        lane.push(State { from_ns: at, ..state });
    }

    fn becomes(&mut self, at: u64, before: Phase, now: Phase) {
        if self.phase.last().is_none() {
            self.phase.set(0, Some(before));
        }
        self.phase.set(at, Some(now));
    }
}

/// Returns the track of the garbage collector.
pub(super) fn track(input: &Input<'_>, gc: &Gc) -> Track {
    let mut lane = Lane::default();
    for (from, to, phase) in gc.phase.parts(input.from_ns, input.to_ns) {
        for (from, to, gap) in around_gaps(input, from, to) {
            lane.push(match (gap, phase) {
                (Some(i), _) => state(from, to, Doing::Unknown, Some(reason(input, Some(i)))),
                (None, Some(Phase::Marking)) => state(from, to, Doing::Marking, None),
                (None, Some(Phase::Terminating)) => {
                    state(from, to, Doing::Marking, Some("mark termination".to_owned()))
                }
                (None, Some(Phase::Idle)) => state(from, to, Doing::Idle, None),
                (None, None) => state(from, to, Doing::Unknown, Some("no GC records".to_owned())),
            });
        }
    }
    let mut states = Lane::default();
    for state in lane.finish() {
        gc.stop(state, &mut states);
    }
    let shown = |stop: &&Stop| stop.from_ns <= input.to_ns && stop.to_ns.is_none_or(|to| to >= input.from_ns);
    let slice = |stop: &Stop| Slice {
        from_ns: stop.from_ns.max(input.from_ns),
        to_ns: stop.to_ns.filter(|to| *to <= input.to_ns),
        kind: SliceKind::StopTheWorld,
        name: stop.reason.clone(),
        depth: 0,
        inferred: false,
        frame: None,
    };
    let slices = gc.stops.iter().filter(shown).map(slice).collect();
    Track { slices, ..Track::new(TrackKind::Gc, 0, states.finish()) }
}

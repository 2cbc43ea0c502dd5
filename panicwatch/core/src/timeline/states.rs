//! Builds the states of goroutines, threads and the process from the results of the replay.
//!
//! Combines the state of a thread with what the runtime recorded about its goroutine. Must not know records.

use std::collections::BTreeMap;

use super::{
    Input,
    gc::Gc,
    replay::{Go, Ready, Replay},
    steps::Steps,
    thread::{Call, Cause, Holds, SOME_CPU, Sched, Thread, Why},
    turns::{Piece, in_turn},
    words,
};
use crate::{
    incident::timeline::{Doing, State, Track, TrackKind},
    recorder::Source,
};

/// List of consecutive states; equal adjacent states are merged.
#[derive(Default)]
pub(super) struct Lane {
    states: Vec<State>,
}

impl Lane {
    pub(super) fn push(&mut self, state: State) {
        if state.from_ns >= state.to_ns {
            return;
        }
        if let Some(last) = self.states.last_mut() {
            let same = State { from_ns: last.from_ns, to_ns: last.to_ns, ..state.clone() } == *last;
            if same && last.to_ns == state.from_ns {
                last.to_ns = state.to_ns;
                return;
            }
        }
        self.states.push(state);
    }

    pub(super) fn finish(self) -> Vec<State> {
        self.states
    }
}

/// Returns a state without thread, CPU or goroutine.
pub(super) fn state(from_ns: u64, to_ns: u64, state: Doing, detail: Option<String>) -> State {
    State { from_ns, to_ns, state, detail, thread: None, cpu: None, goroutine: None, inferred: false }
}

fn pieces(input: &Input<'_>, tid: u32, thread: &Thread) -> Vec<Piece> {
    let (from, to) = (input.from_ns, input.to_ns);
    let mut cuts = vec![from, to];
    cuts.extend(thread.sched.changes(from, to));
    cuts.extend(thread.call.changes(from, to));
    cuts.extend(thread.holds.changes(from, to));
    cuts.sort_unstable();
    cuts.dedup();
    let piece = |from, to| Piece {
        from,
        to,
        tid,
        sched: *thread.sched.at(from),
        call: *thread.call.at(from),
        holds: *thread.holds.at(from),
    };
    cuts.windows(2).map(|cut| piece(cut[0], cut[1])).collect()
}

/// Returns the state of a thread, or of the goroutine on it.
fn doing(input: &Input<'_>, piece: &Piece) -> State {
    let (call, cpu) = (words::call(input, piece.call), |cpu| (cpu != SOME_CPU).then_some(cpu));
    let (doing, detail, cpu) = match (piece.sched, piece.call) {
        (Sched::On(on), Call::In(_)) => (Doing::Syscall, call, cpu(on)),
        (Sched::On(on), _) => (Doing::Running, None, cpu(on)),
        (Sched::Ready(cause), _) => (Doing::Runnable, Some(cause_words(cause, call)), None),
        (Sched::Blocked(_) | Sched::Away, Call::In(_)) => (Doing::Syscall, call, None),
        (Sched::Blocked(state), Call::User) => (Doing::Waiting, Some(blocked(state).to_owned()), None),
        (Sched::Blocked(_), Call::Unknown(_)) => {
            (Doing::Waiting, Some("in the kernel, reason not recorded".to_owned()), None)
        }
        (Sched::Away, _) => (Doing::NotRunning, Some("its thread was off CPU".to_owned()), None),
        (Sched::Unknown(why), _) => (Doing::Unknown, Some(reason(input, why)), None),
        (Sched::NotBegun | Sched::Ended, _) => (Doing::Ended, None, None),
    };
    State { cpu, ..state(piece.from, piece.to, doing, detail) }
}

/// Describes a task state of the kernel.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/sched.h>
fn blocked(state: u32) -> &'static str {
    const STOPPED: u32 = 4;
    const TRACED: u32 = 8;
    match state {
        s if s & TRACED != 0 => "stopped by a debugger",
        s if s & STOPPED != 0 => "stopped by a signal",
        _ => "in the kernel, outside a system call (a page fault or similar)",
    }
}

fn cause_words(cause: Cause, call: Option<String>) -> String {
    let text = match cause {
        Cause::Preempted(task) => format!("thread preempted by {}", words::task(task)),
        Cause::Yielded(task) => format!("thread switched out for {}", words::task(task)),
        Cause::Woken => "thread woken, waiting for a CPU".to_owned(),
        Cause::New => "thread is new, waiting for a CPU".to_owned(),
    };
    match call {
        Some(call) => format!("{text}, in {call}"),
        None => text,
    }
}

/// Returns why a state is unknown.
pub(super) fn reason(input: &Input<'_>, why: Why) -> String {
    match why.and_then(|i| input.gaps.get(i)) {
        Some(gap) if gap.lost > 0 => format!("{} records of CPU {} were lost", gap.lost, gap.cpu),
        Some(gap) => format!("CPU {} was not recorded", gap.cpu),
        None if input.lacks(Source::Switch) => "context switches were not recorded all the time".to_owned(),
        None => "no records".to_owned(),
    }
}

/// Reports whether a track has more than a single inactive state.
fn is_telling(states: &[State]) -> bool {
    states.len() > 1
        || states.iter().any(|s| matches!(s.state, Doing::Running | Doing::Syscall | Doing::Runnable))
}

/// Returns a track for each thread.
pub(super) fn threads(input: &Input<'_>, replay: &Replay) -> Vec<Track> {
    let mut tracks = Vec::new();
    for (&tid, thread) in &replay.threads {
        let mut lane = Lane::default();
        for piece in pieces(input, tid, thread) {
            let goroutine = piece.holds.id().filter(|id| *id != 0);
            let both = match piece.holds {
                Holds::Between(a, b) => Some(format!("goroutine {a}, then goroutine {b}")),
                Holds::Unseen => Some("the Go scheduler at both ends".to_owned()),
                _ => None,
            };
            let mut state = doing(input, &piece);
            state.detail = state.detail.or(both.filter(|_| state.state == Doing::Running));
            lane.push(State { goroutine, inferred: piece.inferred() && goroutine.is_some(), ..state });
        }
        let states = lane.finish();
        if is_telling(&states) || input.thread == Some(tid) {
            let name = input.names.thread_name(tid);
            tracks.push(Track { name, ..Track::new(TrackKind::Thread, tid.into(), states) });
        }
    }
    tracks
}

impl Track {
    pub(super) fn new(kind: TrackKind, id: u64, states: Vec<State>) -> Self {
        Self { kind, id, name: None, states, slices: Vec::new(), samples: Vec::new() }
    }
}

/// Returns a track for each goroutine, the panicking one first.
pub(super) fn goroutines(input: &Input<'_>, replay: &Replay, gc: &Gc) -> Vec<Track> {
    let mut on_threads: BTreeMap<u64, Vec<Piece>> = BTreeMap::new();
    let (mut dark, mut dim) = (Vec::new(), Vec::new());
    for (&tid, thread) in &replay.threads {
        for piece in pieces(input, tid, thread) {
            if piece.may_hide_turns() {
                dim.push((piece.from, piece.to));
            }
            let (first, second) = match piece.holds {
                Holds::One { id, .. } => (id, 0),
                Holds::Between(a, b) => (a, b),
                Holds::Unseen if matches!(piece.sched, Sched::On(_)) => {
                    dark.push((piece.from, piece.to));
                    continue;
                }
                Holds::Unknown(_) | Holds::Unseen => continue,
            };
            for id in [first, second].into_iter().filter(|id| *id != 0) {
                on_threads.entry(id).or_default().push(piece);
            }
        }
    }
    let off = Off { gc, dark: joined(dark), dim: joined(dim) };
    let mut ids: Vec<u64> = input.goroutine.into_iter().collect();
    let known = on_threads.keys().chain(replay.goroutines.keys()).copied();
    let mut others: Vec<u64> = known.filter(|id| Some(*id) != input.goroutine).collect();
    others.sort_unstable();
    others.dedup();
    ids.extend(others);
    let mut tracks = Vec::new();
    for id in ids {
        let pieces = in_turn(on_threads.remove(&id).unwrap_or_default());
        let states = of_goroutine(input, &pieces, replay.goroutines.get(&id), &off);
        if is_telling(&states) || input.goroutine == Some(id) {
            tracks.push(Track::new(TrackKind::Goroutine, id, states));
        }
    }
    tracks
}

fn of_goroutine(input: &Input<'_>, pieces: &[Piece], go: Option<&Steps<Go>>, off: &Off<'_>) -> Vec<State> {
    let mut lane = Lane::default();
    let mut at = input.from_ns;
    for piece in pieces {
        off_thread(input, at, piece.from, go, off, &mut lane);
        let mut state = State { thread: Some(piece.tid), inferred: piece.inferred(), ..doing(input, piece) };
        if let Holds::Between(a, b) = piece.holds {
            let text = format!("thread {} ran goroutine {a}, then goroutine {b}", piece.tid);
            state = State {
                thread: Some(piece.tid),
                ..self::state(piece.from, piece.to, Doing::Unknown, Some(text))
            };
        }
        held(state, off.gc, &mut lane);
        at = piece.to;
    }
    off_thread(input, at, input.to_ns, go, off, &mut lane);
    lane.finish()
}

/// Pushes the state; a goroutine that was runnable on no thread while the world was stopped is pushed as
/// stopped. One on a thread waits for a CPU: it may be the one that stops the world.
fn held(state: State, gc: &Gc, lane: &mut Lane) {
    match state.state {
        Doing::Runnable if state.thread.is_none() => gc.stop(state, lane),
        _ => lane.push(state),
    }
}

/// Adds what is known about a goroutine that is on no thread.
fn off_thread(input: &Input<'_>, from: u64, to: u64, go: Option<&Steps<Go>>, off: &Off<'_>, lane: &mut Lane) {
    let nothing = Steps::new(from, Go::Unknown(None));
    for (from, to, go) in go.unwrap_or(&nothing).parts(from, to) {
        let (doing, detail) = match *go {
            Go::Runnable(ready) => (Doing::Runnable, Some(ready_words(ready).to_owned())),
            Go::Waiting(Some(number)) => (Doing::Waiting, Some(words::wait_reason(input, number))),
            Go::Waiting(None) => (Doing::Waiting, Some("wait reason not recorded".to_owned())),
            Go::Scanned => (Doing::Stopped, Some(crate::incident::timeline::STACK_SCAN.to_owned())),
            Go::NotBegun | Go::Ended => (Doing::Ended, None),
            Go::Running => (Doing::Unknown, Some("running, thread not recorded".to_owned())),
            Go::Unknown(_) => {
                unseen(input, from, to, off, lane);
                continue;
            }
        };
        held(state(from, to, doing, detail), off.gc, lane);
    }
}

/// Context for the states of goroutines on no thread.
struct Off<'a> {
    gc: &'a Gc,
    /// Intervals in which a thread ran and no record shows which goroutines it ran; in order, disjoint.
    dark: Vec<(u64, u64)>,
    /// Intervals in which a thread ran, with records of some goroutines, but others may have run on it
    /// without a record; in order, disjoint.
    dim: Vec<(u64, u64)>,
}

impl Off<'_> {
    /// Adds that the goroutine was on no thread; inferred where it may have run for a short time between the
    /// recorded goroutines.
    fn not_running(&self, from: u64, to: u64, lane: &mut Lane) {
        for (from, to, inferred) in split(from, to, &self.dim) {
            lane.push(State { inferred, ..state(from, to, Doing::NotRunning, None) });
        }
    }
}

/// Splits `[from, to)` into parts, each inside one of `stretches`, which are in order and disjoint, or
/// outside all of them.
fn split(from: u64, to: u64, stretches: &[(u64, u64)]) -> Vec<(u64, u64, bool)> {
    let (mut out, mut at) = (Vec::new(), from);
    let first = stretches.partition_point(|(_, end)| *end <= from);
    for (begin, end) in stretches[first..].iter().take_while(|(begin, _)| *begin < to) {
        let (begin, end) = ((*begin).max(at), (*end).min(to));
        out.extend([(at, begin, false), (begin, end, true)]);
        at = end;
    }
    out.push((at, to, false));
    out.retain(|(from, to, _)| from < to);
    out
}

/// Sorts the intervals and merges those that touch.
fn joined(mut stretches: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    stretches.sort_unstable();
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (from, to) in stretches {
        match out.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => out.push((from, to)),
        }
    }
    out
}

/// Adds an interval without records of the goroutine: unknown where records were lost or it may have run,
/// otherwise on no thread.
fn unseen(input: &Input<'_>, from: u64, to: u64, off: &Off<'_>, lane: &mut Lane) {
    const TURNS: &str = "a thread was running, its goroutines were not recorded";
    for (from, to, gap) in around_gaps(input, from, to) {
        if let Some(i) = gap {
            lane.push(state(from, to, Doing::Unknown, Some(reason(input, Some(i)))));
            continue;
        }
        for (from, to, dark) in split(from, to, &off.dark) {
            if dark {
                lane.push(state(from, to, Doing::Unknown, Some(TURNS.to_owned())));
            } else {
                off.not_running(from, to, lane);
            }
        }
    }
}

/// Splits `[from, to)` into parts, each inside a gap or outside all gaps.
pub(super) fn around_gaps(input: &Input<'_>, from: u64, to: u64) -> Vec<(u64, u64, Option<usize>)> {
    let mut gaps: Vec<_> = input.gaps.iter().enumerate().collect();
    gaps.sort_by_key(|(_, gap)| gap.from_ns);
    let (mut out, mut at) = (Vec::new(), from);
    for (i, gap) in gaps {
        let (begin, end) = (gap.from_ns.max(at), gap.to_ns.min(to));
        if begin < end {
            out.extend([(at, begin, None), (begin, end, Some(i))]);
            at = end;
        }
    }
    out.push((at, to, None));
    out
}

fn ready_words(ready: Ready) -> &'static str {
    match ready {
        Ready::Woken => "made runnable, waiting for a thread",
        Ready::New => "new, waiting for a thread",
        Ready::Preempted => "preempted by the Go scheduler",
        Ready::Yielded => "yielded",
        Ready::Before => "waiting for a thread",
    }
}

/// Returns the track of the process: whether any of its threads was running.
pub(super) fn process(input: &Input<'_>, replay: &Replay) -> Track {
    let (from, to) = (input.from_ns, input.to_ns);
    // Changes in the number of running threads, and of threads in an unknown state.
    let mut changes: BTreeMap<u64, (i64, i64)> = BTreeMap::from([(from, (0, 0))]);
    for thread in replay.threads.values() {
        for (from, to, sched) in thread.sched.parts(from, to) {
            let (on, unknown) = match sched {
                Sched::On(_) => (1, 0),
                Sched::Unknown(_) => (0, 1),
                _ => continue,
            };
            let begin = changes.entry(from).or_default();
            *begin = (begin.0 + on, begin.1 + unknown);
            let end = changes.entry(to).or_default();
            *end = (end.0 - on, end.1 - unknown);
        }
    }
    let (mut lane, mut on, mut unknown) = (Lane::default(), 0, 0);
    let times: Vec<u64> = changes.keys().copied().chain([to]).collect();
    for (at, next) in times.iter().zip(times.iter().skip(1)) {
        let change = changes.get(at).copied().unwrap_or_default();
        (on, unknown) = (on + change.0, unknown + change.1);
        lane.push(match (on, unknown) {
            (0, 0) if !replay.threads.is_empty() => state(*at, *next, Doing::NotRunning, None),
            (0, _) => state(*at, *next, Doing::Unknown, Some("not every thread is known".to_owned())),
            (1, _) => state(*at, *next, Doing::Running, Some("1 thread".to_owned())),
            (n, _) => state(*at, *next, Doing::Running, Some(format!("{n} threads"))),
        });
    }
    Track::new(TrackKind::Process, input.pid.into(), lane.finish())
}

//! Builder for handwritten records: times in nanoseconds, threads, events.

use panicwatch_common::recorder::{
    NO_SYSCALL, PREEMPTED, RAN_LAST, Sample, Slot, TIMES_RUN_SHIFT, kind, pair,
};

use super::super::{Input, Names, build};
use crate::{
    incident::{
        Addr, Frame, Outcome, Panic,
        timeline::{Gap, Off, State, Timeline, Track, TrackKind},
    },
    recorder::Source,
};

pub(super) const PID: u32 = 100;
pub(super) const FROM: u64 = 10_000;
pub(super) const RAISE: u64 = 20_000;
pub(super) const TO: u64 = 21_000;
/// The panicking goroutine.
pub(super) const G: u64 = 7;
pub(super) const T: u32 = 101;

pub(super) const READ: u32 = 0;
pub(super) const FUTEX: u32 = 202;
pub(super) const SLEEPS: u32 = 1;

/// Records and settings of a test, from which a timeline is built.
pub(super) struct Scene {
    pub(super) records: Vec<(u32, Slot)>,
    pub(super) samples: Vec<(u32, Sample)>,
    pub(super) gaps: Vec<Gap>,
    pub(super) off: Vec<Off>,
    pub(super) panics: Vec<Panic>,
    pub(super) goroutine: Option<u64>,
    pub(super) thread: Option<u32>,
    pub(super) pid: u32,
    /// Times of the window's beginning, the raise and the end.
    pub(super) times: (u64, u64, u64),
    pub(super) outcome: Outcome,
}

/// Names derived from the numbers.
pub(super) struct Plain;

impl Names for Plain {
    fn frames(&self, pc: u64, _exact: bool) -> Vec<Frame> {
        let frame = |function: String| Frame { function, pc: Addr(pc), ..Frame::default() };
        if pc == 0 { Vec::new() } else { vec![frame(format!("main.f{pc:x}"))] }
    }
    fn kernel(&self, pc: u64) -> Option<String> {
        Some(format!("k{pc:x}"))
    }
    fn wait_reason(&self, number: u32) -> Option<&str> {
        (number == 14).then_some("chan receive")
    }
    fn stw_reason(&self, number: u32) -> Option<&str> {
        (number == 1).then_some("GC mark termination")
    }
    fn thread_name(&self, _tid: u32) -> Option<String> {
        None
    }
    fn syscall(&self, number: u32) -> Option<&str> {
        crate::timeline::syscall_name(crate::go::gobin::Arch::Amd64, number)
    }
}

fn name(text: &str) -> [u64; 2] {
    let mut bytes = [0; 16];
    bytes[..text.len()].copy_from_slice(text.as_bytes());
    [0, 8].map(|at| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes")))
}

impl Scene {
    pub(super) fn new() -> Self {
        Self {
            records: Vec::new(),
            samples: Vec::new(),
            gaps: Vec::new(),
            off: Vec::new(),
            panics: Vec::new(),
            goroutine: Some(G),
            thread: Some(T),
            pid: PID,
            times: (FROM, RAISE, TO),
            outcome: Outcome::Recovered,
        }
    }

    pub(super) fn slot(
        mut self,
        at: u64,
        (cpu, tid): (u32, u32),
        kind: u32,
        goid: u64,
        extra: u32,
        args: [u64; 3],
    ) -> Self {
        let seq = self.records.len() as u64 + 1;
        self.records.push((cpu, Slot { seq, time_ns: at, kind, tgid: self.pid, tid, extra, goid, args }));
        self
    }

    fn other(tid: u32) -> [u64; 3] {
        let [a, b] = name(if tid == 0 { "swapper" } else { "bash" });
        [pair(tid, tid), a, b]
    }

    /// Adds a switch-out in favour of thread `next`.
    pub(super) fn out(self, at: u64, cpu: u32, tid: u32, goid: u64, state: u32, next: u32) -> Self {
        self.slot(at, (cpu, tid), kind::SWITCH_OUT, goid, state, Self::other(next))
    }

    /// Adds a switch-out of a thread that sleeps in the Go scheduler, after `last` has stopped running for
    /// the `stops`th time.
    pub(super) fn rests(self, at: u64, tid: u32, last: u64, stops: u8) -> Self {
        let extra = SLEEPS | RAN_LAST | u32::from(stops) << TIMES_RUN_SHIFT;
        self.out(at, 0, tid, last, extra, 0)
    }

    pub(super) fn preempted(self, at: u64, cpu: u32, tid: u32, goid: u64, next: u32) -> Self {
        self.out(at, cpu, tid, goid, PREEMPTED, next)
    }

    pub(super) fn into(self, at: u64, cpu: u32, tid: u32, before: u32) -> Self {
        self.slot(at, (cpu, tid), kind::SWITCH_IN, 0, 0, Self::other(before))
    }

    pub(super) fn waking(self, at: u64, cpu: u32, tid: u32, waker: u32, goid: u64) -> Self {
        self.slot(at, (cpu, tid), kind::WAKING, 0, NO_SYSCALL, [pair(waker, waker), goid, 0])
    }

    pub(super) fn enter(self, at: u64, cpu: u32, tid: u32, goid: u64, number: u32) -> Self {
        self.slot(at, (cpu, tid), kind::SYSCALL_ENTER, goid, number, [1, 2, 3])
    }

    pub(super) fn exit(self, at: u64, cpu: u32, tid: u32, goid: u64, number: u32) -> Self {
        self.slot(at, (cpu, tid), kind::SYSCALL_EXIT, goid, number, [5, 0, 0])
    }

    pub(super) fn park(self, at: u64, cpu: u32, tid: u32, goid: u64) -> Self {
        self.slot(at, (cpu, tid), kind::GO_PARK, goid, 14, [0x4000, 0, 0])
    }

    pub(super) fn ready(self, at: u64, cpu: u32, tid: u32, goid: u64, by: u64) -> Self {
        self.slot(at, (cpu, tid), kind::GO_READY, goid, 0, [by, 0, 0])
    }

    pub(super) fn run(self, at: u64, cpu: u32, tid: u32, goid: u64) -> Self {
        self.slot(at, (cpu, tid), kind::GO_RUN, goid, 0, [0; 3])
    }

    pub(super) fn function(self, at: u64, on: (u32, u32), goid: u64, pc: u64, distance: u64) -> Self {
        self.slot(at, on, kind::FUNCTION, goid, 0, [pc, distance, 0])
    }

    /// Adds a source that was disabled, all the time or part of it.
    pub(super) fn without(mut self, source: Source) -> Self {
        self.off.push(Off { source: source.name().to_owned(), reason: "for a test".to_owned() });
        self
    }

    pub(super) fn gap(mut self, cpu: u32, from_ns: u64, to_ns: u64, lost: u64) -> Self {
        self.gaps.push(Gap { cpu, from_ns, to_ns, lost });
        self
    }

    pub(super) fn sample(mut self, at: u64, cpu: u32, tid: u32, goid: u64, user: &[u64]) -> Self {
        let mut sample = Sample {
            seq: 1,
            time_ns: at,
            tgid: self.pid,
            tid,
            user_frames: user.len() as u32,
            kernel_frames: 0,
            goid,
            user: [0; panicwatch_common::recorder::USER_FRAMES],
            kernel: [0; panicwatch_common::recorder::KERNEL_FRAMES],
        };
        sample.user[..user.len()].copy_from_slice(user);
        self.samples.push((cpu, sample));
        self
    }

    pub(super) fn build(&self) -> Timeline {
        let (from_ns, raise_ns, to_ns) = self.times;
        build(&Input {
            window_ns: raise_ns - from_ns,
            from_ns,
            raise_ns,
            to_ns,
            records: &self.records,
            samples: &self.samples,
            gaps: &self.gaps,
            off: &self.off,
            pid: self.pid,
            goroutine: self.goroutine,
            thread: self.thread,
            cpu: None,
            panics: &self.panics,
            outcome: self.outcome,
            end_ns: Some(to_ns),
            names: &Plain,
        })
    }
}

pub(super) fn track(timeline: &Timeline, kind: TrackKind, id: u64) -> &Track {
    let found = timeline.tracks.iter().find(|track| (track.kind, track.id) == (kind, id));
    found.unwrap_or_else(|| panic!("no {kind:?} {id}"))
}

/// Formats the states of a track, one line each: "10000 running t101 c0".
pub(super) fn lines(track: &Track) -> Vec<String> {
    track.states.iter().map(line).collect()
}

fn line(state: &State) -> String {
    let name = serde_json::to_value(state.state).expect("a name");
    let mut text = format!("{} {}", state.from_ns, name.as_str().expect("a name"));
    if let Some(thread) = state.thread {
        text += &format!(" t{thread}");
    }
    if let Some(goroutine) = state.goroutine {
        text += &format!(" g{goroutine}");
    }
    if let Some(cpu) = state.cpu {
        text += &format!(" c{cpu}");
    }
    if state.inferred {
        text += " inferred";
    }
    if let Some(detail) = &state.detail {
        text += &format!(": {detail}");
    }
    text
}

/// Returns the states of the panicking goroutine.
pub(super) fn its(scene: &Scene) -> Vec<String> {
    lines(track(&scene.build(), TrackKind::Goroutine, G))
}

//! Events to incidents: a state machine per process and goroutine.
//!
//! Events and process facts go in, incidents come out. It reads no clock, file or map, so that every race can be a
//! table of events in a test.
//!
//! An incident is a set of panics of one goroutine that end together: recovered by the same recover() (with the older
//! ones that it aborts), ended by Goexit, or dead with the process. A panic raised in a deferred call and recovered
//! there, while an older one goes on, is an incident of its own.

mod ancestry;
mod build;
mod chain;
mod death;
mod goroutine;
mod signals;
mod state;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use panicwatch_common::event::kind;

use state::{Dying, Ended, ProcessState};

use crate::{
    capture::{
        Program,
        event::{Body, Event},
    },
    clock::Clock,
    go::gobin::GoVersion,
    incident::{DeferEnd, Exit, Incident, Outcome, Process},
};

/// Gives the binary of a table row.
pub type Binaries<'a> = dyn Fn(u32) -> Option<Arc<Program>> + 'a;

/// Gives random bits for the id of an incident: 80 of them are used.
pub type Random = fn() -> u128;

/// The state of all watched processes.
pub struct Correlator {
    processes: HashMap<u32, ProcessState>,
    clock: Clock,
    random: Random,
    done: Vec<Incident>,
}

impl Correlator {
    /// Nothing seen yet.
    pub fn new(clock: Clock, random: Random) -> Correlator {
        Correlator { processes: HashMap::new(), clock, random, done: Vec::new() }
    }

    /// Has this process been described? What was said at its exec stays when it has vanished since.
    pub fn knows(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.described)
    }

    /// Says what is known of a process.
    pub fn describe(&mut self, info: Process) {
        let process = self.processes.entry(info.pid).or_default();
        process.described = true;
        process.info = info;
    }

    /// From now on times are told by this clock.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// The incidents that are complete.
    pub fn take(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.done)
    }

    /// Processes with known facts.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// Says which records of a process were lost, after its last event.
    pub fn lost(&mut self, pid: u32, lost: &Lost) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.note_lost(|goid| lost.about(goid));
        }
    }

    /// Takes one event.
    pub fn push(&mut self, event: Event, binaries: &Binaries<'_>) {
        let head = event.head;
        match head.kind {
            // A new image: whatever was under way is gone with the old one.
            kind::EXEC => return self.end_process(head.tgid, Gone::Exec(head.time_ns), binaries),
            kind::PROCESS_EXIT => {
                let status = match &event.body {
                    Body::Process(process) => process.wait_status,
                    _ => None,
                };
                let gone = Gone::Ended(head.time_ns, status.map(exit_of));
                return self.end_process(head.tgid, gone, binaries);
            }
            _ => {}
        }
        let Some(program) = binaries(head.binary) else { return };
        let process = self.processes.entry(head.tgid).or_default();
        if head.g != 0 {
            let unseen = chain::catch_up(process, &program.view(&event));
            self.close(head.tgid, unseen, End::Unseen(UNSEEN), binaries);
        }
        self.act_on(event, &program, binaries);
    }

    fn act_on(&mut self, event: Event, program: &Program, binaries: &Binaries<'_>) {
        let head = event.head;
        let process = self.processes.entry(head.tgid).or_default();
        match head.kind {
            kind::PANIC => {
                chain::raised(process, event, program);
                if head.g == 0 {
                    // Nothing that follows can be told to be of it.
                    let ended = process.goroutines.remove(&head.goid).unwrap_or_default().into_ended();
                    self.close(head.tgid, ended, End::Unseen(NO_GOROUTINE), binaries);
                }
            }
            kind::DEFER_BEGIN => chain::defer_begins(process, &program.view(&event)),
            kind::DEFER_END => chain::defer_ended(process, &program.view(&event)),
            kind::RECOVER => chain::recovered(process, &program.view(&event)),
            kind::RECOVERY => {
                let ended = chain::recovery(process, &program.view(&event));
                self.close(head.tgid, ended, End::Seen(Outcome::Recovered, head.time_ns), binaries);
            }
            kind::GOEXIT => {
                let mut ended = process.goroutines.remove(&head.goid).unwrap_or_default().into_ended();
                for panic in &mut ended.panics {
                    panic.end_defer(head.time_ns, DeferEnd::Goexit);
                }
                self.close(head.tgid, ended, End::Seen(Outcome::Goexit, head.time_ns), binaries);
            }
            kind::SIGNAL => {
                process.faults.insert(head.tid, event);
            }
            kind::THROW => {
                let ended = self.dies_with(head.tgid, head.goid, binaries);
                let process = self.processes.entry(head.tgid).or_default();
                let dying = process.dying(head.tid);
                // A throw while dying (a crash of the crash) does not change what it died of.
                if dying.throw.is_none() && dying.die.is_none() {
                    dying.ended = ended;
                    dying.throw = Some(event);
                }
            }
            kind::START_PANIC => {
                // Go 1.19 has no fatalsignal; a death that neither panicked nor threw is one by the thread's signal.
                let fault = process.faults.remove(&head.tid);
                let dying = process.dying(head.tid);
                if dying.throw.is_none() {
                    dying.signal = fault;
                }
            }
            kind::FATAL_SIGNAL => process.dying(head.tid).signal = Some(event),
            kind::DIE => {
                let ended = self.dies_with(head.tgid, head.goid, binaries);
                let process = self.processes.entry(head.tgid).or_default();
                let dying = process.dying(head.tid);
                if dying.die.is_none() {
                    dying.die = Some(event);
                    if dying.throw.is_none() {
                        dying.ended = ended;
                        // Go 1.19: startpanic_m took an older signal of this thread for the cause.
                        dying.signal = None;
                    }
                }
            }
            kind::EXIT => {
                if let Body::Point(point) = &event.body {
                    process.exit = Some((head.goid, point.args[0] as i32, head.time_ns));
                }
            }
            _ => {}
        }
    }

    /// The open panics of a goroutine that begins to die. When two records or more were lost since a raise, those may have been
    /// its end and the raise of another panic at the same place: then it is not certain which of the two dies, and what was
    /// seen raised is an incident of its own, of unknown outcome.
    fn dies_with(&mut self, pid: u32, goid: u64, binaries: &Binaries<'_>) -> Ended {
        let process = self.processes.entry(pid).or_default();
        let ended = process.goroutines.remove(&goid).unwrap_or_default().into_ended();
        if ended.lost() < 2 {
            return ended;
        }
        self.close(pid, ended, End::Unseen(UNSEEN), binaries);
        Ended::default()
    }

    /// Makes an incident of panics that ended together. What ended is only told when no record was lost meanwhile: the end
    /// that was seen may be that of a later panic at the same place.
    fn close(&mut self, pid: u32, ended: Ended, end: End, binaries: &Binaries<'_>) {
        let Some(first) = ended.panics.first() else { return };
        let Some(program) = binaries(first.raise.head.binary) else { return };
        let info = self.processes.get(&pid).map(|process| process.info.clone()).unwrap_or_default();
        let (outcome, end_ns, reason) = match (ended.lost(), end) {
            (0, End::Seen(outcome, end_ns)) => (outcome, Some(end_ns), None),
            (0, End::Unseen(reason)) => (Outcome::Unknown, None, Some(reason.to_owned())),
            (lost, _) => (Outcome::Unknown, None, Some(were_lost(lost))),
        };
        let context = build::Context {
            clock: self.clock,
            random: self.random,
            info,
            outcome,
            end_ns,
            exit: None,
            reason,
        };
        self.done.push(build::panics(ended, &context, &program));
    }

    /// The process is gone: everything under way ends with it.
    fn end_process(&mut self, pid: u32, gone: Gone, binaries: &Binaries<'_>) {
        let Some(process) = self.processes.remove(&pid) else { return };
        let (end_ns, exit) = match gone {
            // Where the kernel does not tell the status, the program's own call of exit does.
            Gone::Ended(at, exit) => {
                let called =
                    process.exit.map(|(_, status, _)| Exit { code: Some(status & 0xff), signal: None });
                (Some(at), exit.or(called))
            }
            Gone::Exec(at) => (Some(at), None),
            Gone::OutOfSight => (None, None),
        };
        let context = |outcome, reason: Option<String>| build::Context {
            clock: self.clock,
            random: self.random,
            info: process.info.clone(),
            outcome,
            end_ns: if outcome == Outcome::Unknown && exit.is_none() { None } else { end_ns },
            exit,
            reason,
        };
        let mut done = Vec::new();
        // Several goroutines can begin to die at once. Go lets each that gets as far as printing print, and the last of
        // them ends the process; the others die with it. And one that does not get that far can be outlived: main
        // returns while it still dies.
        // https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go (dopanic_m, panicking)
        let survived = exit.is_some_and(|exit| exit.code == Some(0));
        let prints = |dying: &Dying| dying.die.is_some() || dying.signal.is_some();
        let nobody_prints = !process.dying.iter().any(|(_, dying)| prints(dying));
        for (i, (_, dying)) in process.dying.into_iter().enumerate() {
            let Some(program) = dying.event().and_then(|event| binaries(event.head.binary)) else { continue };
            let to_blame = prints(&dying) || (nobody_prints && i == 0);
            let (outcome, reason) = match gone {
                Gone::OutOfSight => (Outcome::Unknown, Some(OUT_OF_SIGHT.to_owned())),
                // What followed the beginning of its death is not known to be all that followed.
                _ if !prints(&dying) && dying.lost > 0 => (Outcome::Unknown, Some(were_lost(dying.lost))),
                _ if to_blame && !survived => (Outcome::Fatal, None),
                _ => (Outcome::Exited, None),
            };
            done.extend(build::death(dying, &context(outcome, reason), &program));
        }
        for (goid, chain) in process.goroutines {
            let mut ended = chain.into_ended();
            let Some(program) = ended.panics.first().and_then(|p| binaries(p.raise.head.binary)) else {
                continue;
            };
            let (outcome, reason) = match (ended.lost(), gone) {
                (lost @ 1.., _) => (Outcome::Unknown, Some(were_lost(lost))),
                (0, Gone::OutOfSight) => (Outcome::Unknown, Some(OUT_OF_SIGHT.to_owned())),
                (0, Gone::Ended(_, None)) if exit.is_none() => {
                    (Outcome::Unknown, Some("the kernel did not tell how the process ended".to_owned()))
                }
                (0, _) => (Outcome::Exited, None),
            };
            if let Some((_, _, at)) =
                process.exit.filter(|(by, ..)| *by == goid && outcome == Outcome::Exited)
                && let Some(last) = ended.panics.last_mut()
            {
                last.end_defer(at, DeferEnd::Exited);
            }
            done.push(build::panics(ended, &context(outcome, reason), &program));
        }
        done.sort_by_key(|incident| incident.start_ns);
        self.done.extend(done);
    }

    /// A process is gone, and its end was not seen.
    pub fn vanished(&mut self, pid: u32, binaries: &Binaries<'_>) {
        self.end_process(pid, Gone::OutOfSight, binaries);
    }

    /// No more events will come: what is under way is reported as lost from sight.
    pub fn finish(&mut self, binaries: &Binaries<'_>) {
        let pids: Vec<u32> = self.pids().collect();
        for pid in pids {
            self.end_process(pid, Gone::OutOfSight, binaries);
        }
    }
}

/// Records of one process that the event ring had no room for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// By the goroutine they were about; 0: about none.
    pub by_goroutine: BTreeMap<u64, u64>,
    /// Those of any process that could not be counted by goroutine.
    pub unattributed: u64,
}

impl Lost {
    /// Records that may have been about that goroutine: what `Head::lost` of its next record would have been.
    fn about(&self, goid: u64) -> u32 {
        (self.by_goroutine.get(&goid).copied().unwrap_or(0) + self.unattributed) as u32
    }
}

/// How the end of a goroutine's panics was seen.
#[derive(Debug, Clone, Copy)]
enum End {
    /// An event says so, and when.
    Seen(Outcome, u64),
    /// It was not, and why that is known.
    Unseen(&'static str),
}

/// How a process left.
#[derive(Debug, Clone, Copy)]
enum Gone {
    /// It ended: when, and as far as the kernel tells, how.
    Ended(u64, Option<Exit>),
    /// It replaced itself by a new image.
    Exec(u64),
    /// Watching ended first, or its end was lost.
    OutOfSight,
}

const UNSEEN: &str = "its end was not seen: the goroutine went on without it";
const NO_GOROUTINE: &str = "the goroutine could not be read: what followed cannot be told to be of it";
const OUT_OF_SIGHT: &str = "it was still under way when the process was last seen";

/// The reason of an incident that lacks records.
fn were_lost(count: u32) -> String {
    let records = if count == 1 { "record" } else { "records" };
    format!("{count} {records} of its goroutine were lost: the event ring was full")
}

/// A wait status as `wait4` gives it.
pub(crate) fn exit_of(status: u32) -> Exit {
    match status & 0x7f {
        0 => Exit { code: Some((status >> 8 & 0xff) as i32), signal: None },
        signal => Exit { code: None, signal: Some(signal as i32) },
    }
}

/// Go 1.22 rewrote how panics find their deferred calls.
fn has_defer_iterator(version: &GoVersion) -> bool {
    version.minor >= 22
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses() {
        assert_eq!(exit_of(2 << 8), Exit { code: Some(2), signal: None });
        assert_eq!(exit_of(6 | 0x80), Exit { code: None, signal: Some(6) }, "with a core");
        assert_eq!(exit_of(9), Exit { code: None, signal: Some(9) });
    }
}

//! Converts events to incidents: a state machine per process and goroutine.
//!
//! Events and process facts in, incidents out. It reads no clock, file or map, so every race can be tested as
//! a table of events.
//!
//! An incident is a set of panics of one goroutine that end together: recovered by the same recover() (with
//! the older ones that it aborts), ended by Goexit, or ended by the death of the process. A panic that is
//! raised in a deferred call and recovered there, while an older one continues, is a separate incident.

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
    incident::{DeferEnd, Exit, Incident, Outcome, Process},
};

/// Returns the binary of a row of the binary table.
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
    /// Returns a correlator without state.
    pub fn new(clock: Clock, random: Random) -> Correlator {
        Correlator { processes: HashMap::new(), clock, random, done: Vec::new() }
    }

    /// Reports whether the process has been described. A description from its exec is kept even if the
    /// process has exited since.
    pub fn knows(&self, pid: u32) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.described)
    }

    /// Sets the facts about a process.
    pub fn describe(&mut self, info: Process) {
        let process = self.processes.entry(info.pid).or_default();
        process.described = true;
        process.info = info;
    }

    /// Sets the clock that converts the times of all further incidents.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Removes and returns the complete incidents.
    pub fn take(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.done)
    }

    /// Returns the pids of all processes with state.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.processes.keys().copied()
    }

    /// Records which records of a process were lost, after its last event.
    pub fn lost(&mut self, pid: u32, lost: &Lost) {
        if let Some(process) = self.processes.get_mut(&pid) {
            process.note_lost(|goid| lost.about(goid));
        }
    }

    /// Processes one event.
    pub fn push(&mut self, event: Event, binaries: &Binaries<'_>) {
        let head = event.head;
        match head.kind {
            // A new image: everything in progress ended with the old one.
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
                    // Later events cannot be attributed to it.
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
                // A throw while dying (a crash during the crash) does not change the cause of death.
                if dying.throw.is_none() && dying.die.is_none() {
                    dying.ended = ended;
                    dying.throw = Some(event);
                }
            }
            kind::START_PANIC => {
                // Go 1.19 has no fatalsignal; a death without panic or throw is caused by the thread's
                // signal.
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
                        // Go 1.19: startpanic_m mistook an older signal of this thread for the cause.
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

    /// Removes and returns the open panics of a goroutine that begins to die. If two or more records were
    /// lost since a raise, they may have been the end of that panic and the raise of another one at the same
    /// position. Then it is not certain which of the two kills the process, and the one whose raise was seen
    /// becomes a separate incident with an unknown outcome.
    fn dies_with(&mut self, pid: u32, goid: u64, binaries: &Binaries<'_>) -> Ended {
        let process = self.processes.entry(pid).or_default();
        let ended = process.goroutines.remove(&goid).unwrap_or_default().into_ended();
        if ended.lost() < 2 {
            return ended;
        }
        self.close(pid, ended, End::Unseen(UNSEEN), binaries);
        Ended::default()
    }

    /// Builds an incident of panics that ended together. The outcome is known only if no record was lost in
    /// the meantime: the end that was seen may be that of a later panic at the same position.
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

    /// Ends everything in progress in a process that is gone.
    fn end_process(&mut self, pid: u32, gone: Gone, binaries: &Binaries<'_>) {
        let Some(process) = self.processes.remove(&pid) else { return };
        let (end_ns, exit) = match gone {
            // If the kernel does not report the status, the program's own call of exit has it.
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
        // Several goroutines can begin to die at once. Go lets each that gets as far as printing print, and
        // the last of them ends the process; the others die with it. A goroutine that does not get that far
        // can also be outlived: main returns while it is still dying.
        // https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go (dopanic_m, panicking)
        let survived = exit.is_some_and(|exit| exit.code == Some(0));
        let prints = |dying: &Dying| dying.die.is_some() || dying.signal.is_some();
        let nobody_prints = !process.dying.iter().any(|(_, dying)| prints(dying));
        for (i, (_, dying)) in process.dying.into_iter().enumerate() {
            let Some(program) = dying.event().and_then(|event| binaries(event.head.binary)) else { continue };
            let to_blame = prints(&dying) || (nobody_prints && i == 0);
            let (outcome, reason) = match gone {
                Gone::OutOfSight => (Outcome::Unknown, Some(OUT_OF_SIGHT.to_owned())),
                // The events seen after the beginning of its death may be incomplete.
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
                    (Outcome::Unknown, Some("the kernel did not report how the process ended".to_owned()))
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

    /// Handles a process that is gone without its end having been seen.
    pub fn vanished(&mut self, pid: u32, binaries: &Binaries<'_>) {
        self.end_process(pid, Gone::OutOfSight, binaries);
    }

    /// Ends all processes when no more events will follow: what is in progress is reported as lost from
    /// sight.
    pub fn finish(&mut self, binaries: &Binaries<'_>) {
        let pids: Vec<u32> = self.pids().collect();
        for pid in pids {
            self.end_process(pid, Gone::OutOfSight, binaries);
        }
    }
}

/// Records of one process that were dropped because the event ring was full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lost {
    /// Number of records by the goroutine they concern; 0: no goroutine.
    pub by_goroutine: BTreeMap<u64, u64>,
    /// Number of records of any process that could not be counted by goroutine.
    pub unattributed: u64,
}

impl Lost {
    /// Returns the number of records that may concern this goroutine: the value `Head::lost` of its next
    /// record would have had.
    pub fn about(&self, goid: u64) -> u32 {
        (self.by_goroutine.get(&goid).copied().unwrap_or(0) + self.unattributed) as u32
    }
}

/// How the end of a goroutine's panics was determined.
#[derive(Debug, Clone, Copy)]
enum End {
    /// An event reported the outcome, at this time.
    Seen(Outcome, u64),
    /// The end was not seen, for this reason.
    Unseen(&'static str),
}

/// How a process left.
#[derive(Debug, Clone, Copy)]
enum Gone {
    /// It exited at this time, with this exit status if the kernel reported one.
    Ended(u64, Option<Exit>),
    /// It replaced itself with a new image at this time.
    Exec(u64),
    /// Watching stopped first, or its exit event was lost.
    OutOfSight,
}

const UNSEEN: &str = "its end was not seen: the goroutine continued without it";
const NO_GOROUTINE: &str = "the goroutine could not be read: later events cannot be attributed to it";
const OUT_OF_SIGHT: &str = "it was still in progress when the process was last seen";

/// Returns the reason for an incident with lost records.
fn were_lost(count: u32) -> String {
    let records = if count == 1 { "record" } else { "records" };
    format!("{count} {records} of its goroutine were lost: the event ring was full")
}

/// Decodes a wait status as returned by `wait4`.
pub(crate) fn exit_of(status: u32) -> Exit {
    match status & 0x7f {
        0 => Exit { code: Some((status >> 8 & 0xff) as i32), signal: None },
        signal => Exit { code: None, signal: Some(signal as i32) },
    }
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

//! Events to incidents: a state machine per process and goroutine.
//!
//! Events and process facts go in, incidents come out. It reads no clock, file or map, so that every race can be a
//! table of events in a test.
//!
//! An incident is a set of panics of one goroutine that end together: recovered by the same recover() (with the older
//! ones that it aborts), ended by Goexit, or dead with the process. A panic raised in a deferred call and recovered
//! there, while an older one goes on, is an incident of its own.

mod build;
mod chain;
mod death;
mod goroutine;
mod program;
mod signals;
mod state;

use std::{collections::HashMap, sync::Arc};

use panicwatch_common::event::kind;

pub use program::{Program, View};
use state::{Dying, OpenPanic, ProcessState};

use crate::{
    clock::Clock,
    event::{Body, Event},
    gobin::GoVersion,
    incident::{DeferEnd, Exit, Incident, Outcome, Process},
};

/// Gives the binary of a table row.
pub type Binaries<'a> = dyn Fn(u32) -> Option<Arc<Program>> + 'a;

/// The state of all watched processes.
pub struct Correlator {
    processes: HashMap<u32, ProcessState>,
    clock: Clock,
    done: Vec<Incident>,
}

impl Correlator {
    /// Nothing seen yet.
    pub fn new(clock: Clock) -> Correlator {
        Correlator { processes: HashMap::new(), clock, done: Vec::new() }
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

    /// Takes one event.
    pub fn push(&mut self, event: Event, binaries: &Binaries<'_>) {
        let head = event.head;
        match head.kind {
            kind::EXEC => {
                // A new image: whatever was under way is gone with the old one.
                self.end_process(head.tgid, head.time_ns, None, binaries);
                return;
            }
            kind::PROCESS_EXIT => {
                let status = match &event.body {
                    Body::Process(process) => process.wait_status,
                    _ => None,
                };
                self.end_process(head.tgid, head.time_ns, status, binaries);
                return;
            }
            _ => {}
        }
        let Some(program) = binaries(head.binary) else { return };
        let process = self.processes.entry(head.tgid).or_default();
        match head.kind {
            kind::PANIC => chain::raised(process, event, &program),
            kind::DEFER_BEGIN => chain::defer_begins(process, &program.view(&event)),
            kind::DEFER_END => chain::defer_ended(process, &program.view(&event)),
            kind::RECOVER => chain::recovered(process, &program.view(&event)),
            kind::RECOVERY => {
                let ended = chain::recovery(process, &program.view(&event));
                self.close(head.tgid, ended, Outcome::Recovered, head.time_ns, &program);
            }
            kind::GOEXIT => {
                let mut ended = process.goroutines.remove(&head.goid).unwrap_or_default();
                for panic in &mut ended {
                    panic.end_defer(head.time_ns, DeferEnd::Goexit);
                }
                self.close(head.tgid, ended, Outcome::Goexit, head.time_ns, &program);
            }
            kind::SIGNAL => {
                process.faults.insert(head.tid, event);
            }
            kind::THROW => {
                let panics = process.goroutines.remove(&head.goid).unwrap_or_default();
                let dying = process.dying(head.tid);
                // A throw while dying (a crash of the crash) does not change what it died of.
                if dying.throw.is_none() && dying.die.is_none() {
                    dying.panics = panics;
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
                let panics = process.goroutines.remove(&head.goid).unwrap_or_default();
                let dying = process.dying(head.tid);
                if dying.die.is_none() {
                    dying.die = Some(event);
                    if dying.throw.is_none() {
                        dying.panics = panics;
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

    fn close(&mut self, pid: u32, ended: Vec<OpenPanic>, outcome: Outcome, end_ns: u64, program: &Program) {
        if ended.is_empty() {
            return;
        }
        let info = self.processes.get(&pid).map(|process| process.info.clone()).unwrap_or_default();
        let context = build::Context { clock: self.clock, info, outcome, end_ns, exit: None };
        self.done.push(build::panics(ended, &context, program));
    }

    /// The process is gone: everything under way ends with it.
    fn end_process(&mut self, pid: u32, time_ns: u64, status: Option<u32>, binaries: &Binaries<'_>) {
        let Some(process) = self.processes.remove(&pid) else { return };
        let exit = status.map(exit_of);
        let killed = exit.is_some_and(|exit| exit.signal.is_some());
        let context = |outcome| build::Context {
            clock: self.clock,
            info: process.info.clone(),
            outcome,
            end_ns: time_ns,
            exit,
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
            let event = dying.die.as_ref().or(dying.throw.as_ref()).or(dying.signal.as_ref());
            let Some(program) = event.and_then(|event| binaries(event.head.binary)) else { continue };
            let to_blame = prints(&dying) || (nobody_prints && i == 0);
            let outcome = if to_blame && !survived { Outcome::Fatal } else { Outcome::Exited };
            done.extend(build::death(dying, &context(outcome), &program));
        }
        for (goid, mut panics) in process.goroutines {
            let Some(program) = panics.first().and_then(|p| binaries(p.raise.head.binary)) else { continue };
            let outcome = match process.exit {
                Some((by, _, at)) => {
                    if by == goid
                        && let Some(last) = panics.last_mut()
                    {
                        last.end_defer(at, DeferEnd::Exited);
                    }
                    Outcome::Exited
                }
                None if killed || exit.is_none() => Outcome::Unknown,
                None => Outcome::Exited,
            };
            done.push(build::panics(panics, &context(outcome), &program));
        }
        done.sort_by_key(|incident| incident.start_ns);
        self.done.extend(done);
    }

    /// No more events will come: what is under way is reported as lost from sight.
    pub fn finish(&mut self, now_ns: u64, binaries: &Binaries<'_>) {
        let pids: Vec<u32> = self.processes.keys().copied().collect();
        for pid in pids {
            self.end_process(pid, now_ns, None, binaries);
        }
    }
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

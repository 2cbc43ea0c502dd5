//! Descendants of a watched program: what was not seen of them, and which are still running.

use std::process::ExitStatus;

use panicwatch_common::binary::MAX_BINARIES;

use super::{Output, Session};
use crate::{
    host::procfs,
    incident::Process,
    probe::{error::ProbeError, object::Programs},
    watch::{armed::Armed, follow::Unseen},
};

impl Session {
    /// Returns what was not seen of the watched programs so far.
    pub fn unseen(&self) -> Unseen {
        self.follower.settle();
        let unseen = self.follower.unseen();
        Unseen { ran_go: unseen.ran_go || self.some_probe_was_hit(), ..unseen }
    }

    /// Reports whether any probe was hit. A program that ends before its mappings are read may still have run
    /// Go code: its file, named in the arguments of its loader, had probes from the beginning.
    fn some_probe_was_hit(&self) -> bool {
        // The last row is that of panicwatch itself, for measuring costs.
        let hits = self.armory.with_programs(|programs| programs.hits(MAX_BINARIES - 1));
        hits.is_ok_and(|hits| hits.iter().any(|hits| *hits > 0))
    }

    /// Returns the watched processes that execute Go code now, as far as [`Session::unseen`] has found them.
    pub fn still_running(&self) -> Vec<Process> {
        let runs_go = |pid: &u32| self.follower.runs_go(*pid);
        self.alive().into_iter().filter(runs_go).map(procfs::process).collect()
    }

    /// Returns the watched processes that have not ended.
    pub(super) fn alive(&self) -> Vec<u32> {
        let watched = self.armory.with_programs(Programs::watched).unwrap_or_default();
        watched.into_iter().filter(|pid| procfs::started(*pid).is_some()).collect()
    }

    /// Makes the session end with the last process that it watches, instead of with the program that `run`
    /// started.
    pub fn wait_for_descendants(&mut self) {
        self.waits_for_descendants = true;
    }

    /// Returns the exit status of the program that `run` started, if it has ended.
    pub fn child_status(&self) -> Option<ExitStatus> {
        self.child_status
    }

    /// Watches a process that is already running, and searches it for Go code from now on.
    ///
    /// # Errors
    /// Fails if the table of watched processes is full.
    pub fn follow(&self, pid: u32, runs: Option<&Armed>) -> Result<(), ProbeError> {
        self.watch(pid, runs)?;
        self.follower.running(pid);
        Ok(())
    }

    /// Handles the end of the program that `run` started.
    pub(super) fn child_exited(&mut self, status: ExitStatus) {
        self.child_status = Some(status);
        // The exit event has removed a process from the table before its parent can wait for it.
        let left = self.alive().len();
        if self.waits_for_descendants && left > 0 {
            let es = if left == 1 { "" } else { "es" };
            let note = format!("the program has exited; waiting for {left} process{es} that it started");
            return self.outputs.push_back(Output::Note(note));
        }
        self.drain();
        self.outputs.push_back(Output::ChildExited(status));
    }
}

//! The processes that a watched program starts: what was not seen of them, and which of them still run.

use std::process::ExitStatus;

use panicwatch_common::binary::MAX_BINARIES;

use super::{Output, Session};
use crate::{
    incident::Process,
    probe::{error::ProbeError, object::Programs},
    watch::{armed::Armed, follow::Unseen, procfs},
};

impl Session {
    /// What was not seen of the watched programs so far.
    pub fn unseen(&self) -> Unseen {
        self.follower.settle();
        let unseen = self.follower.unseen();
        Unseen { ran_go: unseen.ran_go || self.some_probe_was_hit(), ..unseen }
    }

    /// A program that ends before its mappings were read may still have run Go code: named in the arguments of its loader,
    /// its file had probes from the beginning.
    fn some_probe_was_hit(&self) -> bool {
        // The last row is panicwatch's own: it measures costs with it.
        let hits = self.armory.with_programs(|programs| programs.hits(MAX_BINARIES - 1));
        hits.is_ok_and(|hits| hits.iter().any(|hits| *hits > 0))
    }

    /// Watched processes that run Go code now, as far as [`Session::unseen`] has found them.
    pub fn still_running(&self) -> Vec<Process> {
        let runs_go = |pid: &u32| self.follower.runs_go(*pid);
        self.alive().into_iter().filter(runs_go).map(procfs::process).collect()
    }

    /// Watched processes that have not ended.
    pub(super) fn alive(&self) -> Vec<u32> {
        let watched = self.armory.with_programs(Programs::watched).unwrap_or_default();
        watched.into_iter().filter(|pid| procfs::started(*pid).is_some()).collect()
    }

    /// From now on the session does not end with the program that `run` started, but with the last process that it watches.
    pub fn wait_for_descendants(&mut self) {
        self.waits_for_descendants = true;
    }

    /// How the program that `run` started has ended, if it has.
    pub fn child_status(&self) -> Option<ExitStatus> {
        self.child_status
    }

    /// Watches a process that runs already, and looks for Go code in it from now on.
    ///
    /// # Errors
    /// When the table is full.
    pub fn follow(&self, pid: u32, runs: Option<&Armed>) -> Result<(), ProbeError> {
        self.watch(pid, runs)?;
        self.follower.running(pid);
        Ok(())
    }

    /// The program that `run` started has ended.
    pub(super) fn child_exited(&mut self, status: ExitStatus) {
        self.child_status = Some(status);
        // The kernel removes a process from the table before its parent can wait for it.
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

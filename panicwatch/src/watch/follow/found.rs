//! What the follower found: processes with Go code, those whose start was not covered, and programs that could not be read in time.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use super::Armed;
use crate::watch::gate::{self, LetGo, Sight};

/// Go code whose probes were attached after it could begin to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Late {
    path: PathBuf,
    reason: String,
}

impl Late {
    /// Of a program executed at `exec_ns`; `None` when its probes were in by then. `sight`: what the exec gate did with its exec;
    /// `None` where there is no gate.
    pub(super) fn program(exec_ns: u64, armed: &Armed, sight: Option<Sight>) -> Option<Late> {
        let after = after(exec_ns, armed.since_ns)?;
        let path = armed.program.path.clone();
        let why = sight.map_or_else(|| "the exec gate is not available".to_owned(), why);
        let reason = format!(
            "the probes were attached {after} after the exec because {why}: panics before that were missed"
        );
        Some(Late { path, reason })
    }

    /// Of a file that a process had mapped, found some time after `began_ns`, which is its exec if `exec` says so.
    pub(super) fn library(began_ns: u64, armed: &Armed, exec: bool) -> Option<Late> {
        let after = after(began_ns, armed.since_ns)?;
        let path = armed.program.path.clone();
        let when = if exec { format!("{after} after the exec") } else { "while it was running".to_owned() };
        let reason = format!(
            "the Go code of {} was found in the process {when}: panics before that were missed",
            crate::escape::one_line(&path.to_string_lossy())
        );
        Some(Late { path, reason })
    }
}

/// Why the exec gate did not have the probes attached before the exec.
fn why(sight: Sight) -> String {
    match sight {
        Sight::Unseen => "the exec gate does not cover its file system".to_owned(),
        Sight::Held => "they could not be attached while the exec was held".to_owned(),
        Sight::Unknown => "the exec gate did not hold it".to_owned(),
        Sight::Released(LetGo::Deadline) => format!(
            "attaching took longer than the {} ms for which an exec is held",
            gate::deadline().as_millis()
        ),
        Sight::Released(LetGo::Unresponsive) => {
            "panicwatch was stopped or too busy to attach them while the exec was held".to_owned()
        }
        Sight::Released(LetGo::Watchdog) => "the exec gate did not respond in time and was opened".to_owned(),
        Sight::Released(LetGo::Full) => "too many execs were held at that time".to_owned(),
    }
}

/// "34 ms", unless `since_ns` is not after `began_ns`.
fn after(began_ns: u64, since_ns: u64) -> Option<String> {
    let late_ns = since_ns.checked_sub(began_ns).filter(|late| *late > 0)?;
    Some(format!("{} ms", late_ns.div_ceil(1_000_000)))
}

/// What was not seen of the programs that were followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Some Go code ran with probes.
    pub ran_go: bool,
    /// Processes whose first moments were not covered.
    pub late: u64,
    /// Their Go files, a few of them.
    pub late_files: Vec<PathBuf>,
    /// Programs that had ended before their file could be read: Go or not.
    pub unread: u64,
}

/// Files that are named.
const MAX_FILES: usize = 4;

/// What the follower found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Processes that run Go code, with what they lack.
    running: HashMap<u32, Option<Late>>,
    /// Of a session about the whole host: processes whose exec the gate let go, and when that was.
    released: HashMap<u32, (u64, Sight)>,
    unseen: Unseen,
    /// What was counted as late: one program can be met twice, by its exec and among its mappings.
    counted: HashSet<(u32, PathBuf)>,
}

impl Found {
    /// Process `pid` runs Go code.
    pub(super) fn go(&mut self, pid: u32, late: Option<Late>) {
        self.unseen.ran_go = true;
        if let Some(late) = &late
            && self.counted.insert((pid, late.path.clone()))
        {
            self.unseen.late += 1;
            if self.unseen.late_files.len() < MAX_FILES && !self.unseen.late_files.contains(&late.path) {
                self.unseen.late_files.push(late.path.clone());
            }
        }
        self.running.insert(pid, late);
    }

    /// The gate saw the exec of process `pid` at `exec_ns`.
    pub(super) fn sight(&mut self, pid: u32, exec_ns: u64, sight: Sight) {
        if matches!(sight, Sight::Released(_)) {
            self.released.insert(pid, (exec_ns, sight));
        }
    }

    /// Why the probes in `armed` came too late for process `pid`, if the gate let it go before they were attached.
    pub(super) fn released(&self, pid: u32, armed: &Armed) -> Option<String> {
        let (exec_ns, sight) = self.released.get(&pid)?;
        Late::program(*exec_ns, armed, Some(*sight)).map(|late| late.reason)
    }

    /// A program had ended before its file could be read.
    pub(super) fn unread(&mut self) {
        self.unseen.unread += 1;
    }

    /// Process `pid` runs another program now.
    pub(super) fn runs_another(&mut self, pid: u32) {
        self.running.remove(&pid);
    }

    /// Process `pid` runs something else now, or nothing.
    pub(super) fn forget(&mut self, pid: u32) {
        self.runs_another(pid);
        self.released.remove(&pid);
    }

    pub(super) fn runs_go(&self, pid: u32) -> bool {
        self.running.contains_key(&pid)
    }

    pub(super) fn late(&self, pid: u32) -> Option<String> {
        self.running.get(&pid)?.as_ref().map(|late| late.reason.clone())
    }

    pub(super) fn unseen(&self, ran_go: bool) -> Unseen {
        Unseen { ran_go: ran_go || self.unseen.ran_go, ..self.unseen.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_what_came_after_the_beginning() {
        assert_eq!(after(5, 5), None);
        assert_eq!(after(5, 4), None);
        assert_eq!(after(0, 1).as_deref(), Some("1 ms"));
        assert_eq!(after(1_000_000, 35_000_000).as_deref(), Some("34 ms"));
    }

    #[test]
    fn a_process_is_late_until_its_next_program() {
        let mut found = Found::default();
        assert!(!found.unseen(false).ran_go && found.unseen(true).ran_go);
        let late = Late { path: "/m/app".into(), reason: "late".to_owned() };
        found.go(7, Some(late.clone()));
        found.go(7, Some(late.clone()));
        found.go(8, Some(late));
        assert_eq!(found.late(7).as_deref(), Some("late"));
        found.forget(7);
        assert!(!found.runs_go(7) && found.late(7).is_none() && found.runs_go(8));
        found.go(7, None);
        let unseen = found.unseen(false);
        assert_eq!((unseen.ran_go, unseen.late, unseen.unread), (true, 2, 0));
        assert_eq!(unseen.late_files, [PathBuf::from("/m/app")]);
    }
}

//! What the follower found: processes with Go code, processes whose start was not covered, and programs that
//! ended before they could be read.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use super::Armed;
use crate::watch::gate::{self, LetGo, Sight};

/// Go code whose probes were attached after it may have started to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Late {
    path: PathBuf,
    reason: String,
}

impl Late {
    /// For a program executed at `exec_ns`; `None` if its probes were attached by then. `sight` is what the
    /// exec gate did with its exec, `None` without a gate.
    pub(super) fn program(exec_ns: u64, armed: &Armed, sight: Option<Sight>) -> Option<Late> {
        let after = after(exec_ns, armed.since_ns)?;
        let path = armed.program.path.clone();
        let why = sight.map_or_else(|| "the exec gate is not available".to_owned(), why);
        let reason = format!(
            "the probes were attached {after} after the exec because {why}: panics before that were missed"
        );
        Some(Late { path, reason })
    }

    /// For a file that a process had mapped, found some time after `began_ns`, the time of its exec if `exec`
    /// is true.
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

/// Returns why the exec gate did not have the probes attached before the exec.
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

/// Formats the delay, "34 ms"; `None` if `since_ns` is not after `began_ns`.
fn after(began_ns: u64, since_ns: u64) -> Option<String> {
    let late_ns = since_ns.checked_sub(began_ns).filter(|late| *late > 0)?;
    Some(format!("{} ms", late_ns.div_ceil(1_000_000)))
}

/// Summary of what was not seen of the followed programs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Whether any Go code ran with probes.
    pub ran_go: bool,
    /// Number of processes whose start was not covered.
    pub late: u64,
    /// Go files of these processes; only the first few.
    pub late_files: Vec<PathBuf>,
    /// Number of programs, Go or not, that had ended before their file could be read.
    pub unread: u64,
}

/// Most files that are listed.
const MAX_FILES: usize = 4;

/// State of the follower that other threads read.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Processes that execute Go code; each with the reason if its start was not covered.
    running: HashMap<u32, Option<Late>>,
    /// In sessions that watch the whole host: processes whose exec the gate released early, with the time of
    /// that exec.
    released: HashMap<u32, (u64, Sight)>,
    unseen: Unseen,
    /// Processes and files counted as late: a program can be found twice, by its exec and among its mappings.
    counted: HashSet<(u32, PathBuf)>,
}

impl Found {
    /// Notes that process `pid` executes Go code.
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

    /// Notes what the gate did with the exec of process `pid` at `exec_ns`.
    pub(super) fn sight(&mut self, pid: u32, exec_ns: u64, sight: Sight) {
        if matches!(sight, Sight::Released(_)) {
            self.released.insert(pid, (exec_ns, sight));
        }
    }

    /// Returns why the probes in `armed` were attached too late for process `pid`, if the gate released its
    /// exec before they were attached.
    pub(super) fn released(&self, pid: u32, armed: &Armed) -> Option<String> {
        let (exec_ns, sight) = self.released.get(&pid)?;
        Late::program(*exec_ns, armed, Some(*sight)).map(|late| late.reason)
    }

    /// Counts a program that had ended before its file could be read.
    pub(super) fn unread(&mut self) {
        self.unseen.unread += 1;
    }

    /// Drops what was found in process `pid`, which executes another program now.
    pub(super) fn runs_another(&mut self, pid: u32) {
        self.running.remove(&pid);
    }

    /// Drops the state of process `pid`, which executes another program now or has ended.
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

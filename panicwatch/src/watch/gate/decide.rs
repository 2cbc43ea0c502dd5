//! Decides which execs are held, and until when. Pure: takes execs, messages and times.
//!
//! An exec is held only if a watched process executes a file that is not known yet, and only while the main
//! process responds. Each held exec has its own deadline and waits for no other.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::messages::{Content, LetGo};

/// Time within which the main process must respond to a request.
pub(super) const SILENCE: Duration = Duration::from_millis(100);
/// Most files that are remembered; when the map is full, it is cleared and their execs are held again.
const MAX_FILES: usize = 65_536;

/// Identity of a file and its content, judged by the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileId {
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) size: u64,
    pub(super) mtime_ns: i128,
    pub(super) ctime_ns: i128,
}

/// What to do with an exec.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision<T> {
    /// Allow: the process is not watched.
    Unwatched(T),
    /// Allow: the file is known. `armed`: whether it has probes.
    Known { exec: T, armed: bool },
    /// Allow without its probes.
    Release(T, LetGo),
    /// Hold; the main process must be asked, with this number.
    Hold(u64),
}

/// An exec that is held until the main process answers or its deadline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Held<T> {
    pub(super) pid: u32,
    pub(super) exec: T,
    file: Option<FileId>,
    deadline_ns: u64,
}

/// State of the gate. `T` is the handle by which an exec is allowed.
#[derive(Debug)]
pub(super) struct Decider<T> {
    /// How long an exec is held at most, nanoseconds.
    patience_ns: u64,
    max_held: usize,
    /// Files that were asked about; `true` if armed.
    files: HashMap<FileId, bool>,
    held: BTreeMap<u64, Held<T>>,
    next: u64,
    /// Time of the oldest request to which the main process has not responded.
    asked_ns: Option<u64>,
    silent: bool,
}

impl<T> Decider<T> {
    pub(super) fn new(patience: Duration, max_held: usize) -> Decider<T> {
        let patience_ns = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX);
        let (files, held) = (HashMap::new(), BTreeMap::new());
        Decider { patience_ns, max_held, files, held, next: 0, asked_ns: None, silent: false }
    }

    /// Decides about process `pid`, which is about to execute `file`; `None` if its identity could not be
    /// read.
    pub(super) fn exec(
        &mut self,
        pid: u32,
        watched: bool,
        file: Option<FileId>,
        exec: T,
        now: u64,
    ) -> Decision<T> {
        if !watched {
            return Decision::Unwatched(exec);
        }
        if let Some(armed) = file.and_then(|file| self.files.get(&file)) {
            return Decision::Known { exec, armed: *armed };
        }
        if self.silent {
            return Decision::Release(exec, LetGo::Unresponsive);
        }
        if self.held.len() >= self.max_held {
            return Decision::Release(exec, LetGo::Full);
        }
        let id = self.next;
        self.next += 1;
        let deadline_ns = now.saturating_add(self.patience_ns);
        self.held.insert(id, Held { pid, exec, file, deadline_ns });
        self.asked_ns.get_or_insert(now);
        Decision::Hold(id)
    }

    /// Returns the held exec with that number.
    pub(super) fn held(&self, id: u64) -> Option<&Held<T>> {
        self.held.get(&id)
    }

    /// Removes the held exec `id`, about which the main process cannot be asked: the socket has no room.
    pub(super) fn unasked(&mut self, id: u64) -> Option<Held<T>> {
        self.silent = true;
        self.held.remove(&id)
    }

    /// Notes that a message of the main process has arrived.
    pub(super) fn heard(&mut self) {
        self.asked_ns = None;
        self.silent = false;
    }

    /// Handles the answer of the main process. Returns the exec, to be allowed, unless it was released
    /// before.
    pub(super) fn answered(&mut self, id: u64, content: Content) -> Option<Held<T>> {
        let held = self.held.remove(&id)?;
        let armed = match content {
            Content::Armed => true,
            Content::Other => false,
            Content::Undecided => return Some(held),
        };
        if self.files.len() >= MAX_FILES {
            self.files.clear();
        }
        if let Some(file) = held.file {
            self.files.insert(file, armed);
        }
        Some(held)
    }

    /// Forgets all files, so that their execs are held again.
    pub(super) fn forget_files(&mut self) {
        self.files.clear();
    }

    /// Reports whether the gate is waiting for a response of the main process.
    pub(super) fn wants_response(&self) -> bool {
        self.silent || !self.held.is_empty()
    }

    /// Notes that the main process was asked to respond.
    pub(super) fn asked(&mut self, now: u64) {
        self.asked_ns.get_or_insert(now);
    }

    /// Removes and returns the execs that must not be held any longer.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<(u64, Held<T>, LetGo)> {
        let silence_ns = SILENCE.as_nanos() as u64;
        if self.asked_ns.is_some_and(|asked| now.saturating_sub(asked) >= silence_ns) {
            self.silent = true;
        }
        let silent = self.silent;
        let is_over = |held: &Held<T>| silent || held.deadline_ns <= now;
        let over: Vec<u64> = self.held.iter().filter(|(_, held)| is_over(held)).map(|(id, _)| *id).collect();
        let reason = if silent { LetGo::Unresponsive } else { LetGo::Deadline };
        over.into_iter().filter_map(|id| Some((id, self.held.remove(&id)?, reason))).collect()
    }

    /// Returns the earliest time at which [`Decider::overdue`] may return an exec, nanoseconds.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let silence_ns = SILENCE.as_nanos() as u64;
        let deadlines = self.held.values().map(|held| held.deadline_ns);
        let silence = self.asked_ns.filter(|_| !self.silent).map(|asked| asked.saturating_add(silence_ns));
        deadlines.chain(silence).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn file(ino: u64) -> Option<FileId> {
        Some(FileId { dev: 1, ino, size: 3, mtime_ns: 4, ctime_ns: 5 })
    }

    fn decider() -> Decider<&'static str> {
        Decider::new(Duration::from_secs(2), 3)
    }

    fn released(decider: &mut Decider<&'static str>, now: u64) -> Vec<(&'static str, LetGo)> {
        decider.overdue(now).into_iter().map(|(_, held, reason)| (held.exec, reason)).collect()
    }

    #[test]
    fn only_unknown_files_of_watched_processes_are_held() {
        let mut gate = decider();
        assert_eq!(gate.exec(1, false, file(1), "a", 0), Decision::Unwatched("a"));
        assert_eq!(gate.exec(2, true, file(1), "b", 0), Decision::Hold(0));
        assert_eq!(gate.exec(2, true, file(2), "c", 0), Decision::Hold(1));
        assert_eq!(gate.answered(0, Content::Other).map(|held| (held.pid, held.exec)), Some((2, "b")));
        assert!(gate.answered(1, Content::Armed).is_some() && gate.answered(1, Content::Armed).is_none());
        assert_eq!(gate.exec(3, true, file(1), "d", 0), Decision::Known { exec: "d", armed: false });
        assert_eq!(gate.exec(3, true, file(2), "e", 0), Decision::Known { exec: "e", armed: true });
        let changed = file(2).map(|file| FileId { ctime_ns: 6, ..file });
        assert_eq!(gate.exec(3, true, changed, "f", 0), Decision::Hold(2), "its content may be another");
        gate.forget_files();
        assert_eq!(gate.exec(3, true, file(1), "g", 0), Decision::Hold(3));
    }

    #[test]
    fn what_depends_on_the_process_is_asked_about_each_time() {
        let mut gate = decider();
        for id in 0..3 {
            assert_eq!(gate.exec(1, true, file(1), "a", 0), Decision::Hold(id));
            assert!(gate.answered(id, Content::Undecided).is_some());
        }
        assert_eq!(gate.exec(1, true, None, "unreadable", 0), Decision::Hold(3));
        assert!(gate.answered(3, Content::Other).is_some());
        assert_eq!(gate.exec(1, true, None, "unreadable", 0), Decision::Hold(4));
    }

    #[test]
    fn each_exec_has_its_own_deadline() {
        let mut gate = decider();
        gate.exec(1, true, file(1), "slow", 0);
        gate.heard();
        gate.exec(1, true, file(2), "later", 500 * MS);
        gate.heard();
        assert_eq!(released(&mut gate, 1999 * MS), []);
        assert_eq!(released(&mut gate, 2000 * MS), [("slow", LetGo::Deadline)]);
        assert_eq!(gate.next_ns(), Some(2500 * MS));
        assert!(gate.answered(0, Content::Armed).is_none(), "it was let go");
        assert_eq!(gate.exec(1, true, file(1), "again", 2100 * MS), Decision::Hold(2), "not known as yet");
        assert!(gate.answered(1, Content::Armed).is_some());
    }

    #[test]
    fn a_silent_main_process_holds_nothing() {
        let mut gate = decider();
        gate.exec(1, true, file(1), "a", 0);
        gate.exec(1, true, file(2), "b", 50 * MS);
        assert_eq!(gate.next_ns(), Some(100 * MS));
        assert_eq!(released(&mut gate, 99 * MS), []);
        let both = [("a", LetGo::Unresponsive), ("b", LetGo::Unresponsive)];
        assert_eq!(released(&mut gate, 100 * MS), both);
        assert_eq!(gate.next_ns(), None);
        let at_once = gate.exec(1, true, file(3), "c", 5000 * MS);
        assert_eq!(at_once, Decision::Release("c", LetGo::Unresponsive));
        assert!(gate.wants_response(), "it is asked for signs of life");
        gate.heard();
        assert!(!gate.wants_response());
        assert_eq!(gate.exec(1, true, file(3), "d", 5001 * MS), Decision::Hold(2));
    }

    #[test]
    fn silence_counts_from_the_first_question_without_a_response() {
        let mut gate = decider();
        gate.exec(1, true, file(1), "a", 0);
        gate.heard();
        assert_eq!(released(&mut gate, 1000 * MS), [], "it responded, and works on an answer");
        assert!(gate.wants_response());
        gate.asked(1000 * MS);
        gate.asked(1090 * MS);
        assert_eq!(released(&mut gate, 1100 * MS), [("a", LetGo::Unresponsive)]);
    }

    #[test]
    fn bounds() {
        let mut gate = decider();
        for _ in 0..3 {
            assert!(matches!(gate.exec(1, true, file(1), "x", 0), Decision::Hold(_)));
        }
        assert_eq!(gate.exec(1, true, file(1), "y", 0), Decision::Release("y", LetGo::Full));
        assert_eq!(gate.unasked(2).map(|held| held.exec), Some("x"));
        assert_eq!(gate.exec(1, true, file(1), "z", 0), Decision::Release("z", LetGo::Unresponsive));
        gate.heard();
        for ino in 0..=MAX_FILES as u64 {
            gate.files.insert(FileId { ino: ino + 10, ..file(1).expect("a file") }, false);
        }
        assert!(gate.answered(0, Content::Other).is_some());
        assert_eq!(gate.files.len(), 1);
    }
}

//! Attaches probes to a file. The file is parsed first, without the lock on the registry's state, because a
//! large file takes seconds.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    fs::File,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use super::{ArmError, Armory, FileId, State, Unarmed, open};
use crate::{
    capture::Program,
    clock,
    gobin::{self, GoBinary},
    plan::{ProbePlan, begin_plan, init_plan, plan, recorder_plan},
    probe::attach,
    recorder::Source,
    watch::armed::{Armed, lock},
};

/// Environment variable for tests: additional time that parsing a Go binary takes, milliseconds.
const DELAY_MS: &str = "PANICWATCH_ATTACH_DELAY_MS";

/// Files that are being parsed now, each by one thread, for which the others wait.
#[derive(Debug, Default)]
pub(super) struct Reading {
    files: Mutex<HashSet<FileId>>,
    was_read: Condvar,
}

impl Reading {
    /// Waits until no other thread parses that file.
    fn begin(&self, id: FileId) -> Turn<'_> {
        let mut files = lock(&self.files);
        while !files.insert(id) {
            files = self.was_read.wait(files).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { reading: self, id }
    }
}

/// Exclusive right to parse a file, until dropped.
struct Turn<'a> {
    reading: &'a Reading,
    id: FileId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.reading.files).remove(&self.id);
        self.reading.was_read.notify_all();
    }
}

/// A parsed file with its probe plans.
struct Read {
    bin: GoBinary,
    plan: ProbePlan,
    begin: ProbePlan,
}

impl Read {
    fn of(file: &File, name: &Path) -> Result<Read, ArmError> {
        let path = || name.display().to_string();
        // Opened by descriptor, not by path: the file that is parsed is the one that will run.
        let bin = open(file).map_err(|source| match source {
            source if source.is_not_go() => ArmError::NotGo(path()),
            source => ArmError::Binary { path: path(), source },
        })?;
        let (plan, begin) = (plan(&bin), begin_plan(&bin));
        if let Some(delay) = env::var(DELAY_MS).ok().and_then(|ms| ms.parse().ok()) {
            thread::sleep(Duration::from_millis(delay));
        }
        Ok(Read { bin, plan, begin })
    }
}

impl Armory {
    /// Parses `file` and attaches probes to it, unless it has them already. `name` is its path for messages.
    ///
    /// # Errors
    /// Fails if it is not a Go program, cannot be read, or the kernel rejects a probe.
    pub fn arm(&self, file: &File, name: &Path) -> Result<Arc<Armed>, ArmError> {
        let path = || name.display().to_string();
        let io = |source| ArmError::Binary {
            path: path(),
            source: gobin::Error::Io { path: name.into(), source },
        };
        let id = FileId::of(file).map_err(io)?;
        let _turn = self.reading.begin(id);
        if let Some(armed) = self.state().by_id(id) {
            return Ok(armed);
        }
        let read = Read::of(file, name);
        let mut state = self.state();
        let armed = read.and_then(|read| state.arm(read, file, name, self.watch_all));
        match &armed {
            Ok(armed) => state.enter(id, armed),
            // Not remembered: the kernel may accept the probes later.
            Err(ArmError::Probe(_)) => {}
            Err(ArmError::NotGo(_)) => state.remember(id, Unarmed::NotGo),
            Err(error) => state.remember(id, Unarmed::Refused(error.to_string())),
        }
        armed
    }
}

impl State {
    fn by_id(&self, id: FileId) -> Option<Arc<Armed>> {
        self.by_file.get(&id).and_then(|index| self.get(*index))
    }

    fn enter(&mut self, id: FileId, armed: &Arc<Armed>) {
        let row = armed.index as usize;
        if self.armed.len() <= row {
            self.armed.resize(row + 1, None);
        }
        self.armed[row] = Some(armed.clone());
        self.by_file.insert(id, armed.index);
    }

    /// Does [`Armory::arm`] for a parsed file that is not armed.
    fn arm(&mut self, read: Read, file: &File, name: &Path, watch_all: bool) -> Result<Arc<Armed>, ArmError> {
        let Read { bin, plan, begin } = read;
        let row = match (attach::obstacle(&bin, &plan), attach::binary_row(&bin, Some(&plan), watch_all)) {
            (None, Some(row)) => row,
            (reason, _) => {
                let (path, reason) = (name.display().to_string(), reason.unwrap_or_default());
                return Err(ArmError::NoProbe { path, reason });
            }
        };
        let (purposes, mut plans) = self.plans(&bin, plan, begin);
        attach::admit(&mut plans, file, name)?;
        let free = self.armed.iter().position(Option::is_none).unwrap_or(self.armed.len());
        let index = free as u32;
        self.programs.set_binary(index, row)?;
        let attached = attach::attach(&mut self.programs, &plans, file, name, index)?;
        let (mut probes, mut init, mut recorder) = (Vec::new(), None, BTreeMap::new());
        for (purpose, attached) in purposes.into_iter().zip(attached) {
            match purpose {
                Purpose::Always => probes.push(attached),
                Purpose::Init => init = Some(attached),
                Purpose::Source(source) => drop(recorder.insert(source, attached)),
            }
        }
        let plan = plans.iter().fold(ProbePlan::default(), |all, plan| all.and(plan));
        let program = Arc::new(Program::new(bin, plan, name.to_owned()));
        Ok(Arc::new(Armed {
            program,
            index,
            since_ns: clock::monotonic_ns(),
            file: file.try_clone().ok(),
            probes: Mutex::new(probes),
            recorder: Mutex::new(recorder),
            init: Mutex::new(init),
        }))
    }

    /// Returns all plans for a binary, each with its purpose; that of the panic path is the first.
    fn plans(&self, bin: &GoBinary, panics: ProbePlan, begin: ProbePlan) -> (Vec<Purpose>, Vec<ProbePlan>) {
        let mut plans = vec![(Purpose::Always, panics)];
        if self.init {
            plans.push((Purpose::Init, init_plan(bin)));
        }
        if let Some(sources) = &self.recorded {
            plans.push((Purpose::Always, begin));
            let plan = |source: &Source| recorder_plan(bin, *source, &self.functions);
            plans.extend(sources.iter().map(|source| (Purpose::Source(*source), plan(source))));
        }
        plans.into_iter().unzip()
    }
}

/// What the probes of a plan are for.
enum Purpose {
    /// The panic path and the start of a process: attached as long as the binary is armed.
    Always,
    /// `init-trace`.
    Init,
    /// A source of the flight recorder.
    Source(Source),
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_file_is_read_by_one_thread_at_a_time() {
        let id = |ino| FileId { dev: 1, ino, size: 1, mtime_ns: 1 };
        let reading = Reading::default();
        let first = reading.begin(id(1));
        drop(reading.begin(id(2)));
        let (began, has_begun) = channel();
        thread::scope(|scope| {
            let second = scope.spawn(|| {
                began.send(()).expect("the test waits");
                drop(reading.begin(id(1)));
            });
            has_begun.recv().expect("the thread runs");
            thread::sleep(Duration::from_millis(50));
            assert!(!second.is_finished(), "it waits");
            drop(first);
        });
        assert!(lock(&reading.files).is_empty());
    }
}

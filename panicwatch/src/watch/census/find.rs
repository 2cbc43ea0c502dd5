//! Looking at a process: is it Go, is it selected; and arming what it runs.

use std::{fs::File, path::Path, sync::Arc};

use super::{Candidate, Census, Known, Seen, gone::Unread};
use crate::{
    container::Place,
    host::procfs,
    incident::Process,
    watch::{
        armed::Armed,
        armory::{ArmError, KnownFile, Unarmed},
    },
};

impl Census {
    pub(super) fn look_at_all(&self) {
        for pid in procfs::all() {
            // Kernel threads have no executable either.
            let _ = self.look(pid);
        }
    }

    /// Looks at a process, unless it is known. One that vanishes meanwhile is none.
    ///
    /// # Errors
    /// When it has ended and its file cannot be found.
    pub(super) fn look(&self, pid: u32) -> Result<(), Unread> {
        if pid == std::process::id() || self.state().known.contains_key(&pid) {
            return Ok(());
        }
        let Ok(exe) = procfs::executable(pid) else { return self.for_the_next(pid) };
        let Ok(file) = File::open(&exe.link) else { return self.for_the_next(pid) };
        if let Some(known) = self.file(&file, &exe.shown) {
            self.look_at(pid, &exe, &file, known);
        }
        Ok(())
    }

    /// Looks at a process that runs `file`.
    fn look_at(&self, pid: u32, exe: &procfs::Executable, file: &File, file_known: KnownFile) {
        let (module, armed) = match &file_known {
            KnownFile::Unarmed(Unarmed::NotGo) => return self.forget_exec(pid),
            KnownFile::Unarmed(Unarmed::Refused(_)) => (None, None),
            KnownFile::Unarmed(Unarmed::Go { module }) => (module.clone(), None),
            KnownFile::Armed(armed) => (armed.module(), Some(armed.clone())),
        };
        let mut known = self.meet(pid, module.as_deref(), Some(&exe.shown));
        let Some(started) = known.started else {
            // It has ended since its file was opened.
            if file_known.may_be_armed() {
                self.arm_for_the_next(file, &exe.shown, &known);
            }
            return;
        };
        let armed = match file_known {
            KnownFile::Unarmed(Unarmed::Refused(reason)) => {
                self.cannot(&exe.shown.to_string_lossy(), &reason, &mut known);
                None
            }
            _ if known.left_out.is_some() || armed.is_some() => armed,
            _ => match self.armory.arm(file, &exe.shown) {
                Ok(armed) => Some(armed),
                Err(error) => {
                    self.cannot(&exe.shown.to_string_lossy(), &error.to_string(), &mut known);
                    None
                }
            },
        };
        if let Some(armed) = armed {
            self.enter(pid, started, &armed, &mut known);
        }
        // Meanwhile it can have begun another program, of which an event tells.
        if procfs::started(pid) == Some(started) && procfs::executable(pid).is_ok_and(|now| now == *exe) {
            self.state().known.entry(pid).or_insert(known);
        }
    }

    /// What is known of a file, read if need be.
    pub(super) fn file(&self, file: &File, shown: &Path) -> Option<KnownFile> {
        let known = self.armory.known(file);
        known.or_else(|| self.armory.look_into(file, shown).ok().map(KnownFile::Unarmed))
    }

    /// A process is about to execute `file`, which has no probes: arms it, if whom it will run is selected as far as that can
    /// be told before. Its command line is not known yet.
    ///
    /// # Errors
    /// When it cannot be armed.
    pub(in crate::watch) fn before_exec(&self, pid: u32, file: &File, name: &Path) -> Result<(), ArmError> {
        let Some(KnownFile::Unarmed(Unarmed::Go { module })) = self.file(file, name) else { return Ok(()) };
        let exe = Some(name.to_string_lossy().into_owned());
        let process = Process { pid, exe, ..Process::default() };
        let (place, uid) = (self.names.place(pid), procfs::uid(pid));
        match self.selected(&process, module.as_deref(), &place, uid) {
            Ok(()) => self.armory.arm(file, name).map(drop),
            Err(_) => Ok(()),
        }
    }

    /// Process `pid` has mapped the Go file `file`, which is not its executable or may not be: attaches probes to it, and enters the
    /// process, if that is selected. `None` where it is not.
    ///
    /// # Errors
    /// When it is no Go file, or probes cannot be attached.
    pub(in crate::watch) fn mapped(
        &self,
        pid: u32,
        file: &File,
        path: &Path,
    ) -> Result<Option<Arc<Armed>>, ArmError> {
        let row = match self.state().known.get(&pid) {
            Some(known) if known.left_out.is_some() => return Ok(None),
            Some(known) => known.row,
            None => None,
        };
        if let Some(armed) = row.and_then(|row| self.armory.get(row)) {
            return Ok(Some(armed));
        }
        let module = match self.file(file, path) {
            Some(KnownFile::Armed(armed)) => armed.module(),
            Some(KnownFile::Unarmed(Unarmed::Go { module })) => module,
            Some(KnownFile::Unarmed(Unarmed::NotGo)) => {
                return Err(ArmError::NotGo(path.display().to_string()));
            }
            Some(KnownFile::Unarmed(Unarmed::Refused(_))) | None => return Ok(None),
        };
        let mut known = self.meet(pid, module.as_deref(), None);
        let Some(started) = known.started.filter(|_| known.left_out.is_none()) else { return Ok(None) };
        let armed = self.armory.arm(file, path)?;
        self.enter(pid, started, &armed, &mut known);
        self.state().known.entry(pid).or_insert(known);
        Ok(Some(armed))
    }

    /// The binary of that process cannot be watched.
    fn cannot(&self, path: &str, reason: &str, known: &mut Known) {
        self.state().refused.insert(path.to_owned(), reason.to_owned());
        known.left_out.get_or_insert_with(|| reason.to_owned());
    }

    /// Puts a process of an armed binary into the table, watched or ignored.
    fn enter(&self, pid: u32, started: u64, armed: &Arc<Armed>, known: &mut Known) {
        known.row = Some(armed.index);
        if known.left_out.is_some() {
            self.ignore(pid);
        } else if let Err(error) =
            self.armory.with_programs(|programs| programs.watch(pid, Some(armed.index)))
        {
            known.left_out = Some(error.to_string());
        }
        // It may have ended before it was put into the table: then nobody would take it out.
        if procfs::started(pid) != Some(started) {
            let _ = self.armory.with_programs(|programs| programs.unwatch(pid));
        }
    }

    pub(super) fn selected(
        &self,
        process: &Process,
        module: Option<&str>,
        place: &Place,
        uid: Option<u32>,
    ) -> Result<(), String> {
        let select = self.selection();
        select(&Candidate { process, module, place, uid })
    }

    /// Who is that, and is it selected? `path` is where its binary was when that was armed: a process that is gone by now ran
    /// it all the same.
    pub(super) fn meet(&self, pid: u32, module: Option<&str>, path: Option<&Path>) -> Known {
        let Seen { started, mut process, place, uid } = self.see(pid);
        process.exe = process.exe.or_else(|| path.map(|path| path.to_string_lossy().into_owned()));
        process.container = place.container.as_ref().and_then(|c| serde_json::to_value(c).ok());
        process.kubernetes = place.pod.as_ref().and_then(|pod| serde_json::to_value(pod).ok());
        let left_out = self.selected(&process, module, &place, uid).err();
        Known { started, process, row: None, left_out, incidents: 0 }
    }

    /// What /proc tells of a process or, if it is gone, told when it had begun.
    fn see(&self, pid: u32) -> Seen {
        let (started, process) = (procfs::started(pid), procfs::process(pid));
        let mut seen = Seen { started, process, place: self.names.place(pid), uid: procfs::uid(pid) };
        let is_there = started.is_some() && procfs::started(pid) == started;
        if !is_there {
            // Nobody is to be taken for another by what was read last.
            seen.started = None;
        }
        let mut state = self.state();
        let Some(exec) = state.execs.iter_mut().find(|exec| exec.pid == pid) else { return seen };
        match &exec.seen {
            Some(before) if !is_there => seen = Seen { started: None, ..before.clone() },
            _ => {}
        }
        // What the process had when it began; it may have written over it since, or be gone.
        let args = exec.args.as_deref().map(procfs::strings);
        seen.process.args = args.or(seen.process.args);
        let env = exec.env.as_deref().map(procfs::go_variables);
        seen.process.env = env.or(seen.process.env);
        if is_there {
            exec.seen = Some(seen.clone());
        }
        seen
    }
}

//! Inspects processes: whether each is a Go program and matches the selector; arms the binaries of those that
//! do.

use std::{fs::File, io, path::Path, sync::Arc};

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
            // Kernel threads have no executable either, hence the ignored error.
            let _ = self.look(pid);
        }
    }

    /// Inspects a process, unless it is known already. A process that vanishes in the meantime is skipped.
    ///
    /// # Errors
    /// Fails if the process has ended already.
    pub(super) fn look(&self, pid: u32) -> io::Result<()> {
        if pid == std::process::id() || self.state().known.contains_key(&pid) {
            return Ok(());
        }
        let exe = procfs::executable(pid)?;
        let file = File::open(&exe.link)?;
        if let Some(known) = self.file(&file, &exe.shown) {
            self.look_at(pid, &exe, &file, known);
        }
        Ok(())
    }

    /// Inspects a process that executes `file`.
    fn look_at(&self, pid: u32, exe: &procfs::Executable, file: &File, file_known: KnownFile) {
        let (module, armed) = match &file_known {
            KnownFile::Unarmed(Unarmed::NotGo) => return self.forget_exec(pid),
            KnownFile::Unarmed(Unarmed::Refused(_)) => (None, None),
            KnownFile::Unarmed(Unarmed::Go { module }) => (module.clone(), None),
            KnownFile::Armed(armed) => (armed.module(), Some(armed.clone())),
        };
        let mut known = self.meet(pid, module.as_deref(), Some(&exe.shown), armed.as_deref());
        let Some(started) = known.started else {
            // The process has ended since its file was opened.
            if file_known.may_be_armed()
                && let Err(unread) = self.arm_for_the_next(file, &exe.shown, &known, None)
            {
                self.count(unread);
            }
            return;
        };
        let has_probes = armed.is_some();
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
        let is_there = procfs::started(pid) == Some(started);
        if !is_there && !has_probes && known.left_out.is_none() {
            self.count(Unread::Late);
        }
        // It may have executed another program in the meantime, which an exec event reports.
        if is_there && procfs::executable(pid).is_ok_and(|now| now == *exe) {
            self.state().known.entry(pid).or_insert(known);
        }
    }

    /// Returns what is known of a file, parsing it if necessary.
    pub(super) fn file(&self, file: &File, shown: &Path) -> Option<KnownFile> {
        let known = self.armory.known(file);
        known.or_else(|| self.armory.look_into(file, shown).ok().map(KnownFile::Unarmed))
    }

    /// Handles a process that is about to execute `file`: attaches probes if `file` has none and the process
    /// matches the selector, as far as that is known before the exec. Its command line is not known yet.
    ///
    /// # Errors
    /// Fails if probes cannot be attached.
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

    /// Handles a process that has mapped the Go file `file`, which may be its executable or not: attaches
    /// probes to the file and adds the process, if that matches the selector. Returns `None` if it does not
    /// match or has ended, or if the file is known as one that cannot be watched.
    ///
    /// # Errors
    /// Fails if it is not a Go file, or probes cannot be attached.
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
        let mut known = self.meet(pid, module.as_deref(), None, None);
        let Some(started) = known.started.filter(|_| known.left_out.is_none()) else { return Ok(None) };
        let armed = self.armory.arm(file, path)?;
        self.enter(pid, started, &armed, &mut known);
        self.state().known.entry(pid).or_insert(known);
        Ok(Some(armed))
    }

    /// Notes that the process's binary cannot be watched.
    fn cannot(&self, path: &str, reason: &str, known: &mut Known) {
        self.state().refused.insert(path.to_owned(), reason.to_owned());
        known.left_out.get_or_insert_with(|| reason.to_owned());
    }

    /// Adds a process of an armed binary to the table of watched processes, as watched or ignored.
    fn enter(&self, pid: u32, started: u64, armed: &Arc<Armed>, known: &mut Known) {
        known.row = Some(armed.index);
        if known.left_out.is_some() {
            self.ignore(pid);
        } else if let Err(error) =
            self.armory.with_programs(|programs| programs.watch(pid, Some(armed.index)))
        {
            known.left_out = Some(error.to_string());
        }
        // It may have ended before it was added; then no exit event would remove it.
        // Its PID may belong to a process of another binary by now, whose events this entry would suppress.
        if procfs::started(pid) != Some(started) || armed.is_mapped_by(pid) == Some(false) {
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

    /// Describes process `pid` and matches it against the selector. `path` is where its binary was when that
    /// was armed, for a process that has ended.
    ///
    /// With `armed`, the process is one that had events of this binary: if the process that has the PID now
    /// does not map it, the described process has ended.
    pub(super) fn meet(
        &self,
        pid: u32,
        module: Option<&str>,
        path: Option<&Path>,
        armed: Option<&Armed>,
    ) -> Known {
        let Seen { started, mut process, place, uid, .. } = self.see(pid, armed);
        process.exe = process.exe.or_else(|| path.map(|path| path.to_string_lossy().into_owned()));
        process.container = place.container.as_ref().and_then(|c| serde_json::to_value(c).ok());
        process.kubernetes = place.pod.as_ref().and_then(|pod| serde_json::to_value(pod).ok());
        let left_out = self.selected(&process, module, &place, uid).err();
        Known { started, process, row: None, left_out, incidents: 0 }
    }

    /// Returns what /proc has on a process or, if it has ended, what /proc had on it after its exec.
    fn see(&self, pid: u32, armed: Option<&Armed>) -> Seen {
        let (started, process) = (procfs::started(pid), procfs::process(pid));
        let row = armed.map(|armed| armed.index);
        let mut seen = Seen { started, row, process, place: self.names.place(pid), uid: procfs::uid(pid) };
        let is_another = armed.is_some_and(|armed| armed.is_mapped_by(pid) == Some(false));
        let is_there = started.is_some() && procfs::started(pid) == started && !is_another;
        if is_another {
            let process = Process { pid, ..Process::default() };
            seen = Seen { started: None, row, process, place: Place::default(), uid: None };
        } else if !is_there {
            // The data may belong to another process that reused the PID, so the start time is dropped.
            seen.started = None;
        }
        let mut state = self.state();
        let Some(exec) = state.execs.iter_mut().find(|exec| exec.pid == pid) else { return seen };
        match &exec.seen {
            Some(before) if !is_there && before.may_be_of(armed) => {
                seen = Seen { started: None, ..before.clone() };
            }
            _ => {}
        }
        // Arguments and environment at the exec: the process may have overwritten them since, or ended.
        let args = exec.reported.args.as_deref().map(procfs::strings);
        seen.process.args = args.or(seen.process.args);
        let env = exec.reported.env.as_deref().map(procfs::go_variables);
        seen.process.env = env.or(seen.process.env);
        if is_there {
            exec.seen = Some(seen.clone());
        }
        seen
    }
}

impl Seen {
    /// Reports whether this may describe a process that had events of `armed`, and not another one with its
    /// PID.
    fn may_be_of(&self, armed: Option<&Armed>) -> bool {
        let Some(armed) = armed else { return true };
        let path = armed.program.path.to_string_lossy();
        self.row == Some(armed.index) || armed.is_library() || self.process.exe.as_deref() == Some(&*path)
    }
}

//! `panicwatch attach`: reports the panics of processes that are already running.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;

use super::{
    common::{
        Exit, FAILED, OutputArgs, RecorderArgs, open_regular, pid, say, say_counted, say_functions, say_late,
        unable, unreadable,
    },
    signals,
};
use crate::{
    host::procfs,
    probe::links,
    watch::{
        armed::Armed,
        armory::{self, ArmError},
        follow,
        session::{Input, Output, Scope, Session},
    },
};

/// Report the panics of a running program
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    recorder: RecorderArgs,
}

#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
struct Target {
    /// Watch the process with this PID
    #[arg(long, value_name = "PID", value_parser = pid())]
    pid: Option<u32>,
    /// Watch every process of this executable, present and future
    #[arg(long, value_name = "PATH")]
    exe: Option<PathBuf>,
}

/// Watches until Ctrl-C, or until the process ends.
///
/// # Errors
/// Status 1 when the process does not exist or has no Go code, 3 when the machine cannot watch it.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let files = files(&args.target)?;
    if args.output.dry_run {
        let plan = |(file, shown): &(File, PathBuf)| super::inspect::dry_run(file, shown, false);
        return files.iter().try_for_each(plan).map(|()| 0);
    }
    crate::doctor::requirements_for_run().map_err(unable)?;
    let mut sink = args.output.sink()?;
    let options = args.recorder.options();
    let scope = if args.target.exe.is_some() { Scope::Binaries } else { Scope::Chosen };
    let mut session = Session::start(scope, &options).map_err(unable)?;
    let armed: Result<Vec<_>, Exit> = files.iter().map(|(file, shown)| arm(&session, file, shown)).collect();
    let armed = armed?;
    armed.iter().for_each(|armed| say_functions(&armed.program.plan, &options));
    let sender = session.sender();
    if let Some(pid) = args.target.pid {
        session.describe(procfs::process(pid));
        // With several binaries, the one whose probes are hit identifies itself.
        let runs = if let [only] = &*armed { Some(&**only) } else { None };
        session.follow(pid, runs).map_err(unable)?;
        let sender = sender.clone();
        let process = pidfd(pid)?;
        thread::spawn(move || {
            wait(&process);
            let _ = sender.send(Input::Stop);
        });
    }
    if let (Some(_), [(file, _)], [armed]) = (&args.target.exe, &*files, &*armed) {
        for pid in procfs::running(file) {
            session.describe(procfs::process(pid));
            session.watch(pid, Some(armed)).map_err(unable)?;
        }
    }
    signals::on_stop(move || {
        let _ = sender.send(Input::Stop);
    })?;
    let shown: Vec<String> = files.iter().map(|(_, shown)| shown.display().to_string()).collect();
    say(&format!("watching {}; press Ctrl-C to stop", shown.join(", ")));
    loop {
        match session.wait() {
            Output::Incident(incident) => sink.write(&incident),
            Output::Note(note) => {
                say(&note);
                // Without the helper nothing is watched, and the note has said so.
                if links::has_ended() {
                    sink.finish();
                    return Ok(i32::from(FAILED));
                }
            }
            Output::Counted(counted) => say_counted(&counted),
            Output::Aside(aside) => say(&aside),
            Output::Init(..) | Output::Tick => {}
            Output::ChildExited(_) | Output::Stopped => {
                say_late(&session.unseen());
                return Ok(if sink.finish() == 0 { 0 } else { i32::from(FAILED) });
            }
        }
    }
}

/// Returns the Go files to watch: the executable, or the Go libraries loaded by a process that is not a Go
/// program.
fn files(target: &Target) -> Result<Vec<(File, PathBuf)>, Exit> {
    let pid = match (target.pid, &target.exe) {
        (Some(pid), _) => pid,
        (None, Some(path)) => return Ok(vec![(open_regular(path)?, path.clone())]),
        (None, None) => return Err(anyhow!("give --pid or --exe").into()),
    };
    let exe = procfs::executable(pid).map_err(|error| unreadable(pid, error))?;
    let file = File::open(&exe.link).with_context(|| format!("cannot read {}", exe.shown.display()))?;
    if !armory::open(&file).is_err_and(|error| error.is_not_go()) {
        return Ok(vec![(file, exe.shown)]);
    }
    let loaded = follow::mapped_go(pid);
    if loaded.is_empty() {
        return Err(anyhow!(
            "{} (process {pid}) is not a Go program and has no Go library loaded; to watch a library that it will \
             load, use panicwatch attach --exe FILE",
            exe.shown.display()
        )
        .into());
    }
    Ok(loaded)
}

fn arm(session: &Session, file: &File, path: &Path) -> Result<Arc<Armed>, Exit> {
    match session.arm(file, path) {
        Ok(armed) => Ok(armed),
        Err(ArmError::Probe(error)) => Err(unable(error)),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn pidfd(pid: u32) -> anyhow::Result<File> {
    use std::os::fd::FromRawFd;
    // SAFETY: plain system call; the result is checked.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error()).with_context(|| format!("there is no process {pid}"));
    }
    // SAFETY: a new descriptor that we own.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

/// Blocks until the process has ended.
pub(super) fn wait(process: &File) {
    use std::os::fd::AsRawFd;
    let mut fd = libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        // SAFETY: the struct outlives the call.
        let n = unsafe { libc::poll(&mut fd, 1, -1) };
        if n > 0 {
            return;
        }
    }
}

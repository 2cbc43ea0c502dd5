//! `panicwatch attach`: the same for what already runs.

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
    common::{Exit, OutputArgs, RecorderArgs, pid, say, say_counted, say_functions, unable, unreadable},
    signals,
};
use crate::watch::{
    armed::Armed,
    armory::ArmError,
    procfs,
    session::{Input, Output, Scope, Session},
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
    /// The process
    #[arg(long, value_name = "PID", value_parser = pid())]
    pid: Option<u32>,
    /// Every process of this executable, present and future
    #[arg(long, value_name = "PATH")]
    exe: Option<PathBuf>,
}

/// Attaches until Ctrl-C, or until the process ends.
///
/// # Errors
/// Status 1 when there is no such process or it is not Go, 3 when the machine cannot do it.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let (link, shown) = match (&args.target.pid, &args.target.exe) {
        (Some(pid), _) => {
            let exe = procfs::executable(*pid).map_err(|error| unreadable(*pid, error))?;
            (exe.link, exe.shown)
        }
        (None, Some(path)) => (path.clone(), path.clone()),
        (None, None) => return Err(anyhow!("give --pid or --exe").into()),
    };
    let file = File::open(&link).with_context(|| format!("cannot read {}", shown.display()))?;
    if args.output.dry_run {
        return super::inspect::dry_run(&file, &shown, false).map(|()| 0);
    }
    crate::doctor::requirements_for_run().map_err(unable)?;
    let mut sink = args.output.sink()?;
    let options = args.recorder.options();
    let scope = if args.target.exe.is_some() { Scope::Binaries } else { Scope::Chosen };
    let mut session = Session::start(scope, &options).map_err(unable)?;
    let armed = arm(&session, &file, &shown)?;
    say_functions(&armed.program.plan, &options);
    let sender = session.sender();
    if let Some(pid) = args.target.pid {
        session.describe(procfs::process(pid));
        session.watch(pid, Some(&armed)).map_err(unable)?;
        let sender = sender.clone();
        let process = pidfd(pid)?;
        thread::spawn(move || {
            wait(&process);
            let _ = sender.send(Input::Stop);
        });
    }
    if args.target.exe.is_some() {
        for pid in procfs::running(&file) {
            session.describe(procfs::process(pid));
            session.watch(pid, Some(&armed)).map_err(unable)?;
        }
    }
    signals::on_stop(session.gate(), move || {
        let _ = sender.send(Input::Stop);
    })?;
    say(&format!("watching {}; Ctrl-C ends it", shown.display()));
    loop {
        match session.wait() {
            Output::Incident(incident) => sink.write(&incident)?,
            Output::Note(note) => say(&note),
            Output::Counted(counted) => say_counted(&counted),
            Output::Aside(aside) => say(&aside),
            Output::Init(..) | Output::Tick => {}
            Output::ChildExited(_) | Output::Stopped => return Ok(0),
        }
    }
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
    // SAFETY: a new descriptor that is ours.
    Ok(unsafe { File::from_raw_fd(fd as i32) })
}

/// Returns when the process has ended.
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

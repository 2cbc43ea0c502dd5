//! The target of tracing: a running process, every process of an executable, or a program to start.

use std::{
    ffi::OsString,
    fs::File,
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, OnceLock},
    thread,
};

use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;

use super::super::{
    attach, child,
    common::{self, Exit, open_regular, say, unable, unreadable, usage},
    signals,
};
use crate::{
    host::procfs,
    watch::{
        launch,
        reader::Stop,
        tracing::{Tracing, Whom},
    },
};

#[derive(Debug, ClapArgs)]
#[group(multiple = false)]
pub(super) struct TargetArgs {
    /// Trace this running process
    #[arg(long, value_name = "PID", value_parser = common::pid())]
    pid: Option<u32>,
    /// Trace every process of this executable, present and future
    #[arg(long, value_name = "PATH")]
    exe: Option<PathBuf>,
}

enum Which {
    Process(u32),
    Executable,
    Command(Vec<OsString>),
}

/// The target and its opened file.
pub(super) struct Target {
    which: Which,
    /// Path to start the program from.
    path: PathBuf,
    /// Path in messages.
    pub(super) shown: PathBuf,
    pub(super) file: File,
}

/// The exit status of a program that was started, once it has ended.
pub(super) struct Running {
    status: Arc<OnceLock<ExitStatus>>,
}

impl Running {
    /// Returns the exit status for panicwatch: the program's, or 0.
    pub(super) fn status(&self) -> i32 {
        self.status.get().map_or(0, |status| launch::shell_status(*status))
    }
}

impl Target {
    /// # Errors
    /// Status 1 when the target does not exist, 2 when not exactly one target is given.
    pub(super) fn find(args: &TargetArgs, command: &[OsString]) -> Result<Target, Exit> {
        let (which, path, shown) = match (args.pid, &args.exe, command.first()) {
            (Some(pid), None, None) => {
                let exe = procfs::executable(pid).map_err(|error| unreadable(pid, error))?;
                (Which::Process(pid), exe.link, exe.shown)
            }
            (None, Some(path), None) => (Which::Executable, path.clone(), path.clone()),
            (None, None, Some(program)) => {
                common::named(program)?;
                let path = launch::resolve(program)?;
                (Which::Command(command.to_vec()), path.clone(), std::path::absolute(path)?)
            }
            _ => {
                let error = anyhow!(
                    "give exactly one target: --pid PID, --exe PATH, or -- PROGRAM and its arguments"
                );
                return Err(usage(error));
            }
        };
        let file = match which {
            Which::Executable => open_regular(&path)?,
            _ => File::open(&path).with_context(|| format!("cannot read {}", shown.display()))?,
        };
        Ok(Target { which, path, shown, file })
    }

    /// Reports whether the target is a program to start, which then owns standard output.
    pub(super) fn is_started(&self) -> bool {
        matches!(self.which, Which::Command(_))
    }

    /// Returns the selection of processes for the session.
    pub(super) fn whom(&self, goroutine: Option<u64>) -> Whom {
        let pid = match self.which {
            Which::Process(pid) => Some(pid),
            Which::Executable | Which::Command(_) => None,
        };
        Whom { pid, all: matches!(self.which, Which::Executable), goroutine }
    }

    /// Starts the program, or waits for the process to end in the background. Requests `stop` when it has
    /// ended or the user wants to stop.
    ///
    /// # Errors
    /// When the program cannot be started, or the process has ended.
    pub(super) fn start(&self, tracing: &mut Tracing, stop: &Stop) -> Result<Running, Exit> {
        let status = Arc::new(OnceLock::new());
        match &self.which {
            Which::Command(command) => {
                let (program, rest) = command.split_first().context("no program was given")?;
                let watching = |start: child::Start<'_>| {
                    let us = std::process::id();
                    tracing.watch(us)?;
                    let started = start();
                    tracing.unwatch(us)?;
                    Ok(started)
                };
                let start = || launch::start(&self.path, program, rest, false);
                let (mut child, forwarding) = child::spawn(start, watching)?;
                tracing.prefer(child.id()).map_err(unable)?;
                let (told, stop) = (status.clone(), stop.try_clone()?);
                thread::spawn(move || {
                    let ended = child.wait();
                    forwarding.child_ended();
                    if let Ok(ended) = ended {
                        let _ = told.set(ended);
                    }
                    stop.request();
                });
                return Ok(Running { status });
            }
            Which::Process(pid) => {
                tracing.watch(*pid).map_err(unable)?;
                let process = attach::pidfd(*pid)?;
                let stop = stop.try_clone()?;
                thread::spawn(move || {
                    attach::wait(&process);
                    stop.request();
                });
            }
            Which::Executable => {}
        }
        let stop = stop.try_clone()?;
        signals::on_stop(move || stop.request())?;
        say(&format!("{}; press Ctrl-C to stop", self.shown.display()));
        Ok(Running { status })
    }
}

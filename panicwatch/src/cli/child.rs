//! Code shared by the commands that start a program: attaching probes to it, starting it, and waiting for it
//! to exit.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read as _,
    path::Path,
    process::Child,
    sync::Arc,
    thread,
};

use super::{
    common::{Exit, say, unable},
    signals::{self, Forwarding},
};
use crate::{
    clock, escape,
    host::procfs,
    incident::Process,
    probe::error::ProbeError,
    watch::{
        armed::Armed,
        armory::ArmError,
        launch::{self, LaunchError},
        session::{Input, Session},
    },
};

/// A program that was started, and the session that watches it.
pub(super) struct Watched {
    pub(super) session: Session,
    /// The program's binary; `None` if the program is not Go, such as a script: it may start Go programs.
    pub(super) armed: Option<Arc<Armed>>,
}

/// Options for starting a program.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    /// The kernel kills the program when panicwatch ends.
    pub(super) dies_with_us: bool,
}

/// Starts `command`, found at `path` and opened as `file`, with every probe attached before its first
/// instruction.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot watch it.
pub(super) fn start(
    mut session: Session,
    command: &[OsString],
    path: &Path,
    file: &File,
    how: How,
) -> Result<Watched, Exit> {
    let Some((program, rest)) = command.split_first() else {
        return Err(anyhow::anyhow!("no program was given").into());
    };
    let shown = std::path::absolute(path)?;
    let armed = arm(&session, file, &shown)?;
    if armed.is_none() {
        arm_arguments(&session, rest);
    }
    if let Some(problem) = session.gate_problem() {
        let program = escape::one_line(&program.to_string_lossy());
        say(&format!(
            "Go programs that {program} starts are watched only from some milliseconds after their exec: {problem}"
        ));
    }

    let watching = |start: Start<'_>| session.watching_forks(start);
    let start = || launch::start(path, program, rest, how.dies_with_us);
    let (mut child, forwarding) = spawn(start, watching)?;
    session.launched(Process {
        args: Some(command.iter().map(|arg| arg.to_string_lossy().into_owned()).collect()),
        env: Some(procfs::own_go_variables()),
        start_time: Some(clock::measure().rfc3339(clock::monotonic_ns())),
        ..procfs::process(child.id())
    });
    let sender = session.sender();
    let stop = sender.clone();
    forwarding.after_the_child(move || drop(stop.send(Input::Stop)));
    thread::spawn(move || {
        let ended = child.wait();
        forwarding.child_ended();
        if let Ok(status) = ended {
            let _ = sender.send(Input::ChildExited(status));
        }
    });
    Ok(Watched { session, armed })
}

/// Starts the program; called once.
pub(super) type Start<'a> = &'a mut dyn FnMut() -> Result<Child, LaunchError>;

/// Starts a program with `start`, and forwards to it the signals that panicwatch receives from then on.
/// `watching` calls the function it is given, which starts the program, and adds our own process to the table
/// of watched processes meanwhile: the eBPF programs follow the forks of watched processes.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot watch it.
pub(super) fn spawn(
    mut start: impl FnMut() -> Result<Child, LaunchError>,
    watching: impl FnOnce(Start<'_>) -> Result<Result<Child, LaunchError>, ProbeError>,
) -> Result<(Child, Forwarding), Exit> {
    let forwarding = signals::forward_to_child()?;
    let child = watching(&mut start).map_err(unable)??;
    forwarding.child_is(child.id());
    Ok((child, forwarding))
}

/// Attaches probes to the program itself. Returns `None` when it is not Go (a script, for example), which is
/// no error: it may start Go programs.
fn arm(session: &Session, file: &File, path: &Path) -> Result<Option<Arc<Armed>>, Exit> {
    match session.arm(file, path) {
        Ok(armed) => Ok(Some(armed)),
        Err(ArmError::NotGo(_)) => Ok(None),
        Err(ArmError::Probe(error)) => Err(unable(error)),
        Err(error) => Err(error.into()),
    }
}

/// Maximum number of arguments to examine, and of Go files among them to attach probes to.
const MAX_ARGUMENTS: usize = 64;
const MAX_ARMED: usize = 4;

/// Attaches probes to the Go files among the arguments of a program that is not Go: the program that a loader
/// or launcher will run, or the library that a host will load. So their first instructions are covered; they
/// are not if the file is found only when it runs.
fn arm_arguments(session: &Session, arguments: &[OsString]) {
    let mut armed = 0;
    for argument in arguments.iter().take(MAX_ARGUMENTS) {
        let path = Path::new(argument);
        // Open regular files only: opening a FIFO could block, opening a device could have side effects.
        if !fs::metadata(path).is_ok_and(|meta| meta.is_file()) {
            continue;
        }
        let Ok(mut file) = File::open(path) else { continue };
        let mut magic = [0; 4];
        if file.read_exact(&mut magic).is_err() || magic != *b"\x7fELF" {
            continue;
        }
        let shown = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        // A file that cannot be watched is reported when it runs.
        armed += usize::from(session.arm(&file, &shown).is_ok());
        if armed == MAX_ARMED {
            return;
        }
    }
}

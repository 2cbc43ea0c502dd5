//! What the commands that start a program share: starting it armed, and waiting for its end.

use std::{fs::File, path::Path, process::Child, sync::Arc, thread};

use super::{
    common::{Exit, say, unable},
    signals,
};
use crate::{
    clock::Clock,
    incident::Process,
    probe::error::ProbeError,
    watch::{
        armed::Armed,
        armory::ArmError,
        gate::Gate,
        launch::{self, LaunchError},
        procfs,
        session::{Input, Session},
    },
};

/// A program that was started, and the session that watches it.
pub(super) struct Watched {
    pub(super) session: Session,
    /// Its binary; none for a script, say: what it starts may be Go.
    pub(super) armed: Option<Arc<Armed>>,
}

/// Starts `command`, found at `path` and opened as `file`, with every probe armed before its first instruction.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot do it.
pub(super) fn start(
    mut session: Session,
    command: &[String],
    path: &Path,
    file: &File,
) -> Result<Watched, Exit> {
    let Some((program, rest)) = command.split_first() else {
        return Err(anyhow::anyhow!("no program was given").into());
    };
    let shown = std::path::absolute(path)?;
    let armed = arm(&session, file, &shown)?;
    if let Some(problem) = session.gate_problem() {
        say(&format!("Go programs that {program} starts are not covered: {problem}"));
    }

    let watching = |start: Start<'_>| session.watching_forks(start);
    let mut child = spawn(path, program, rest, session.gate(), watching)?;
    session.launched(Process {
        args: Some(command.to_vec()),
        env: Some(procfs::own_go_variables()),
        start_time: Some(Clock::measure().rfc3339(Clock::monotonic_ns())),
        ..procfs::process(child.id())
    });
    let sender = session.sender();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = sender.send(Input::ChildExited(status));
        }
    });
    Ok(Watched { session, armed })
}

/// Starts the program, once.
pub(super) type Start<'a> = &'a mut dyn FnMut() -> Result<Child, LaunchError>;

/// Starts a program whose signals are ours from then on. `watching` calls what starts it, and has our own process in the
/// table of watched ones meanwhile: the kernel programs follow the forks of whom they watch.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot do it.
pub(super) fn spawn(
    path: &Path,
    program: &str,
    args: &[String],
    gate: Option<Arc<Gate>>,
    watching: impl FnOnce(Start<'_>) -> Result<Result<Child, LaunchError>, ProbeError>,
) -> Result<Child, Exit> {
    let forwarding = signals::forward_to_child(gate)?;
    let child = watching(&mut || launch::start(path, program, args)).map_err(unable)??;
    forwarding.child_is(child.id());
    Ok(child)
}

/// Arms the program itself; none when it is not Go (a script, say), which is no error: what it starts may be.
fn arm(session: &Session, file: &File, path: &Path) -> Result<Option<Arc<Armed>>, Exit> {
    match session.arm(file, path) {
        Ok(armed) => Ok(Some(armed)),
        Err(ArmError::NotGo(_)) => Ok(None),
        Err(ArmError::Probe(error)) => Err(unable(error)),
        Err(error) => Err(error.into()),
    }
}

//! `panicwatch run -- PROGRAM`: starts it with every probe armed before its first instruction.

use std::{fs::File, path::Path, thread};

use clap::Args as ClapArgs;

use super::{
    common::{Exit, OutputArgs, say, unable},
    signals,
};
use crate::{
    clock::Clock,
    incident::Process,
    watch::{
        armory::ArmError,
        launch, procfs,
        session::{Input, Output, Session},
    },
};

/// Start a program and report its panics
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    output: OutputArgs,
    /// How much of what happened before a panic to keep; taken but without effect until timelines are recorded
    #[arg(long, value_name = "DURATION", default_value = "10ms")]
    window: String,
    /// Report no timeline; none is recorded yet
    #[arg(long)]
    no_timeline: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

/// Runs it; gives the exit status of the program.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot do it.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let Some((program, rest)) = args.command.split_first() else { return Ok(2) };
    let path = launch::resolve(program)?;
    let file = File::open(&path)?;
    if args.output.dry_run {
        return super::inspect::dry_run(&file, &path).map(|()| 0);
    }
    crate::doctor::requirements_for_run().map_err(unable)?;
    let mut sink = args.output.sink()?;
    let mut session = Session::start(false).map_err(unable)?;
    let shown = std::path::absolute(&path)?;
    let is_go = arm(&session, &file, &shown)?;
    if let Some(problem) = session.gate_problem() {
        say(&format!("Go programs that {program} starts are not covered: {problem}"));
    }

    let forwarding = signals::forward_to_child(session.gate())?;
    // The child is watched from its fork on, because the kernel programs follow the forks of whom they watch.
    let us = std::process::id();
    session.watch(us).map_err(unable)?;
    let child = launch::start(&path, program, rest);
    session.unwatch(us).map_err(unable)?;
    let mut child = child?;
    forwarding.child_is(child.id());
    session.launched(Process {
        args: Some(args.command.clone()),
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

    loop {
        match session.wait() {
            Output::Incident(incident) => sink.write(&incident)?,
            Output::Note(note) => say(&note),
            Output::ChildExited(status) => {
                if !is_go && session.saw_no_go() {
                    say(&format!(
                        "{program} is not a Go program and started none: there was nothing to watch"
                    ));
                }
                return Ok(launch::shell_status(status));
            }
            Output::Stopped => return Ok(1),
        }
    }
}

/// Arms the program itself; false when it is not Go (a script, say), which is no error: what it starts may be.
fn arm(session: &Session, file: &File, path: &Path) -> Result<bool, Exit> {
    match session.arm(file, path) {
        Ok(_) => Ok(true),
        Err(ArmError::NotGo(_)) => Ok(false),
        Err(ArmError::Probe(error)) => Err(unable(error)),
        Err(error) => Err(error.into()),
    }
}

//! `panicwatch run -- PROGRAM`: starts it with every probe armed before its first instruction.

use std::fs::File;

use clap::Args as ClapArgs;

use super::{
    child::{self, Watched},
    common::{self, Exit, OutputArgs, RecorderArgs, say, say_counted, say_functions, unable},
};
use crate::watch::{
    launch,
    session::{Output, Scope, Session},
};

/// Start a program and report its panics
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    recorder: RecorderArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<String>,
}

/// Runs it; gives the exit status of the program.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot do it.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let Some(program) = args.command.first() else { return Ok(2) };
    common::named(program)?;
    let path = launch::resolve(program)?;
    let file = File::open(&path)?;
    if args.output.dry_run {
        return super::inspect::dry_run(&file, &path, false).map(|()| 0);
    }
    crate::doctor::requirements_for_run().map_err(unable)?;
    let mut sink = args.output.sink()?;
    let options = args.recorder.options();
    let session = Session::start(Scope::Chosen, &options).map_err(unable)?;
    let Watched { mut session, armed } = child::start(session, &args.command, &path, &file)?;
    if let Some(armed) = &armed {
        say_functions(&armed.program.plan, &options);
    }
    loop {
        match session.wait() {
            Output::Incident(incident) => sink.write(&incident)?,
            Output::Note(note) => say(&note),
            Output::Counted(counted) => say_counted(&counted),
            Output::Init(..) | Output::Aside(_) | Output::Tick => {}
            Output::ChildExited(status) => {
                if armed.is_none() && session.saw_no_go() {
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

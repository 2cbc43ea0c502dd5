//! `panicwatch run PROGRAM`: starts a program with every probe attached before its first instruction.

use std::{ffi::OsString, fs::File};

use clap::Args as ClapArgs;

use super::{
    child::{self, How, Watched},
    common::{self, Exit, OutputArgs, RecorderArgs, say, say_counted, say_functions, unable},
    sink::Sink,
};
use crate::{
    escape,
    incident::Process,
    watch::{
        launch,
        session::{Output, Scope, Session},
    },
};

/// Start a program and report its panics
///
/// Go programs and Go libraries that PROGRAM starts or loads are watched as well. The program's input, output
/// and signals pass through untouched, and panicwatch exits with its status.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    recorder: RecorderArgs,
    /// After PROGRAM has exited, watch until the programs that it left running have exited too, or until
    /// Ctrl-C
    #[arg(long)]
    wait: bool,
    /// Have the kernel kill PROGRAM (SIGKILL) if panicwatch is killed; otherwise PROGRAM then continues
    /// unwatched
    #[arg(long)]
    kill_on_exit: bool,
    /// The program and its arguments; options after PROGRAM are the program's
    #[arg(trailing_var_arg = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Runs the program, and returns its exit status.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot watch it.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let Some(program) = args.command.first() else { return Ok(2) };
    common::named(program)?;
    let path = launch::resolve(program)?;
    let program = escape::one_line(&program.to_string_lossy());
    let file = File::open(&path)?;
    if args.output.dry_run {
        return super::inspect::dry_run(&file, &path, false).map(|()| 0);
    }
    crate::doctor::requirements_for_run().map_err(unable)?;
    let mut sink = args.output.sink()?;
    let options = args.recorder.options();
    let session = Session::start(Scope::Chosen, &options).map_err(unable)?;
    let how = How { dies_with_us: args.kill_on_exit };
    let Watched { mut session, armed } = child::start(session, &args.command, &path, &file, how)?;
    if args.wait {
        session.wait_for_descendants();
    }
    if let Some(armed) = &armed {
        say_functions(&armed.program.plan, &options);
    }
    loop {
        match session.wait() {
            Output::Incident(incident) => sink.write(&incident),
            Output::Note(note) => say(&note),
            Output::Counted(counted) => say_counted(&counted),
            Output::Init(..) | Output::Aside(_) | Output::Tick => {}
            Output::ChildExited(status) => {
                finish(&session, &mut sink, &program, armed.is_some());
                return Ok(launch::shell_status(status));
            }
            Output::Stopped => {
                finish(&session, &mut sink, &program, armed.is_some());
                return Ok(session.child_status().map_or(1, launch::shell_status));
            }
        }
    }
}

/// Reports programs that were not watched, incidents that could not be written, and Go programs that still
/// run.
fn finish(session: &Session, sink: &mut Sink, program: &str, is_go: bool) {
    let unseen = session.unseen();
    if !is_go && !unseen.ran_go {
        say(&format!(
            "{program} is not a Go program, and was not seen to start one or to load Go code: nothing was watched{}",
            common::unread(&unseen)
        ));
    } else if unseen.unread > 0 {
        say(common::unread(&unseen).trim_start_matches("; "));
    }
    common::say_late(&unseen);
    sink.finish();
    let left = session.still_running();
    if !left.is_empty() {
        say(&still_running(&left));
    }
}

/// Maximum number of processes to name.
const MAX_NAMED: usize = 5;

/// Names the Go programs that continue unwatched.
fn still_running(left: &[Process]) -> String {
    let named: Vec<String> = left
        .iter()
        .take(MAX_NAMED)
        .map(|process| format!("{} (pid {})", name(process), process.pid))
        .collect();
    let more = match left.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let (programs, run) = if left.len() == 1 { ("a Go program", "runs") } else { ("Go programs", "run") };
    let first = left.first().map_or(0, |process| process.pid);
    format!(
        "{programs} that it started still {run}, no longer watched: {}{more}; panicwatch attach --pid {first} watches \
         it, \
         run --wait waits until all have exited",
        named.join(", ")
    )
}

fn name(process: &Process) -> String {
    let first = process.args.as_ref().and_then(|args| args.first());
    escape::one_line(first.or(process.exe.as_ref()).map_or("?", String::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_left_running_are_named() {
        let process = |pid| Process { pid, args: Some(vec![format!("./p{pid}")]), ..Process::default() };
        let one = still_running(&[process(7)]);
        assert!(
            one.starts_with("a Go program that it started still runs") && one.contains("./p7 (pid 7); "),
            "{one}"
        );
        let many: Vec<Process> = (1..=7).map(process).collect();
        let many = still_running(&many);
        assert!(many.contains("./p5 (pid 5) and 2 more; panicwatch attach --pid 1 "), "{many}");
        assert!(!many.contains("pid 6"), "{many}");
    }
}

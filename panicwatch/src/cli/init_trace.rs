//! `panicwatch init-trace -- PROGRAM`: shows what happens before main.main, and how long it takes.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, ValueEnum};

use super::{
    child::{self, How, Watched},
    common::{self, Exit, say, say_counted, sentence, unable},
};
use crate::{
    capture::Program,
    clock, escape,
    incident::Incident,
    init_trace::{self, Collected, InitTrace},
    recorder,
    render::{report, text::Style},
    watch::{
        follow::Unseen,
        launch,
        session::{Output, Scope, Session},
    },
};

/// Show what a program does before main.main, and how long each package takes
///
/// The trace is written as soon as main.main begins, or when the program ends before that. The program's
/// input, output and signals pass through untouched, and panicwatch exits as it did.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Write the trace to FILE instead of standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Output format; perfetto is for ui.perfetto.dev
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Sort packages by the time they take, slowest first
    #[arg(long)]
    slowest: bool,
    /// Print the probe plan and exit
    #[arg(long)]
    dry_run: bool,
    /// The program and its arguments; options after PROGRAM are the program's
    #[arg(trailing_var_arg = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Perfetto,
}

/// Runs the program, and returns its exit status.
///
/// # Errors
/// Status 1 when the program cannot be started, 3 when the machine cannot watch it.
pub fn run(args: &Args) -> Result<i32, Exit> {
    let Some(program) = args.command.first() else { return Ok(2) };
    common::named(program)?;
    if args.format == Format::Perfetto && args.output.is_none() {
        let error =
            anyhow!("--format perfetto is binary: cannot write it to a terminal; name a file with -o FILE");
        return Err(common::usage(error));
    }
    let path = launch::resolve(program)?;
    let program = escape::one_line(&program.to_string_lossy());
    let file = File::open(&path)?;
    if args.dry_run {
        return super::inspect::dry_run(&file, &path, true).map(|()| 0);
    }
    crate::doctor::requirements_for_run().map_err(unable)?;
    let mut writer = Writer::open(args)?;
    let mut session = Session::start(Scope::Chosen, &recorder::Options::off()).map_err(unable)?;
    session.trace_init();
    let Watched { mut session, armed } = child::start(session, &args.command, &path, &file, How::default())?;
    loop {
        match session.wait() {
            Output::Incident(incident) => writer.incident(*incident),
            Output::Note(note) => say(&note),
            Output::Counted(counted) => say_counted(&counted),
            Output::Aside(_) | Output::Tick => {}
            Output::Init(collected, binary) => {
                if armed.is_none() {
                    say(&format!(
                        "{program} is not a Go program; tracing the first Go program that it started"
                    ));
                }
                // The program continues, and so does panicwatch.
                if let Err(error) = writer.trace(&collected, &binary) {
                    say(&sentence(&error));
                }
            }
            Output::ChildExited(status) => {
                if !writer.is_done() {
                    say(&nothing_traced(&program, armed.is_some(), &session.unseen()));
                }
                writer.finish();
                return Ok(launch::shell_status(status));
            }
            Output::Stopped => return Ok(1),
        }
    }
}

/// Writes the trace, and buffers incidents until then: the trace includes how the program ended.
struct Writer {
    to: Box<dyn Write>,
    to_file: bool,
    format: Format,
    slowest: bool,
    style: Style,
    /// Incidents seen so far; `None` once the trace is written.
    waiting: Option<Vec<Incident>>,
    /// Monotonic time at which the initialization ended, ns. Incidents that began later are not reported.
    over_ns: u64,
}

impl Writer {
    fn open(args: &Args) -> anyhow::Result<Writer> {
        let (to, style): (Box<dyn Write>, _) = match &args.output {
            Some(path) => {
                let file =
                    File::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
                (Box::new(file), Style::default())
            }
            None => (Box::new(io::stderr()), common::stderr_style()),
        };
        let (format, slowest) = (args.format, args.slowest);
        let to_file = args.output.is_some();
        Ok(Writer { to, to_file, format, slowest, style, waiting: Some(Vec::new()), over_ns: u64::MAX })
    }

    fn is_done(&self) -> bool {
        self.waiting.is_none()
    }

    fn incident(&mut self, incident: Incident) {
        match &mut self.waiting {
            Some(waiting) => waiting.push(incident),
            None if incident.start_ns < self.over_ns => report(&incident),
            None => {}
        }
    }

    fn trace(&mut self, collected: &Collected, program: &Program) -> anyhow::Result<()> {
        let incidents = self.waiting.take().unwrap_or_default();
        let mut trace = init_trace::build(collected, program, &incidents);
        if let Some(end) = trace.chain.last().filter(|_| trace.stopped.is_none()) {
            self.over_ns = end.time_ns;
        }
        let written = self.write(&mut trace);
        incidents.iter().for_each(report);
        written
    }

    fn write(&mut self, trace: &mut InitTrace) -> anyhow::Result<()> {
        let bytes = match self.format {
            Format::Text => {
                let text = init_trace::text::render(trace, self.slowest, &self.style);
                // The program may have left the last line of the terminal unfinished.
                if self.to_file { text.into_bytes() } else { format!("\n{text}").into_bytes() }
            }
            Format::Json => {
                if self.slowest {
                    trace.packages = trace.slowest().into_iter().cloned().collect();
                }
                let text = crate::json::to_string(trace).context("cannot encode the trace as JSON")?;
                (text + "\n").into_bytes()
            }
            Format::Perfetto => init_trace::perfetto::encode(trace, Some(clock::measure().offset_ns)),
        };
        written(self.to.write_all(&bytes).and_then(|()| self.to.flush()))
    }

    /// Reports the incidents of a program whose initialization was never seen.
    fn finish(&mut self) {
        self.waiting.take().unwrap_or_default().iter().for_each(report);
    }
}

/// Explains why there is no trace.
fn nothing_traced(program: &str, is_go: bool, unseen: &Unseen) -> String {
    match (is_go, unseen) {
        (true, _) => format!("{program} exited before any of its Go code ran: there is nothing to trace"),
        (false, Unseen { late: 1.., .. }) => format!(
            "{program} is not a Go program, and the Go programs that it started were found only after their start: \
             their initialization was missed"
        ),
        (false, Unseen { ran_go: true, .. }) => {
            format!(
                "the Go program that {program} started exited before any of its Go code ran: there is nothing to trace"
            )
        }
        (false, _) => format!(
            "{program} is not a Go program, and was not seen to start one: there is nothing to trace{}",
            common::unread(unseen)
        ),
    }
}

/// Reports an incident as `run` does. A failure to write to standard error has nowhere to be reported.
fn report(incident: &Incident) {
    let text = format!("\n{}", report::render(incident, &common::stderr_style()));
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Ignores a closed pipe, which is not an error.
fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write the trace"),
    }
}

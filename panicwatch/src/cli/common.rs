//! What `run` and `attach` share: where incidents go, and how sentences are told.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, IsTerminal, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};

use super::sink::Sink;
use crate::{
    escape,
    incident::Frame,
    probe::plan::ProbePlan,
    recorder::{self, Level, OverheadBudget, Source},
    report,
    trace::pattern::Pattern,
    watch::{follow::Unseen, session::Counted},
};

/// Exit status of a failure.
pub const FAILED: u8 = 1;
/// Exit status of wrong usage, which is clap's as well.
pub const USAGE: u8 = 2;
/// Exit status when the machine or the permissions cannot do it.
pub const UNABLE: u8 = 3;

/// How incidents are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Text reports.
    Text,
    /// One JSON document per line.
    Jsonl,
}

/// Options of every command that reports incidents.
#[derive(Debug, Args)]
pub struct OutputArgs {
    /// Write incidents to FILE as JSON lines instead of reporting them on standard error
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Output format of incidents [default: text on standard error, jsonl to a file]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Print the probe plan and exit
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of every command that records what happened before a panic.
#[derive(Debug, Args)]
pub struct RecorderArgs {
    /// Length of the timeline before a panic
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = duration)]
    window: Duration,
    /// Record no timeline
    #[arg(long)]
    no_timeline: bool,
    /// How much to record; any level but default is recorded in full (for the costs see docs/recorder.md)
    #[arg(long, value_enum, default_value_t, conflicts_with = "no_timeline")]
    level: Level,
    /// Sources to leave out: switch, wakeup, migrate, signal, syscall, fault, sample, gc, assist, goroutine
    #[arg(long, value_name = "SOURCES", value_delimiter = ',', value_parser = source)]
    without: Vec<Source>,
    /// Functions whose entries to record: globs, or regular expressions between slashes
    #[arg(long = "function", value_name = "PATTERN", value_parser = Pattern::parse)]
    functions: Vec<Pattern>,
    /// Target budget: the most that recording may cost watched processes, in percent of their CPU time, or off. While
    /// it costs more, sources are paused, the least valuable first [auto: 1 with level default, off with any other]
    #[arg(long, value_name = "PERCENT|off", default_value_t)]
    budget: OverheadBudget,
    /// Host budget: the most that recording may cost all other processes, in percent of the machine's CPU capacity, or
    /// off [auto: 0.5 with level default, off with any other]
    #[arg(long, value_name = "PERCENT|off", default_value_t)]
    host_budget: OverheadBudget,
    /// Core limit: the most of each core that recording may cost watched processes, in percent, whatever the target
    /// budget allows, or off [auto: 5 with level default, off with any other]
    #[arg(long, value_name = "PERCENT|off", default_value_t)]
    core_limit: OverheadBudget,
    /// Panics of a program to capture per second, averaged over some seconds; others are only counted. 0: capture all
    #[arg(long, value_name = "PER_SECOND", default_value_t = 200)]
    max_captures: u32,
}

impl RecorderArgs {
    /// As the recorder takes them.
    pub fn options(&self) -> recorder::Options {
        recorder::Options {
            window: self.window,
            level: if self.no_timeline { Level::Off } else { self.level },
            without: self.without.clone(),
            functions: self.functions.clone(),
            budget: self.budget,
            host_budget: self.host_budget,
            core_limit: self.core_limit,
            captures_per_second: self.max_captures,
        }
    }
}

/// The longest window: what comes before is no part of a moment any more.
const MAX_WINDOW: Duration = Duration::from_secs(60);

/// "10ms", "1.5s", "200us".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_alphabetic());
    let number: f64 = digits.parse().map_err(|_| "write it as 10ms or 1.5s".to_owned())?;
    let unit = match &text[digits.len()..] {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        other => return Err(format!("{other:?} is not a unit of time; use ns, us, ms or s")),
    };
    let window = Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())?;
    if window.is_zero() {
        return Err("must be longer than 0".to_owned());
    }
    if window > MAX_WINDOW {
        return Err(format!("must be at most {} s", MAX_WINDOW.as_secs()));
    }
    Ok(window)
}

fn source(name: &str) -> Result<Source, String> {
    let names = || Source::ALL.map(Source::name).join(", ");
    Source::of_name(name).ok_or_else(|| format!("there is no such source; use {}", names()))
}

impl OutputArgs {
    /// Opens the file, if there is one.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn sink(&self) -> anyhow::Result<Sink> {
        let style = stderr_style();
        match &self.output {
            Some(path) => Sink::file(path, self.format.unwrap_or(Format::Jsonl), style),
            None => Ok(Sink::stderr(self.format.unwrap_or(Format::Text), style)),
        }
    }
}

/// Tells which of the functions that the user named are not recorded.
pub(super) fn say_functions(plan: &ProbePlan, options: &recorder::Options) {
    if options.functions.is_empty() {
        return;
    }
    if !plan.sites.iter().any(|site| site.program == "function") {
        let names: Vec<&str> = options.functions.iter().map(Pattern::text).collect();
        say(&format!(
            "no function of the program is recorded for {}; panicwatch trace with the same pattern prints why",
            names.join(", ")
        ));
    }
    for (name, reason) in plan.refused.iter().take(REFUSED_TOLD) {
        say(&format!("{} is not recorded: {reason}", escape::one_line(name)));
    }
    if let Some(more) = plan.refused.len().checked_sub(REFUSED_TOLD).filter(|more| *more > 0) {
        say(&format!("and {more} more functions are not recorded"));
    }
}

/// Refused functions that are told one by one.
const REFUSED_TOLD: usize = 5;

/// Tells of panics that were only counted.
pub(super) fn say_counted(counted: &Counted) {
    let Counted { pid, site, count } = counted;
    let at = match site {
        Some(Frame { function, file: Some(file), line: Some(line), .. }) => {
            format!("at {} ({}:{line})", escape::one_line(function), escape::one_line(file))
        }
        Some(frame) => format!("at {}", escape::one_line(&frame.function)),
        None => "at sites beyond the table's capacity".to_owned(),
    };
    let s = if *count == 1 { "" } else { "s" };
    say(&format!("{count} more panic{s} {at} in process {pid}: counted only, they exceed --max-captures"));
}

/// "; 2 programs ended before their files could be read", or nothing.
pub(super) fn unread(unseen: &Unseen) -> String {
    match unseen.unread {
        0 => String::new(),
        1 => "; a program that it started exited before its file could be read: whether it was a Go program is \
              unknown".to_owned(),
        n => format!(
            "; {n} programs that it started exited before their files could be read: whether they were Go programs is \
             unknown"
        ),
    }
}

/// Tells of Go code whose probes came late.
pub(super) fn say_late(unseen: &Unseen) {
    if unseen.late == 0 {
        return;
    }
    let files: Vec<String> =
        unseen.late_files.iter().map(|file| escape::one_line(&file.to_string_lossy())).collect();
    let (processes, their) = if unseen.late == 1 { ("process", "its") } else { ("processes", "their") };
    say(&format!(
        "{} {processes} with Go code started before {their} probes were attached: panics before that were missed \
         ({}); to attach before the start, use panicwatch attach --exe FILE",
        unseen.late,
        files.join(", ")
    ));
}

/// Prints a sentence on standard error, on one line: names of files, what a binary says of itself and what servers answer
/// cannot steer the terminal, nor pass for a line of our own.
pub fn say(sentence: &str) {
    let _ = writeln!(io::stderr(), "panicwatch: {}", escape::one_line(sentence));
}

/// Prints an error and its causes; [`Listed`] as lines.
pub fn say_error(error: &anyhow::Error) {
    say(&sentence(error));
    let listed = error.downcast_ref::<Listed>().map(|listed| listed.problems.as_slice());
    for problem in listed.unwrap_or_default() {
        let _ = writeln!(io::stderr(), "  {}", escape::one_line(problem));
    }
}

/// Prints clap's account of a wrong command line, or the help that was asked for, and returns the exit status. It repeats
/// arguments, which may be names of files: so the account is that of `parse`, given the same arguments made safe.
pub fn say_usage(error: &clap::Error, parse: impl Fn(Vec<String>) -> Result<(), clap::Error>) -> u8 {
    if !error.use_stderr() {
        // A closed pipe is not an error.
        let _ = error.print();
        return 0;
    }
    let safe = std::env::args_os().map(|arg| escape::one_line(&arg.to_string_lossy())).collect();
    if let Err(same) = parse(safe) {
        let _ = same.print();
    } else {
        say("the arguments have invalid characters; see panicwatch --help");
    }
    USAGE
}

/// Several problems, each with a line of its own.
#[derive(Debug, thiserror::Error)]
#[error("{what}:")]
pub struct Listed {
    /// What they have in common.
    pub what: &'static str,
    /// A sentence each.
    pub problems: Vec<String>,
}

/// An error and its causes on one line. A cause that its effect already tells is not told again.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// An error with the exit status it asks for.
#[derive(Debug)]
pub struct Exit {
    /// See the contract: 1 failed, 2 usage, 3 unable.
    pub status: u8,
    /// One sentence.
    pub error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Exit {
    fn from(error: E) -> Exit {
        Exit { status: FAILED, error: error.into() }
    }
}

/// The machine cannot do it.
pub fn unable(error: impl Into<anyhow::Error>) -> Exit {
    Exit { status: UNABLE, error: error.into() }
}

/// The command line asks for what cannot be meant.
pub fn usage(error: impl Into<anyhow::Error>) -> Exit {
    Exit { status: USAGE, error: error.into() }
}

/// Parses the number of a process; 0 is none's.
pub(super) fn pid() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// Refuses an empty PROGRAM: no file has such a name.
pub(super) fn named(program: impl AsRef<OsStr>) -> Result<(), Exit> {
    if program.as_ref().is_empty() {
        return Err(usage(anyhow!("PROGRAM is empty: name the program to start")));
    }
    Ok(())
}

/// Why a process cannot be looked at.
pub(super) fn unreadable(pid: u32, error: io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::PermissionDenied => unable(anyhow!(
            "process {pid} belongs to another user; run as root, or grant CAP_SYS_PTRACE (see panicwatch doctor)"
        )),
        io::ErrorKind::NotFound if Path::new("/proc").join(pid.to_string()).exists() => {
            anyhow!("process {pid} has no executable: it is a kernel thread, or has exited").into()
        }
        io::ErrorKind::NotFound => anyhow!("there is no process {pid}").into(),
        _ => anyhow!(error).context(format!("cannot read process {pid}")).into(),
    }
}

/// Opens a regular file for reading. Anything else could block for ever (a FIFO), have side effects (a device), or never end.
///
/// # Errors
/// When it is not a regular file, or cannot be opened.
pub(super) fn open_regular(path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot read {}", path.display());
    // Checked before, so that nothing but a regular file is opened, and after, because the name can mean another file by then.
    let before = std::fs::metadata(path).with_context(cannot)?;
    if before.is_file() {
        let file =
            File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).with_context(cannot)?;
        if file.metadata().with_context(cannot)?.is_file() {
            return Ok(file);
        }
    }
    Err(anyhow!("cannot read {}: it is not a regular file", path.display()))
}

/// Prints on standard output; a closed pipe is no error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_own(escape::screen(text, stdout_style().color).as_bytes())
}

/// [`print`] for bytes that are panicwatch's own, as they are.
pub(super) fn print_own(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// For reports on standard error.
pub(super) fn stderr_style() -> report::Style {
    style(libc::STDERR_FILENO, io::stderr().is_terminal())
}

/// For what is printed on standard output.
pub(super) fn stdout_style() -> report::Style {
    style(libc::STDOUT_FILENO, io::stdout().is_terminal())
}

/// Colours on a terminal, unless NO_COLOR is set; the terminal's width, or 100 columns where there is none.
fn style(fd: i32, terminal: bool) -> report::Style {
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    report::Style::new(color, terminal_width(fd).unwrap_or(100))
}

fn terminal_width(fd: i32) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the struct outlives the call and is what this request fills in.
    let done = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) };
    (done == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

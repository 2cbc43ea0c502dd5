//! Code shared by several commands: options, the destination of incidents, exit status, and messages on
//! standard error.

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
use super::values::LevelValue;
use crate::{
    escape,
    go::pattern::Pattern,
    incident::Frame,
    plan::ProbePlan,
    recorder::{self, Level, OverheadBudget, Source},
    render::text::Style,
    watch::{follow::Unseen, session::Counted},
};

/// Exit status of a failure.
pub const FAILED: u8 = 1;
/// Exit status of wrong usage, the same as clap's.
pub const USAGE: u8 = 2;
/// Exit status when the machine or the permissions do not allow the operation.
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
    level: LevelValue,
    /// Sources that are left out: switch, wakeup, migrate, signal, syscall, fault, send, sample, gc, assist,
    /// goroutine
    #[arg(long, value_name = "SOURCES", value_delimiter = ',', value_parser = source)]
    without: Vec<Source>,
    /// Functions whose entries to record: globs, or regular expressions between slashes
    #[arg(long = "function", value_name = "PATTERN", value_parser = Pattern::parse)]
    functions: Vec<Pattern>,
    /// Target budget: the most that recording may cost watched processes, in percent of their CPU time, or
    /// off. While it costs more, sources are paused, the least valuable first [auto: 1 with level default,
    /// off with any other]
    #[arg(long, value_name = "PERCENT|off", default_value_t)]
    budget: OverheadBudget,
    /// Host budget: the most that recording may cost all other processes, in percent of the machine's CPU
    /// capacity, or off [auto: 0.5 with level default, off with any other]
    #[arg(long, value_name = "PERCENT|off", default_value_t)]
    host_budget: OverheadBudget,
    /// Core limit: the most of each core that recording may cost watched processes, in percent, whatever the
    /// target budget allows, or off [auto: 5 with level default, off with any other]
    #[arg(long, value_name = "PERCENT|off", default_value_t)]
    core_limit: OverheadBudget,
    /// Panics of a program to capture per second, averaged over some seconds; others are only counted. 0:
    /// capture all
    #[arg(long, value_name = "PER_SECOND", default_value_t = 200)]
    max_captures: u32,
    /// Longest time that one capture may take in the program; what is not copied by then is reported as
    /// missing
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = capture_time)]
    max_capture_time: Duration,
}

impl RecorderArgs {
    /// Returns the options in the recorder's form.
    pub fn options(&self) -> recorder::Options {
        recorder::Options {
            window: self.window,
            level: if self.no_timeline { Level::Off } else { self.level.into() },
            without: self.without.clone(),
            functions: self.functions.clone(),
            budget: self.budget,
            host_budget: self.host_budget,
            core_limit: self.core_limit,
            captures_per_second: self.max_captures,
            capture_time: self.max_capture_time,
        }
    }
}

/// Maximum length of the window: activity further back is not part of what led to the panic.
const MAX_WINDOW: Duration = Duration::from_secs(60);

/// A time limit of captures, as [`duration`] reads it.
fn capture_time(text: &str) -> Result<Duration, String> {
    recorder::check_capture_time(duration(text)?)
}

/// Parses a duration such as "10ms", "1.5s" or "200us".
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
    /// Creates the output file if one was given, else writes to standard error.
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

/// Reports which of the functions named by the user are not recorded.
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

/// Maximum number of refused functions that are reported individually.
const REFUSED_TOLD: usize = 5;

/// Reports panics that were only counted.
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

/// Returns "; 2 programs that it started ended before …", or an empty string.
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

/// Reports Go code whose probes were attached late.
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

/// Prints a sentence on standard error, on one line. Control characters are escaped: file names, data from a
/// binary and replies of servers can neither control the terminal nor imitate a message of panicwatch.
pub fn say(sentence: &str) {
    let _ = writeln!(io::stderr(), "panicwatch: {}", escape::one_line(sentence));
}

/// Prints an error and its causes; the problems of [`Listed`] follow on lines of their own.
pub fn say_error(error: &anyhow::Error) {
    say(&sentence(error));
    let listed = error.downcast_ref::<Listed>().map(|listed| listed.problems.as_slice());
    for problem in listed.unwrap_or_default() {
        let _ = writeln!(io::stderr(), "  {}", escape::one_line(problem));
    }
}

/// Prints clap's message about a wrong command line, or the requested help, and returns the exit status. The
/// message repeats arguments, which may be file names: therefore it is produced by `parse` from the same
/// arguments with control characters escaped.
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

/// Several problems, printed one per line.
#[derive(Debug, thiserror::Error)]
#[error("{what}:")]
pub struct Listed {
    /// What the problems have in common.
    pub what: &'static str,
    /// One sentence per problem.
    pub problems: Vec<String>,
}

/// Formats an error and its causes on one line. A cause that the message already ends with is left out.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// An error with its exit status.
#[derive(Debug)]
pub struct Exit {
    /// 1: failed, 2: wrong usage, 3: the machine or the permissions do not allow it.
    pub status: u8,
    /// The error, whose message is one sentence.
    pub error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for Exit {
    fn from(error: E) -> Exit {
        Exit { status: FAILED, error: error.into() }
    }
}

/// Wraps an error that the machine or the permissions cause.
pub fn unable(error: impl Into<anyhow::Error>) -> Exit {
    Exit { status: UNABLE, error: error.into() }
}

/// Wraps an error in the command line.
pub fn usage(error: impl Into<anyhow::Error>) -> Exit {
    Exit { status: USAGE, error: error.into() }
}

/// Parses a PID, which is at least 1.
pub(super) fn pid() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// Rejects an empty PROGRAM: no file has an empty name.
pub(super) fn named(program: impl AsRef<OsStr>) -> Result<(), Exit> {
    if program.as_ref().is_empty() {
        return Err(usage(anyhow!("PROGRAM is empty: name the program to start")));
    }
    Ok(())
}

/// Explains why a process cannot be read.
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

/// Opens a regular file for reading. Opening anything else could block forever (a FIFO) or have side effects
/// (a device), and reading it might never end.
///
/// # Errors
/// When it is not a regular file, or cannot be opened.
pub(super) fn open_regular(path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot read {}", path.display());
    // Checked before, so that only a regular file is opened, and after, because the name may refer to another
    // file by then.
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

/// Prints on standard output; a closed pipe is not an error.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    print_own(escape::screen(text, stdout_style().color).as_bytes())
}

/// Prints bytes like [`print`], but unescaped: for panicwatch's own output only.
pub(super) fn print_own(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Returns the style of reports on standard error.
pub(super) fn stderr_style() -> Style {
    style(libc::STDERR_FILENO, io::stderr().is_terminal())
}

/// Returns the style of text on standard output.
pub(super) fn stdout_style() -> Style {
    style(libc::STDOUT_FILENO, io::stdout().is_terminal())
}

/// Uses colors on a terminal unless NO_COLOR is set, and the terminal's width, or 100 columns if it is
/// unknown.
fn style(fd: i32, terminal: bool) -> Style {
    let color = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Style::new(color, terminal_width(fd).unwrap_or(100))
}

fn terminal_width(fd: i32) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the struct outlives the call and is what this request fills in.
    let done = unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &mut size) };
    (done == 0 && size.ws_col > 0).then_some(usize::from(size.ws_col))
}

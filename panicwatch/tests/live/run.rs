//! Runs programs bare and under panicwatch, with a deadline, and collects their output and incidents.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use panicwatch::incident::Incident;
use tempfile::TempDir;

use crate::{
    compare::{runs::Output, sanity},
    ledger,
};

/// Path of the panicwatch command under test.
pub(crate) const PANICWATCH: &str = env!("CARGO_BIN_EXE_panicwatch");
/// Timeout of every wait; no program of the suite runs nearly as long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A program, its arguments and environment, and the options to watch it with.
#[derive(Debug, Clone)]
pub(crate) struct Program<'a> {
    /// Path of the executable.
    pub(crate) path: &'a Path,
    /// Arguments of the program.
    pub(crate) args: Vec<String>,
    /// Environment variables added to those of the test.
    pub(crate) env: Vec<(String, String)>,
    /// Options of `panicwatch run` for a watched run.
    pub(crate) options: Vec<String>,
}

impl<'a> Program<'a> {
    /// Creates a program `path ARGS…` without added environment or options.
    pub(crate) fn new(path: &'a Path, args: &[&str]) -> Self {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        Self { path, args, env: Vec::new(), options: Vec::new() }
    }

    /// Adds options of `panicwatch run`.
    pub(crate) fn with(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|o| (*o).to_owned()));
        self
    }

    /// Returns the path and arguments, as the incident's process should have them.
    pub(crate) fn command_line(&self) -> Vec<String> {
        std::iter::once(self.path.display().to_string()).chain(self.args.iter().cloned()).collect()
    }

    /// Checks each incident for what must hold in every incident.
    pub(crate) fn sane(&self, incidents: &[Incident]) -> Result<()> {
        let line = self.command_line();
        let wrong: Vec<String> = incidents.iter().flat_map(|i| sanity::check(i, &line)).collect();
        ledger::none("an incident is not sound", &wrong)
    }
}

/// Result of a run under panicwatch.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Output of the program and of panicwatch.
    pub(crate) output: Output,
    /// Incidents in the order written.
    pub(crate) incidents: Vec<Incident>,
}

/// A started command. Its output goes to files, so that a slow reader cannot block it.
pub(crate) struct Running {
    /// The process, which leads a process group of its own.
    pub(crate) child: Child,
    dir: TempDir,
}

impl Running {
    /// Starts the command with empty standard input.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        Self::in_dir(command.stdin(Stdio::null()), TempDir::new()?)
    }

    /// Starts the command with the standard input it is configured with.
    pub(crate) fn start_as_is(mut command: Command) -> Result<Self> {
        Self::in_dir(&mut command, TempDir::new()?)
    }

    /// Starts the program under `panicwatch run -o FILE`.
    pub(crate) fn watched(program: &Program<'_>) -> Result<Self> {
        let dir = TempDir::new()?;
        let mut command = Command::new(PANICWATCH);
        prepare(&mut command, program);
        command.arg("run").arg("-o").arg(dir.path().join(INCIDENTS)).args(&program.options).arg("--");
        Self::in_dir(command.arg(program.path).args(&program.args).stdin(Stdio::null()), dir)
    }

    /// Starts the program without panicwatch.
    pub(crate) fn unwatched(program: &Program<'_>) -> Result<Self> {
        let mut command = Command::new(program.path);
        prepare(&mut command, program);
        command.args(&program.args);
        Self::start(command)
    }

    fn in_dir(command: &mut Command, dir: TempDir) -> Result<Self> {
        command.stdout(File::create(dir.path().join("out"))?).stderr(File::create(dir.path().join("err"))?);
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Self { child, dir })
    }

    /// Returns the path of the incident file of a watched run.
    pub(crate) fn incident_file(&self) -> PathBuf {
        self.dir.path().join(INCIDENTS)
    }

    /// Returns standard output so far.
    pub(crate) fn stdout(&self) -> Result<String> {
        self.text("out")
    }

    /// Returns standard error so far.
    pub(crate) fn stderr(&self) -> Result<String> {
        self.text("err")
    }

    /// Waits until standard output contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> Result<()> {
        self.wait_until(text, Self::stdout)
    }

    /// Waits until standard error contains `text`.
    pub(crate) fn wait_for_stderr(&mut self, text: &str) -> Result<()> {
        self.wait_until(text, Self::stderr)
    }

    fn wait_until(&mut self, text: &str, said: fn(&Self) -> Result<String>) -> Result<()> {
        let start = Instant::now();
        while !said(self)?.contains(text) {
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status} before it said {text:?}: {}", self.stderr()?);
            }
            if start.elapsed() > DEADLINE {
                bail!("did not say {text:?} within {DEADLINE:?}: {}", self.stderr()?);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until the command ends, at most for [`DEADLINE`].
    pub(crate) fn finish(&mut self) -> Result<Output> {
        self.finish_within(DEADLINE)
    }

    fn finish_within(&mut self, deadline: Duration) -> Result<Output> {
        let status = wait(&mut self.child, deadline);
        let (stdout, stderr) = (self.stdout()?, self.stderr()?);
        let status = status.with_context(|| format!("standard error so far: {stderr}"))?;
        Ok(Output { stdout, stderr, status: shell_status(status), signal: status.signal() })
    }

    /// Waits until a watched run ends, and reads its incidents.
    pub(crate) fn finish_watched(&mut self) -> Result<Watched> {
        self.finish_watched_within(DEADLINE)
    }

    fn finish_watched_within(&mut self, deadline: Duration) -> Result<Watched> {
        let output = self.finish_within(deadline)?;
        let incidents = incidents(&self.incident_file())
            .with_context(|| format!("exit status {}, standard error {:?}", output.status, output.stderr))?;
        Ok(Watched { output, incidents })
    }

    fn text(&self, name: &str) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.path().join(name))?).into_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(&mut self.child);
        }
    }
}

const INCIDENTS: &str = "incidents.jsonl";

/// Runs the program without panicwatch.
pub(crate) fn bare(program: &Program<'_>) -> Result<Output> {
    Running::unwatched(program)?.finish()
}

/// Runs the program under `panicwatch run -o FILE`.
pub(crate) fn watched(program: &Program<'_>) -> Result<Watched> {
    Running::watched(program)?.finish_watched()
}

/// Like [`watched`], for a program that takes longer than all others.
pub(crate) fn watched_within(program: &Program<'_>, deadline: Duration) -> Result<Watched> {
    Running::watched(program)?.finish_watched_within(deadline)
}

/// Runs a command to its end.
pub(crate) fn finish(command: Command) -> Result<Output> {
    Running::start(command)?.finish()
}

/// Reads an incident file with one incident per line.
pub(crate) fn incidents(file: &Path) -> Result<Vec<Incident>> {
    let open = File::open(file).with_context(|| format!("no incident file {}", file.display()))?;
    BufReader::new(open)
        .lines()
        .map(|line| {
            let line = line?;
            serde_json::from_str(&line)
                .with_context(|| format!("not an incident: {}", line.chars().take(300).collect::<String>()))
        })
        .collect()
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, signal: i32) -> Result<()> {
    // SAFETY: kill(2) takes two integers.
    let done = unsafe { libc::kill(pid as i32, signal) };
    anyhow::ensure!(done == 0, "kill({pid}, {signal}): {}", std::io::Error::last_os_error());
    Ok(())
}

fn prepare(command: &mut Command, program: &Program<'_>) {
    for shaping in ["GOTRACEBACK", "GODEBUG", "GOMAXPROCS", "GOGC", "GOMEMLIMIT"] {
        command.env_remove(shaping);
    }
    command.envs(program.env.iter().map(|(k, v)| (k, v)));
}

/// Waits for the child; after the deadline, kills its process group and fails.
pub(crate) fn wait(child: &mut Child, deadline: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > deadline {
            kill_group(child);
            bail!("did not end within {deadline:?}");
        }
        thread::sleep(Duration::from_millis(3));
    }
}

fn kill_group(child: &mut Child) {
    // SAFETY: kill(2) takes two integers. The group is the child's own, created at its start, and the child
    // has not been waited for, so the ID cannot belong to another group.
    unsafe { libc::kill(-(child.id() as i32), libc::SIGKILL) };
    drop(child.wait());
}

/// Returns the exit status as a shell shows it: 128 + signal if killed.
fn shell_status(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

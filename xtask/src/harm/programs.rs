//! Go programs that scenarios run, with and without panicwatch, and panicwatch's reports about them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::Context;
use crate::{paths, setup, shell};

/// Time limit for most waits; generous, because the machine is overloaded on purpose.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How a program ended, and its output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Exit status, or 128 plus the signal number.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Release of Debian's Go package, the oldest that panicwatch supports.
pub(crate) const DEBIAN_GO: &str = "1.19";

/// Returns a go command of a given release, without the user's Go settings and without network access.
pub(crate) fn go_command(version: &str) -> Result<Command> {
    let cache = paths::cache()?;
    let goroot = match version {
        DEBIAN_GO => PathBuf::from("/usr/lib/go-1.19"),
        _ => setup::go_root(&cache, version),
    };
    let mut go = Command::new(goroot.join("bin/go"));
    go.env("GOROOT", &goroot)
        .env("GO111MODULE", "on")
        .env("GOPROXY", "off")
        .env("GOWORK", "off")
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOCACHE", cache.join("gocache"));
    Ok(go)
}

/// Returns the newest Go release that `setup` installs.
pub(crate) fn newest_go() -> Result<&'static str> {
    setup::GO_VERSIONS.last().copied().context("no Go release is known")
}

/// Builds the Go module in `folder` (relative to the repository) as the file `name`, with additional build
/// flags.
pub(crate) fn build(context: &Context, folder: &str, name: &str, flags: &[&str]) -> Result<PathBuf> {
    build_with(context, newest_go()?, folder, name, flags)
}

/// Like [`build`], with a given Go release.
pub(crate) fn build_with(
    context: &Context,
    version: &str,
    folder: &str,
    name: &str,
    flags: &[&str],
) -> Result<PathBuf> {
    let program = context.scratch.join(name);
    let mut go = go_command(version)?;
    go.current_dir(paths::root().join(folder)).arg("build").args(flags).arg("-o").arg(&program).arg(".");
    shell::run(&mut go)?;
    Ok(program)
}

/// Returns the book program, which counts its own panics; builds it at the first call.
pub(crate) fn book(context: &Context) -> Result<PathBuf> {
    let program = context.scratch.join("book");
    if program.exists() { Ok(program) } else { build(context, "xtask/harm/book", "book", &[]) }
}

/// Runs a command until it ends; if that takes longer than `limit`, kills it and returns an error.
pub(crate) fn run(context: &Context, command: &mut Command, limit: Duration) -> Result<Ended> {
    let running = start(context, command)?;
    running.wait(limit)
}

/// A running command whose output goes to files.
pub(crate) struct Running {
    pub(crate) child: Child,
    shown: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// Starts a command with empty standard input.
pub(crate) fn start(context: &Context, command: &mut Command) -> Result<Running> {
    let shown = shell::show(command);
    let number = RUNS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let file = |what: &str| context.scratch.join(format!("{number}.{what}"));
    let (stdout, stderr) = (file("stdout"), file("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
    let child = command.spawn().with_context(|| format!("cannot run {shown}"))?;
    Ok(Running { child, shown, stdout, stderr })
}

/// A failing scenario must not leave a process behind: it would affect the scenarios after it. SIGKILL also
/// ends a stopped process.
impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

static RUNS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

impl Running {
    /// Returns what the command has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        fs::read(&self.stderr).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until standard error contains `text`.
    pub(crate) fn until(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.stderr().contains(text) {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended early ({status}): {}", self.shown, self.stderr());
            }
            ensure!(Instant::now() < deadline, "{} never wrote {text:?}: {}", self.shown, self.stderr());
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends a signal, given its name.
    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.id().to_string();
        shell::capture(Command::new("kill").args(["-s", name, &pid])).map(drop)
    }

    /// Waits until the command ends; if that takes longer than `limit`, returns an error and kills it.
    pub(crate) fn wait(mut self, limit: Duration) -> Result<Ended> {
        let deadline = Instant::now() + limit;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "{} did not end within {limit:?}: {}",
                self.shown,
                self.stderr()
            );
            thread::sleep(Duration::from_millis(10));
        };
        let text =
            |path: &Path| -> Result<String> { Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned()) };
        Ok(Ended { status: number(status), stdout: text(&self.stdout)?, stderr: text(&self.stderr)? })
    }
}

fn number(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Contents of panicwatch's JSON lines output.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// Number of incidents, by outcome.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Number of calls of panic in the incidents: a chain has several; runtime.Goexit and throw are not
    /// counted.
    pub(crate) panics: u64,
}

impl Reported {
    /// Reads a JSON lines file; a missing file counts as empty.
    pub(crate) fn read(path: &Path) -> Result<Reported> {
        Reported::read_some(path, |_| true)
    }

    /// Like [`Reported::read`], but counts the incidents of one executable only.
    pub(crate) fn of_program(path: &Path, program: &Path) -> Result<Reported> {
        let program = program.display().to_string();
        Reported::read_some(path, |exe| exe == program)
    }

    fn read_some(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Reported> {
        let mut reported = Reported::default();
        let text = fs::read_to_string(path).unwrap_or_default();
        for line in text.lines() {
            let incident: Value = serde_json::from_str(line).with_context(|| path.display().to_string())?;
            if !wanted(incident["process"]["exe"].as_str().unwrap_or_default()) {
                continue;
            }
            let outcome = incident["outcome"].as_str().context("an incident has an outcome")?;
            *reported.outcomes.entry(outcome.to_owned()).or_default() += 1;
            let panics = incident["panics"].as_array().map(Vec::as_slice).unwrap_or_default();
            let raised = panics.iter().filter(|panic| panic["goexit"] != true).count() as u64;
            reported.panics += raised;
        }
        Ok(reported)
    }

    /// Returns the number of incidents with this outcome.
    pub(crate) fn of(&self, outcome: &str) -> u64 {
        self.outcomes.get(outcome).copied().unwrap_or(0)
    }
}

/// Returns the number that follows `word` at the start of a line of the program's output.
pub(crate) fn printed(ended: &Ended, word: &str) -> Result<u64> {
    let number = ended.stdout.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok());
    number.with_context(|| format!("no line {word:?} in {:?}; {}", ended.stdout, ended.stderr))
}

/// Returns the sum of the numbers that directly precede `words` in panicwatch's messages.
pub(crate) fn stated(stderr: &str, words: &str) -> u64 {
    let before = stderr.match_indices(words).map(|(at, _)| stderr[..at].trim_end());
    before.filter_map(|text| text.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::stated;

    #[test]
    fn numbers_of_sentences_are_added() {
        let text = "panicwatch: 12 panics counted in main.one\npanicwatch: 3 panics counted\n";
        assert_eq!(stated(text, " panics counted"), 15);
        assert_eq!(stated(text, " records lost"), 0);
    }
}

//! Kills panicwatch with SIGKILL at random moments: no breakpoint may stay in a program, and the program must
//! still compute correct results.
//!
//! A leftover breakpoint is found in the program's code, compared with its file, and in the kernel's log.
//! Each kill uses its own copy of the program, because the kernel associates a leaked breakpoint with the
//! inode.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::{
        fs::{FileExt as _, MetadataExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Context, End, Scenario, programs, random::Random};
use crate::shell;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "run", run: |context| kills(context, Mode::Run) },
    Scenario { name: "attach", run: |context| kills(context, Mode::Attach) },
    Scenario { name: "daemon", run: |context| kills(context, Mode::Daemon) },
    Scenario { name: "trace", run: |context| kills(context, Mode::Trace) },
];

/// The panicwatch command that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Run,
    Attach,
    Daemon,
    Trace,
}

/// The moment of the kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// This long after its start.
    Starting(Duration),
    /// This long after the first breakpoint was seen.
    Attaching(Duration),
    /// This long after SIGINT.
    Detaching(Duration),
}

impl Moment {
    fn random(random: &mut Random) -> Moment {
        match random.below(3) {
            0 => Moment::Starting(Duration::from_micros(random.below(1_500_000))),
            1 => Moment::Attaching(Duration::from_micros(random.below(20_000))),
            _ => Moment::Detaching(Duration::from_micros(random.below(150_000))),
        }
    }
}

/// The server's answer as long as its code is intact.
const ANSWER: &str = "10000\n";
const PATIENCE: Duration = Duration::from_secs(60);

fn kills(context: &Context, mode: Mode) -> Result<End> {
    let mut random = context.random(&format!("kills {mode:?}"));
    let server = context.scratch.join("server");
    if !server.exists() {
        programs::build(context, "xtask/harm/server", "server", &[])?;
    }
    let (count, mut attached) = (context.size(10, 125), 0);
    for number in 0..count {
        let moment = Moment::random(&mut random);
        let folder = context.scratch.join(format!("kill-{mode:?}-{number}"));
        fs::create_dir(&folder)?;
        let one = One { folder: &folder, panicwatch: &context.panicwatch, mode };
        let killed = one.kill(&server, moment).with_context(|| format!("kill {number}, {moment:?}"));
        one.end_all();
        attached += u32::from(killed?);
        fs::remove_dir_all(&folder)?;
    }
    Ok(End::Passed(format!("{count} kills, {attached} of them with breakpoints in the program: none stayed")))
}

/// A single kill and its folder.
struct One<'a> {
    folder: &'a Path,
    panicwatch: &'a Path,
    mode: Mode,
}

/// A child process that is killed when this is dropped.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl One<'_> {
    fn program(&self) -> PathBuf {
        self.folder.join("program")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Kills panicwatch at `moment`; returns whether breakpoints were seen before.
    fn kill(&self, server: &Path, moment: Moment) -> Result<bool> {
        fs::copy(server, self.program())?;
        let logged = newest_leak();
        // Also for `run`: a probe is in every process of the file, and SIGINT ends the process that `run`
        // starts.
        let target = Killed(quiet(Command::new(self.program()).arg(self.socket())).spawn()?);
        until("the server", || Ok(self.socket().exists()))?;
        let mut program = Program::new(target.0.id())?;
        let mut panicwatch = Killed(quiet(&mut self.command(program.pid)?).spawn()?);
        wait(&mut program, &mut panicwatch, moment)?;
        let helpers = helpers(panicwatch.0.id());
        panicwatch.0.kill()?;
        panicwatch.0.wait()?;
        until("the end of panicwatch's helpers", || Ok(!helpers.iter().any(|pid| runs(*pid))))?;
        self.judge(&program, logged).map(|()| program.seen)
    }

    fn judge(&self, program: &Program, logged: f64) -> Result<()> {
        // Another daemon on this host may also watch the program for a while.
        until("a program without breakpoints", || Ok(program.changed()? == 0))?;
        ensure!(newest_leak() <= logged, "the kernel's log has: failed to unregister, leaking uprobe");
        let mut answer = String::new();
        let mut connection = UnixStream::connect(self.socket())?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.read_to_string(&mut answer)?;
        ensure!(answer == ANSWER, "the program answers {answer:?}");
        Ok(())
    }

    fn command(&self, pid: u32) -> Result<Command> {
        let mut command = Command::new(self.panicwatch);
        let pid = pid.to_string();
        match self.mode {
            Mode::Run => command.args(["run", "--"]).arg(self.program()).arg(self.folder.join("second")),
            Mode::Attach => command.args(["attach", "--pid", &pid]),
            Mode::Trace => command.args(["trace", "--count", "*", "--pid", &pid]),
            Mode::Daemon => {
                let (file, state) = (self.folder.join("daemon.toml"), self.folder.join("state"));
                let text = format!(
                    "[http]\nlisten = [\"127.0.0.1:0\"]\n[store]\npath = {state:?}\n[watch]\ninclude = [{{ exe = [{:?}] }}]\n",
                    self.program()
                );
                fs::write(&file, text)?;
                command.args(["daemon", "--config"]).arg(file)
            }
        };
        Ok(command)
    }

    /// Kills the processes of this kill's program, including one that `run` has started.
    fn end_all(&self) {
        let path = self.program();
        let is_it = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == path);
        for pid in processes().into_iter().filter(is_it) {
            // The process may already have ended.
            drop(shell::capture(Command::new("kill").args(["-s", "KILL", &pid.to_string()])));
        }
    }
}

/// Waits until `moment`.
fn wait(program: &mut Program, panicwatch: &mut Killed, moment: Moment) -> Result<()> {
    if let Moment::Starting(after) = moment {
        thread::sleep(after);
        return program.look().map(drop);
    }
    until("a breakpoint", || {
        if let Some(status) = panicwatch.0.try_wait()? {
            bail!("panicwatch ended with {status}");
        }
        program.look()
    })?;
    match moment {
        Moment::Detaching(after) => {
            // All breakpoints are in place once panicwatch is watching.
            thread::sleep(Duration::from_millis(500));
            shell::capture(Command::new("kill").args(["-s", "INT", &panicwatch.0.id().to_string()]))?;
            thread::sleep(after);
        }
        Moment::Starting(after) | Moment::Attaching(after) => thread::sleep(after),
    }
    Ok(())
}

/// The running program, and its code as it is in the file.
struct Program {
    pid: u32,
    memory: File,
    /// Address and file contents of each executable mapping.
    code: Vec<(u64, Vec<u8>)>,
    /// Whether a breakpoint was seen.
    seen: bool,
}

impl Program {
    fn new(pid: u32) -> Result<Program> {
        let exe = format!("/proc/{pid}/exe");
        let (file, inode) = (fs::read(&exe)?, fs::metadata(&exe)?.ino().to_string());
        let mut code = Vec::new();
        for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [range, access, offset, _, of, ..] = words[..] else { continue };
            if of != inode || !access.contains('x') {
                continue;
            }
            let (start, end) = range.split_once('-').context("a range of addresses")?;
            let number = |text: &str| u64::from_str_radix(text, 16);
            let (start, end, offset) = (number(start)?, number(end)?, usize::try_from(number(offset)?)?);
            let length = usize::try_from(end - start)?;
            let bytes = file.get(offset..).context("the file is shorter than its mapping")?;
            code.push((start, bytes[..length.min(bytes.len())].to_vec()));
        }
        ensure!(!code.is_empty(), "process {pid} has no code");
        Ok(Program { pid, memory: File::open(format!("/proc/{pid}/mem"))?, code, seen: false })
    }

    /// Returns the number of code bytes that differ from the file.
    fn changed(&self) -> Result<usize> {
        let mut changed = 0;
        for (address, bytes) in &self.code {
            let mut here = vec![0; bytes.len()];
            self.memory.read_exact_at(&mut here, *address)?;
            changed += here.iter().zip(bytes).filter(|(here, there)| here != there).count();
        }
        Ok(changed)
    }

    /// Reports whether a breakpoint has been seen, now or earlier.
    fn look(&mut self) -> Result<bool> {
        self.seen = self.seen || self.changed()? > 0;
        Ok(self.seen)
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the helper processes that the panicwatch process `parent` has started.
fn helpers(parent: u32) -> Vec<u32> {
    let is_helper = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let of = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)).map(str::to_owned);
        let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        of == Some(parent.to_string()) && title.starts_with("panicwatch: ")
    };
    processes().into_iter().filter(is_helper).collect()
}

fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Returns the time at which the kernel last logged a breakpoint that it could not remove, in seconds since
/// boot. The log is a ring, so lines cannot be counted.
fn newest_leak() -> f64 {
    let log = shell::capture(&mut Command::new("dmesg")).unwrap_or_default();
    let times = log.lines().filter(|line| line.contains("leaking uprobe")).filter_map(|line| {
        let (time, _) = line.strip_prefix('[')?.split_once(']')?;
        time.trim().parse::<f64>().ok()
    });
    times.fold(0.0, f64::max)
}

fn until(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done()? {
        ensure!(Instant::now() < deadline, "{what} was not seen");
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

//! Third-party Go programs from Debian: built with cgo, stripped, in daily use. They never panic, so nothing
//! may be reported about them, and watching must not change them: same answers, same exit status.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::{
    compare::runs::Output,
    ledger::{End, Verdict, cell},
    need, process,
    run::{self, DEADLINE, PANICWATCH, Program, Running},
    toolchain,
    traffic::{self, free_port},
};

/// A server from a Debian package.
#[derive(Clone, Copy)]
struct Server {
    /// Name of the package.
    package: &'static str,
    /// Name of the program.
    program: &'static str,
    /// Returns the command-line arguments, given a directory of its own and a port of 127.0.0.1.
    arguments: fn(&Path, u16) -> Result<Vec<String>>,
    /// Sends requests to the port and returns the answers.
    traffic: fn(u16) -> Result<String>,
    /// Signal that ends the server with a deterministic exit status.
    stop: i32,
}

const SERVERS: &[Server] = &[
    Server {
        package: "nats-server",
        program: "nats-server",
        arguments: nats,
        traffic: traffic::nats,
        // After SIGTERM either its main returns (0) or its signal handler exits (1), whichever is first.
        stop: libc::SIGINT,
    },
    Server {
        package: "etcd-server",
        program: "etcd",
        arguments: etcd,
        traffic: traffic::etcd,
        stop: libc::SIGTERM,
    },
    Server {
        package: "caddy",
        program: "caddy",
        arguments: caddy,
        traffic: traffic::files,
        stop: libc::SIGTERM,
    },
];

type Test = fn(&Server, &Path) -> Result<()>;

const TESTS: &[(&str, Test)] =
    &[("under run", under_run), ("attached to", attached), ("panicwatch killed", panicwatch_killed)];

/// Returns every test for every server, and one program that works and exits.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for server in SERVERS {
        for (name, test) in TESTS {
            let run = || found(server.package, server.program, |path| test(server, path));
            trials.push(cell("debian", server.program, name, run));
        }
    }
    trials.push(cell("debian", "hugo", "under run", || found("hugo", "hugo", hugo)));
    trials
}

fn found(package: &str, program: &str, test: impl FnOnce(&Path) -> Result<()>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    match installed(package, program) {
        Some(path) => test(&path).map(|()| End::Passed),
        None => Ok(End::Skipped(format!("the Debian package {package} is not installed"))),
    }
}

/// Finds the program on PATH, where Debian installs daemons, or where `cargo xtask setup` unpacks packages.
fn installed(package: &str, program: &str) -> Option<PathBuf> {
    let kept = toolchain::home().join("debian").join(package);
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), kept.join("usr/sbin"), kept.join("usr/bin")])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn nats(_: &Path, port: u16) -> Result<Vec<String>> {
    Ok(words(&format!("-a 127.0.0.1 -p {port}")))
}

fn etcd(dir: &Path, port: u16) -> Result<Vec<String>> {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()?));
    let mut arguments = words(&format!(
        "--listen-client-urls {client} --advertise-client-urls {client} --listen-peer-urls {peer} \
         --initial-advertise-peer-urls {peer} --initial-cluster default={peer} --data-dir"
    ));
    arguments.push(dir.display().to_string());
    Ok(arguments)
}

fn caddy(dir: &Path, port: u16) -> Result<Vec<String>> {
    let lines: String = (0..10_000).map(|n| format!("{n}\n")).collect();
    fs::write(dir.join("numbers.txt"), lines)?;
    let (config, root) = (dir.join("Caddyfile"), dir.display());
    let text = format!(
        "{{\n admin off\n auto_https off\n storage file_system {root}\n}}\n\
         http://127.0.0.1:{port} {{\n root * {root}\n encode gzip\n file_server browse\n}}\n"
    );
    fs::write(&config, text)?;
    let mut arguments = words("run --adapter caddyfile --config");
    arguments.push(config.display().to_string());
    Ok(arguments)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A server that accepts connections, and the port it listens on.
struct Up {
    running: Running,
    port: u16,
    _dir: TempDir,
}

impl Up {
    fn start(server: &Server, path: &Path, watched: bool) -> Result<Self> {
        let (dir, port) = (TempDir::new()?, free_port()?);
        let program = Program {
            path,
            args: (server.arguments)(dir.path(), port)?,
            env: vec![("HOME".to_owned(), dir.path().display().to_string())],
            options: Vec::new(),
        };
        let running = if watched { Running::watched(&program) } else { Running::unwatched(&program) }?;
        let mut up = Self { running, port, _dir: dir };
        let start = Instant::now();
        while traffic::connect(port).is_err() {
            if let Some(status) = up.running.child.try_wait()? {
                bail!("ended with {status} before it listened: {}", up.running.stderr()?);
            }
            ensure!(start.elapsed() < DEADLINE, "does not listen: {}", up.running.stderr()?);
            thread::sleep(Duration::from_millis(20));
        }
        Ok(up)
    }

    fn ask(&self, server: &Server) -> Result<String> {
        (server.traffic)(self.port)
            .with_context(|| format!("standard error: {}", self.running.stderr().unwrap_or_default()))
    }

    /// Sends the server's stop signal to the process that was started: the server itself, or panicwatch.
    fn stop(&mut self, server: &Server) -> Result<Output> {
        run::signal(self.running.child.id(), server.stop)?;
        self.running.finish()
    }
}

/// Returns answers and exit status of an unwatched run.
fn bare(server: &Server, path: &Path) -> Result<(String, i32)> {
    let mut up = Up::start(server, path, false)?;
    let answers = up.ask(server)?;
    ensure!(!answers.is_empty(), "the traffic has no answers to compare");
    Ok((answers, up.stop(server)?.status))
}

fn under_run(server: &Server, path: &Path) -> Result<()> {
    let (answers, status) = bare(server, path)?;
    let mut up = Up::start(server, path, true)?;
    ensure!(up.ask(server)? == answers, "other answers than without panicwatch");
    let file = up.running.incident_file();
    let output = up.stop(server)?;
    ensure!(output.status == status, "exit status {}, bare {status}", output.status);
    ensure!(!output.stderr.contains("panicwatch"), "{}", output.stderr);
    nothing_reported(&file)
}

fn attach(pid: u32, file: &Path) -> Result<Running> {
    let mut command = Command::new(PANICWATCH);
    command.arg("attach").arg("--pid").arg(pid.to_string()).arg("-o").arg(file);
    let mut attached = Running::start(command)?;
    attached.wait_for_stderr("watching")?;
    Ok(attached)
}

fn attached(server: &Server, path: &Path) -> Result<()> {
    let (answers, status) = bare(server, path)?;
    let mut up = Up::start(server, path, false)?;
    let (dir, pid) = (TempDir::new()?, up.running.child.id());
    let file = dir.path().join("incidents");
    let mut panicwatch = attach(pid, &file)?;
    ensure!(up.ask(server)? == answers, "other answers than without panicwatch");
    let output = up.stop(server)?;
    ensure!(output.status == status, "exit status {}, bare {status}", output.status);
    let left = panicwatch.finish()?;
    ensure!(left.status == 0, "attach ended with {}: {}", left.status, left.stderr);
    nothing_reported(&file)
}

/// panicwatch is killed, which detaches its probes, and the server continues: once started by panicwatch,
/// once attached to.
fn panicwatch_killed(server: &Server, path: &Path) -> Result<()> {
    let (answers, _) = bare(server, path)?;
    let mut up = Up::start(server, path, true)?;
    let pid = process::running(path, up.running.child.id())?;
    run::signal(up.running.child.id(), libc::SIGKILL)?;
    up.running.finish()?;
    let again = serves_on(server, &up, pid, &answers);
    // The server is no longer a child of this test: on any outcome it has to be ended by its PID.
    run::signal(pid, libc::SIGTERM)?;
    again.context("started by panicwatch")?;

    let mut up = Up::start(server, path, false)?;
    let (dir, pid) = (TempDir::new()?, up.running.child.id());
    let mut panicwatch = attach(pid, &dir.path().join("incidents"))?;
    run::signal(panicwatch.child.id(), libc::SIGKILL)?;
    panicwatch.finish()?;
    serves_on(server, &up, pid, &answers).context("attached to")?;
    up.stop(server).map(drop)
}

fn serves_on(server: &Server, up: &Up, pid: u32, answers: &str) -> Result<()> {
    ensure!(up.ask(server)? == answers, "other answers after panicwatch was killed");
    let state = process::state(pid);
    ensure!(matches!(state, Some('S' | 'R' | 'D')), "the server's state is {state:?}");
    Ok(())
}

fn nothing_reported(file: &Path) -> Result<()> {
    let incidents = run::incidents(file)?;
    let said: Vec<_> = incidents.iter().map(|i| (i.kind, i.outcome, &i.message)).collect();
    ensure!(said.is_empty(), "incidents of a program that did not panic: {said:?}");
    Ok(())
}

/// Builds a site of some pages: the files must be the same, byte for byte.
fn hugo(path: &Path) -> Result<()> {
    let dir = TempDir::new()?;
    let site = dir.path();
    fs::create_dir_all(site.join("layouts/_default"))?;
    fs::create_dir_all(site.join("content"))?;
    fs::write(site.join("config.toml"), "baseURL = \"http://localhost/\"\ntitle = \"pages\"\n")?;
    fs::write(site.join("layouts/_default/single.html"), "<h1>{{.Title}}</h1>{{.Content}}")?;
    fs::write(site.join("layouts/_default/list.html"), "{{range .Pages}}<p>{{.Title}}</p>{{end}}")?;
    for n in 0..200 {
        let text = format!("---\ntitle: page {n}\n---\n# Heading {n}\n\n*Some* `text`.\n");
        fs::write(site.join(format!("content/page{n}.md")), text)?;
    }
    let build = |to: &str| {
        let mut program = Program::new(path, &["--quiet"]);
        program.args.extend(["--source".into(), site.display().to_string(), "--destination".into()]);
        program.args.push(site.join(to).display().to_string());
        // A program that was unpacked and not installed has its library next to it.
        let libraries = path.with_file_name("../lib/x86_64-linux-gnu");
        program.env.push(("LD_LIBRARY_PATH".into(), libraries.display().to_string()));
        program
    };
    let bare = run::bare(&build("bare"))?;
    let watched = run::watched(&build("watched"))?;
    ensure!(bare.status == 0, "hugo ended with {}: {}", bare.status, bare.stderr);
    ensure!(watched.output.status == 0, "ended with {}: {}", watched.output.status, watched.output.stderr);
    ensure!(watched.output.stdout == bare.stdout, "{:?}, bare {:?}", watched.output.stdout, bare.stdout);
    ensure!(watched.incidents.is_empty(), "{} incidents invented", watched.incidents.len());
    let mut difference = Command::new("diff");
    difference.args(["-r", "bare", "watched"]).current_dir(site);
    let difference = run::finish(difference)?;
    ensure!(difference.status == 0, "the sites differ: {}", difference.stdout);
    ensure!(site.join("bare/page199/index.html").is_file(), "hugo built no pages");
    Ok(())
}

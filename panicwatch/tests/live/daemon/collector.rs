//! Runs rotel, a third-party OpenTelemetry collector that logs what it receives.

use std::{
    collections::{BTreeSet, HashMap},
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::host::until;
use crate::toolchain;

pub(super) struct Collector {
    program: PathBuf,
    child: Child,
    port: u16,
    other: u16,
    dir: TempDir,
}

impl Collector {
    /// Starts the collector; prints a skip and returns `None` if it is not installed.
    pub(super) fn start() -> Result<Option<Collector>> {
        let program = toolchain::home().join("tools/rotel/rotel-agent");
        if !program.is_file() {
            #[expect(clippy::print_stdout, reason = "a skip is said aloud")]
            {
                println!("SKIPPED OTLP: {} is not there; cargo xtask setup fetches it", program.display());
            }
            return Ok(None);
        }
        let (port, other) = (free_port()?, free_port()?);
        let dir = TempDir::new()?;
        let child = spawn(&program, port, other, &dir)?;
        let collector = Collector { program, child, port, other, dir };
        collector.listens()?;
        Ok(Some(collector))
    }

    fn listens(&self) -> Result<()> {
        until("the collector", || Ok(TcpStream::connect(("127.0.0.1", self.port)).is_ok().then_some(())))
    }

    /// Kills the collector and starts it again; its log is kept.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = spawn(&self.program, self.port, self.other, &self.dir)?;
        self.listens()
    }

    /// Returns the URL of its gRPC endpoint.
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Waits until the log contains each ID at least twice: as a log record and as a span.
    pub(super) fn has_each(&self, ids: &BTreeSet<&str>) -> Result<()> {
        let lacking = || -> Result<Vec<String>> {
            let mut seen: HashMap<&str, usize> = HashMap::new();
            // The log can be a gigabyte, and can contain bytes that are not UTF-8.
            for line in BufReader::new(File::open(self.dir.path().join("log"))?).split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                for word in line.split(|c: char| !c.is_ascii_alphanumeric()) {
                    if let Some(id) = ids.get(word) {
                        *seen.entry(id).or_default() += 1;
                    }
                }
            }
            let lacks = |id: &&&str| seen.get(**id).is_none_or(|times| *times < 2);
            Ok(ids.iter().filter(lacks).map(|id| (*id).to_owned()).collect())
        };
        until("the collector to have all", || Ok(lacking()?.is_empty().then_some(())))
            .with_context(|| format!("the collector lacks {:?}", lacking().map(|ids| ids.len())))
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &PathBuf, port: u16, other: u16, dir: &TempDir) -> Result<Child> {
    let log = OpenOptions::new().create(true).append(true).open(dir.path().join("log"))?;
    Command::new(program)
        .args(["start", "--exporter", "blackhole", "--debug-log", "logs", "--debug-log", "traces"])
        .args(["--debug-log-verbosity", "detailed"])
        .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{port}")])
        .args(["--otlp-http-endpoint", &format!("127.0.0.1:{other}")])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

//! A daemon under test, the programs it watches, and clients for its API.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use panicwatch::{incident::Incident, store::Page};
use tempfile::TempDir;

use crate::run::{self, DEADLINE, PANICWATCH, Running};

/// A directory with a daemon's state and configuration, and the only programs on this machine that the daemon
/// watches.
pub(super) struct Host {
    pub(super) dir: TempDir,
    more: String,
    hold: bool,
    /// Incidents kept per group and minute; 0 keeps all.
    group_rate: u32,
}

/// A running daemon and the address of its HTTP server.
pub(super) struct Daemon {
    pub(super) running: Running,
    address: String,
}

impl Host {
    /// Creates a host; `more` is appended to a configuration that selects the programs in its own directory.
    pub(super) fn new(more: &str) -> Result<Host> {
        Ok(Host { dir: TempDir::new()?, more: more.to_owned(), hold: false, group_rate: 600 })
    }

    /// Creates a host whose daemon holds the exec of new binaries.
    pub(super) fn holding() -> Result<Host> {
        Ok(Host { hold: true, ..Host::new("")? })
    }

    /// Makes the daemon keep every incident, regardless of the size of its group.
    pub(super) fn everything(&mut self) {
        self.group_rate = 0;
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("panicwatch.toml")
    }

    /// Writes the configuration, replacing the additional part with `more`.
    pub(super) fn configure(&mut self, more: &str) -> Result<()> {
        more.clone_into(&mut self.more);
        let dir = self.dir.path().display();
        let text = format!(
            "[watch]\nhold_new_binaries = {}\n[[watch.include]]\nexe = [\"{dir}/*\"]\n[store]\npath = \"{dir}/state\"\ngroup_rate = {}\n[http]\nlisten = [\"127.0.0.1:0\"]\n{more}",
            self.hold, self.group_rate
        );
        Ok(fs::write(self.config(), text)?)
    }

    /// Starts a daemon and waits until it is ready.
    pub(super) fn start(&mut self) -> Result<Daemon> {
        self.configure(&self.more.clone())?;
        let mut command = Command::new(PANICWATCH);
        command.arg("daemon").arg("--config").arg(self.config());
        let mut running = Running::start(command)?;
        running.wait_for_stderr("ready: ")?;
        let said = running.stderr()?;
        let at = said.split("/metrics at http://").nth(1).context("it says where it listens")?;
        let address = at.split('/').next().unwrap_or_default().to_owned();
        Ok(Daemon { running, address })
    }

    /// Copies a program into the host's directory, so that other tests' processes are not among those
    /// watched.
    pub(super) fn program(&self, name: &str, built: &Path) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        // Renamed into place: the existing file may be running.
        let new = self.dir.path().join(format!("{name}.new"));
        fs::copy(built, &new)?;
        fs::rename(new, &path)?;
        Ok(path)
    }

    /// Starts `program` with its standard output, the books, in a file.
    pub(super) fn run(&self, program: &Path, args: &[&str]) -> Result<Shop> {
        let books = tempfile::Builder::new().prefix("books").tempfile_in(self.dir.path())?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(books.reopen()?)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Ok(Shop { child, books: books.into_temp_path().keep()? })
    }
}

/// A line of a program's books: one panic.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Whether the process died of the panic.
    pub(super) died: bool,
    /// Time at which the program wrote the line: at the end of a recovered panic, or before a fatal one.
    pub(super) unix_ns: i64,
}

/// A running program that writes a line for each of its panics to a file, its books.
pub(super) struct Shop {
    pub(super) child: Child,
    books: PathBuf,
}

impl Shop {
    /// Returns the numbers of recovered panics and of deaths written so far.
    pub(super) fn books(&self) -> Result<(u64, u64)> {
        let entries = self.entries()?;
        let died = entries.iter().filter(|entry| entry.died).count() as u64;
        Ok((entries.len() as u64 - died, died))
    }

    /// Returns all entries written so far; an incomplete last line is ignored.
    pub(super) fn entries(&self) -> Result<Vec<Entry>> {
        let text = fs::read_to_string(&self.books)?;
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines().filter(|line| line.starts_with("recovered ") || line.starts_with("dies "));
        lines
            .map(|line| {
                let unix_ns = line.rsplit(' ').next().and_then(|ns| ns.parse().ok()).context("a time")?;
                Ok(Entry { died: line.starts_with("dies"), unix_ns })
            })
            .collect()
    }

    /// Waits until a line of the books begins with `word`.
    pub(super) fn wait_for(&self, word: &str) -> Result<()> {
        until(&format!("{word:?} in its books"), || {
            Ok(fs::read_to_string(&self.books)?.lines().any(|line| line.starts_with(word)).then_some(()))
        })
    }

    /// Waits until the process has ended; returns its exit code (128 plus the signal, if killed) and its
    /// books.
    pub(super) fn finish(mut self) -> Result<(i32, (u64, u64))> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                return Ok((code, self.books()?));
            }
            if start.elapsed() > DEADLINE {
                let _ = self.child.kill();
                bail!("a program of the test hangs");
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls `look` until it returns `Some`, at most for [`DEADLINE`].
pub(super) fn until<R>(what: &str, mut look: impl FnMut() -> Result<Option<R>>) -> Result<R> {
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Daemon {
    /// Returns the address of the daemon's HTTP server.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Sends a GET request and returns the status and body.
    pub(super) fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let (head, body) = text.split_once("\r\n\r\n").context("an HTTP answer")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status")?;
        Ok((status, body.to_owned()))
    }

    /// Sends a GET request and parses the JSON response.
    pub(super) fn json(&self, path: &str) -> Result<serde_json::Value> {
        let (status, body) = self.get(path)?;
        ensure!(status == 200, "{path}: {status}: {body}");
        serde_json::from_str(&body).with_context(|| format!("{path} gives {body:?}"))
    }

    /// Returns all stored incidents, newest first.
    pub(super) fn incidents(&self) -> Result<Vec<Incident>> {
        let mut all = Vec::new();
        let mut path = "/api/v1/incidents?limit=1000".to_owned();
        loop {
            let page: Page = serde_json::from_value(self.json(&path)?)?;
            all.extend(page.incidents);
            match page.next {
                Some(next) => path = format!("/api/v1/incidents?limit=1000&before={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Returns the sums of `panicwatch_panics_total` by outcome.
    pub(super) fn metrics(&self) -> Result<BTreeMap<String, u64>> {
        let (_, text) = self.get("/metrics")?;
        let mut sums = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("panicwatch_panics_total{")) {
            let outcome = line.split("outcome=\"").nth(1).and_then(|rest| rest.split('"').next());
            let value = line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok());
            let (Some(outcome), Some(value)) = (outcome, value) else {
                bail!("a metric without outcome: {line}")
            };
            *sums.entry(outcome.to_owned()).or_default() += value;
        }
        Ok(sums)
    }

    /// Returns the sums of the groups' counts by outcome.
    pub(super) fn groups(&self) -> Result<BTreeMap<String, u64>> {
        let answer = self.json("/api/v1/groups")?;
        let mut sums = BTreeMap::new();
        for group in answer["groups"].as_array().context("groups")? {
            for (outcome, count) in group["outcomes"].as_object().context("outcomes")? {
                *sums.entry(outcome.clone()).or_default() += count.as_u64().context("a count")?;
            }
        }
        Ok(sums)
    }

    /// Waits until metrics and groups both report these numbers of recovered and fatal panics.
    pub(super) fn wait_for_sums(&self, recovered: u64, fatal: u64) -> Result<()> {
        let is = |sums: &BTreeMap<String, u64>| {
            let of = |outcome: &str| sums.get(outcome).copied().unwrap_or(0);
            (of("recovered") + of("counted"), of("fatal")) == (recovered, fatal)
        };
        let waited = until("the sums", || Ok((is(&self.metrics()?) && is(&self.groups()?)).then_some(())));
        waited.with_context(|| {
            let (metrics, groups) = (self.metrics(), self.groups());
            format!("{recovered} recovered and {fatal} fatal: metrics {metrics:?}, groups {groups:?}")
        })
    }

    /// Stops the daemon with SIGTERM and waits until it has ended without an error.
    pub(super) fn stop(&mut self) -> Result<()> {
        run::signal(self.running.child.id(), libc::SIGTERM)?;
        let output = self.running.finish()?;
        ensure!(output.status == 0, "the daemon ended with {}: {}", output.status, output.stderr);
        ensure!(output.stderr.contains("stopped"), "{}", output.stderr);
        Ok(())
    }

    /// Kills the daemon with SIGKILL.
    pub(super) fn kill(&mut self) -> Result<()> {
        run::signal(self.running.child.id(), libc::SIGKILL)?;
        self.running.finish().map(drop)
    }
}

/// Overwrites a file in place, as a careless deployment does.
pub(super) fn overwrite(path: &Path, bytes: &[u8]) -> Result<()> {
    Ok(File::create(path)?.write_all(bytes)?)
}

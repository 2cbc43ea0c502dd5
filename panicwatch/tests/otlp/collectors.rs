//! Third-party OTLP collectors, as child processes that end with the test.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use panicwatch::config::Protocol;

use crate::{PATIENCE, front::Certificate};

/// Returns set-up's tool directory if it contains `file`; otherwise prints a skip and returns `None`.
pub(crate) fn tools(file: &str) -> Option<PathBuf> {
    let home = std::env::var_os("PANICWATCH_HOME").map(PathBuf::from);
    let default = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/panicwatch"));
    let tools = home.or_else(default).map(|home| home.join("tools")).filter(|it| it.join(file).is_file());
    if tools.is_none() {
        #[expect(clippy::print_stdout, reason = "a skip is said aloud")]
        {
            println!("SKIPPED: {file} is not there; cargo xtask setup fetches it");
        }
    }
    tools
}

/// Ports for gRPC and HTTP.
pub(crate) type Ports = (u16, u16);

pub(crate) struct Rotel {
    child: Child,
    ports: Ports,
    dir: tempfile::TempDir,
}

impl Rotel {
    /// Starts rotel on free ports, or on the ports of an earlier instance, and waits until it listens.
    pub(crate) async fn start(tools: &Path, ports: Option<Ports>) -> Rotel {
        let dir = tempfile::tempdir().expect("a folder");
        let ports = ports.unwrap_or_else(|| (free_port(), free_port()));
        let log = fs::File::create(dir.path().join("log")).expect("a file");
        let child = Command::new(tools.join("rotel/rotel-agent"))
            .args(["start", "--exporter", "blackhole", "--debug-log", "logs", "--debug-log", "traces"])
            .args(["--debug-log-verbosity", "detailed"])
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports.0)])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports.1)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("rotel starts");
        let rotel = Rotel { child, ports, dir };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", ports.0)).is_err()
            || TcpStream::connect(("127.0.0.1", ports.1)).is_err()
        {
            assert!(begun.elapsed() < PATIENCE, "rotel does not listen: {}", rotel.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        rotel
    }

    pub(crate) fn address(&self, protocol: Protocol) -> SocketAddr {
        let port = if protocol == Protocol::Grpc { self.ports.0 } else { self.ports.1 };
        ([127, 0, 0, 1], port).into()
    }

    pub(crate) fn url(&self, protocol: Protocol) -> String {
        format!("http://{}", self.address(protocol))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until rotel's log contains the incident exactly `times` times: once in its log record, and once
    /// in the first span of its trace.
    pub(crate) async fn shows(&self, id: &str, times: usize) {
        let line = format!("panicwatch.id: Str({id})");
        let begun = Instant::now();
        loop {
            let found = self.log().matches(&line).count();
            assert!(found <= times, "{id} is there {found} times instead of {times}");
            if found == times {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{id} is there {found} times instead of {times}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Kills rotel with SIGKILL and returns its ports.
    pub(crate) fn kill(self) -> Ports {
        self.ports
    }
}

impl Drop for Rotel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.expect("a port").port()
}

/// An OTLP/HTTP receiver behind TLS that parses requests with OpenTelemetry's own Python classes.
pub(crate) struct Judge {
    child: Child,
    output: BufReader<ChildStdout>,
    port: u16,
}

impl Judge {
    pub(crate) fn start(tools: &Path, certificate: &Certificate) -> Judge {
        let mut child = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/otlp/receiver.py"))
            .args([certificate.cert(), certificate.key()])
            .env("PYTHONPATH", tools.join("python"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a port");
        Judge { child, output, port: line.trim().parse().expect("a port") }
    }

    pub(crate) fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// Returns the next `n` log records and traces that the receiver has parsed.
    pub(crate) fn told(&mut self, n: usize) -> Vec<serde_json::Value> {
        let mut line = String::new();
        let mut next = || {
            line.clear();
            self.output.read_line(&mut line).expect("a line");
            serde_json::from_str(&line).expect("JSON")
        };
        (0..n).map(|_| next()).collect()
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Runs wrk: it sends requests over persistent connections, as many as the server can answer.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use crate::support::{cache, skip};

/// Paths of wrk and of the shared libraries it needs.
pub(crate) struct Wrk {
    program: PathBuf,
    libraries: PathBuf,
}

/// Result of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Requests answered per second.
    pub(crate) throughput: f64,
    /// Requests answered in total.
    pub(crate) requests: f64,
    /// Latency at the 99th percentile, in milliseconds.
    pub(crate) p99_ms: f64,
}

impl Wrk {
    /// Returns the wrk that set-up unpacked, or else the installed one.
    pub(crate) fn find() -> Option<Wrk> {
        let root = cache().join("debian/wrk/usr");
        let places = [root.join("bin/wrk"), PathBuf::from("/usr/bin/wrk")];
        let program = places.iter().find(|place| place.is_file()).cloned();
        if program.is_none() {
            skip("wrk", &places);
        }
        Some(Wrk { program: program?, libraries: root.join("lib/x86_64-linux-gnu") })
    }

    fn command(&self, port: &str, seconds: u32) -> Command {
        let mut command = Command::new(&self.program);
        command.env("LD_LIBRARY_PATH", &self.libraries).args(["-t1", "-c16", "--latency"]);
        command.args([format!("-d{seconds}s"), format!("http://127.0.0.1:{port}/x")]);
        command
    }

    /// Loads the server on `port` until the value is dropped.
    pub(crate) fn keep_on(&self, port: &str) -> Endless {
        const A_DAY: u32 = 86_400;
        Endless(self.command(port, A_DAY).stdout(Stdio::null()).spawn().expect("wrk starts"))
    }

    /// Loads the server on `port` for `seconds`.
    pub(crate) fn run(&self, port: &str, seconds: u32) -> Run {
        let output = self.command(port, seconds).output().expect("wrk starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let run = read(&text);
        let errors = text.lines().find(|line| line.contains("errors") || line.contains("Non-2xx"));
        assert!(output.status.success() && errors.is_none(), "wrk: {errors:?} {}", output.status);
        run.unwrap_or_else(|| panic!("wrk said {text}"))
    }
}

/// A wrk process that runs until the value is dropped.
pub(crate) struct Endless(Child);

impl Drop for Endless {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn read(text: &str) -> Option<Run> {
    let after = |name: &str| text.lines().find_map(|line| Some(line.trim().strip_prefix(name)?.trim()));
    // "230254 requests in 3.10s, 28.77MB read"
    let requests = text.lines().find_map(|line| line.split_once(" requests in "))?.0;
    Some(Run {
        throughput: after("Requests/sec:")?.parse().ok()?,
        requests: requests.trim().parse().ok()?,
        p99_ms: milliseconds(after("99%")?)?,
    })
}

fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)];
    let (unit, factor) = units.iter().find(|(unit, _)| text.ends_with(unit))?;
    Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor)
}

//! Runs programs under load, with and without panicwatch attached, and summarizes the measurements.
//!
//! Shared by the benchmarks of panicwatch's overhead; which ways of watching are compared is up to each
//! benchmark.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::support::{self, Toolchain};

/// The panicwatch command under test; `cargo bench` builds it with the release optimizations that are
/// shipped.
pub(crate) const PANICWATCH: &str = env!("CARGO_BIN_EXE_panicwatch");

/// Returns why nothing can be measured on this machine, or `None` if everything can.
pub(crate) fn obstacle() -> Option<&'static str> {
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    (unsafe { libc::geteuid() } != 0).then_some("placing probes needs root: run it through sudo")
}

/// Builds the fixture `load` with the newest toolchain and returns its path.
pub(crate) fn program() -> Result<PathBuf, &'static str> {
    fixture("load")
}

/// Builds a fixture with the newest toolchain and returns its path.
pub(crate) fn fixture(name: &str) -> Result<PathBuf, &'static str> {
    let toolchain: Toolchain =
        support::toolchains().pop().ok_or("no Go toolchain is at hand; run `cargo xtask setup`")?;
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bench-{name}"));
    let env = [("GO111MODULE", "on"), ("GOFLAGS", "-mod=mod -buildvcs=false"), ("GOPROXY", "off")];
    toolchain.build_with(&env, &support::fixture(name), &[], &out);
    Ok(out)
}

/// A running load program that repeats one operation on request.
pub(crate) struct Load {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Rest of the line after "ready" that the program prints at start.
    pub(crate) ready: String,
}

impl Load {
    pub(crate) fn start(program: &Path, what: &str) -> Load {
        let mut child = Command::new(program)
            .arg(what)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the load starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut load = Load { child, input, output, ready: String::new() };
        let line = load.line();
        load.ready = line.strip_prefix("ready").expect("it is ready").trim().to_owned();
        load
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the load answers");
        line
    }

    /// Repeats the operation for `milliseconds`, or a hundred times if that takes longer.
    pub(crate) fn run(&mut self, milliseconds: u32) -> Run {
        let cpu = self.cpu_ns();
        let [count, took] = self.ask(&milliseconds.to_string());
        Run { ns: took / count, cpu_ns: (self.cpu_ns() - cpu) / count }
    }

    /// Sends a line and returns the two numbers of the answer: a count and nanoseconds.
    pub(crate) fn ask(&mut self, line: &str) -> [f64; 2] {
        let input = self.input.as_mut().expect("it is open");
        writeln!(input, "{line}").expect("the load reads");
        let line = self.line();
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        let [count, ns] = numbers[..] else { panic!("the load said {line:?}") };
        [count, ns]
    }

    /// CPU time of the program's threads so far, in nanoseconds. Unlike throughput, it hardly depends on
    /// other load on the machine.
    pub(crate) fn cpu_ns(&self) -> f64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("it runs").flatten();
        let of = |thread: fs::DirEntry| {
            let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<f64>().ok()
        };
        threads.filter_map(of).sum()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.input.take());
        drop(self.child.wait());
    }
}

/// Cost of one operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// Wall-clock time, in nanoseconds.
    pub(crate) ns: f64,
    /// CPU time, in nanoseconds.
    pub(crate) cpu_ns: f64,
}

/// A `panicwatch attach` process that watches one program.
pub(crate) struct Attached {
    child: Child,
    said: BufReader<std::process::ChildStderr>,
}

impl Attached {
    /// Starts panicwatch and returns when all probes are attached.
    pub(crate) fn to(pid: u32, options: &[&str]) -> Attached {
        let mut child = Command::new(PANICWATCH)
            .args(["attach", "--pid", &pid.to_string(), "-o", "/dev/null"])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .expect("panicwatch starts");
        let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("Ctrl-C") {
            line.clear();
            let read = said.read_line(&mut line).expect("panicwatch says something");
            assert!(read > 0, "panicwatch attach {options:?} ended by itself: {:?}", child.wait());
        }
        Attached { child, said }
    }

    /// Stops panicwatch and returns the lines it has printed to standard error since it attached.
    pub(crate) fn end(mut self) -> Vec<String> {
        // SAFETY: kill(2) takes two integers, and the child has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        let said = (&mut self.said).lines().map_while(Result::ok).collect();
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "panicwatch ended with {status}: {said:?}");
        said
    }
}

/// Repeated measurements of one quantity.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures(pub(crate) Vec<f64>);

impl Figures {
    /// Returns the `part` quantile (0 to 1), or NaN without measurements.
    pub(crate) fn at(&self, part: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// Half-width of the median's confidence interval: two standard errors, estimated from the quartiles.
    fn doubt(&self) -> f64 {
        let deviation = (self.at(0.75) - self.at(0.25)) / 1.349;
        2.0 * 1.253 * deviation / (self.0.len() as f64).sqrt()
    }

    /// Formats the mean of the middle four fifths, which is more precise than the median of as many
    /// measurements, with two standard errors (from the winsorized variance: Tukey and McLaughlin, 1963).
    pub(crate) fn mean(&self) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let cut = sorted.len() / 10;
        let middle = &sorted[cut..sorted.len() - cut];
        let (Some(least), Some(most)) = (middle.first(), middle.last()) else { return "none".to_owned() };
        let mean = middle.iter().sum::<f64>() / middle.len() as f64;
        let n = sorted.len() as f64;
        let squares: f64 = sorted.iter().map(|figure| (figure.clamp(*least, *most) - mean).powi(2)).sum();
        let error = (squares / (n - 1.0)).sqrt() * n.sqrt() / middle.len() as f64;
        format!("{mean:.4} ±{:.4}", 2.0 * error)
    }

    /// Formats the median with its uncertainty, the quartiles, and the mean.
    pub(crate) fn told(&self) -> String {
        let (low, high) = (self.at(0.25), self.at(0.75));
        format!("{:.3} ±{:.3} ({low:.3}–{high:.3}), mean {}", self.median(), self.doubt(), self.mean())
    }
}

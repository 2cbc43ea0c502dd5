//! The initialisation of a Go program on one time line: rt0_go, schedinit, the first goroutine, every package's init,
//! main.main. Pure: events and a binary go in, the document comes out.
//!
//! [`Collector`] picks the moments out of the events, [`build()`] gives them names and depths, [`text`] renders
//! them; JSON is the document itself. Must not know how events are got or where output goes.

mod build;
mod calls;
mod collect;
mod depth;

pub mod perfetto;
mod tasks;
pub mod text;
mod variable;

use serde::Serialize;

pub use self::{
    build::build,
    calls::imports as imports_in_code,
    collect::{Collected, Collector, End, FunctionRun, TaskRun},
    depth::Imports,
};
use crate::incident::Missing;

/// Name and version of the document.
pub const SCHEMA: &str = "panicwatch.init-trace/1";

/// The document. Times are CLOCK_MONOTONIC, durations nanoseconds; what could not be known is null and has an entry in
/// `missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitTrace {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Whose initialisation it is.
    pub program: Program,
    /// When the kernel had loaded the program: before that, and before the dynamic loader ran.
    pub exec_ns: Option<u64>,
    /// The steps, in the order they happened.
    pub chain: Vec<Step>,
    /// The packages, in the order they were initialised. Those without anything to initialise have no entry.
    pub packages: Vec<Package>,
    /// From the first step of the chain to main.main; null when main.main was not reached.
    pub total_ns: Option<u64>,
    /// Where [`Package::depth`] and [`Package::imports`] come from.
    pub depth_source: DepthSource,
    /// Null when main.main was reached.
    pub stopped: Option<Stopped>,
    /// What could not be known.
    pub missing: Vec<Missing>,
}

/// The traced process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Process.
    pub pid: u32,
    /// The binary.
    pub exe: String,
    /// As the linker recorded it.
    pub go_version: String,
}

/// One moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// A function of the runtime, `main.init` or `main.main`.
    pub what: String,
    /// When it began or was called.
    pub time_ns: u64,
}

/// One package's initialisation: variables first, then its init functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Import path; null when its functions are not in the binary's tables.
    pub package: Option<String>,
    /// When its first function was about to be called.
    pub start_ns: u64,
    /// Until its last function had returned; null when it did not.
    pub duration_ns: Option<u64>,
    /// Fewest imports from package main to this one that are known of; 0 is main.
    pub depth: Option<u32>,
    /// Packages of this list that it is known to import.
    pub imports: Vec<String>,
    /// Initialised by the runtime before anything else, for its own use.
    pub runtime: bool,
    /// Its functions, in the order they were called.
    pub functions: Vec<Function>,
}

/// One init function, or the initialisation of all a package's variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// `pkg.init` initialises the variables; `pkg.init.0`, `pkg.init.1` … are the init functions.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line of its first statement.
    pub line: Option<u32>,
    /// When it was about to be called.
    pub start_ns: u64,
    /// Until it had returned; null when it did not.
    pub duration_ns: Option<u64>,
}

/// How the import graph was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum DepthSource {
    /// The init tasks name those they depend on (up to Go 1.20): complete.
    #[serde(rename = "init tasks")]
    InitTasks,
    /// The linker drops the graph; a call of another package's function proves an import: not every import shows.
    #[serde(rename = "calls in the code")]
    Calls,
}

/// Where initialisation ended before main.main, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// How.
    pub how: How,
    /// Exit status, or signal.
    pub code: Option<i32>,
    /// When.
    pub time_ns: Option<u64>,
    /// The last step or the function that was running.
    pub at: String,
    /// Package whose initialisation was running.
    pub package: Option<String>,
    /// Its function that was running.
    pub function: Option<String>,
    /// The package's variable that was being initialised, where that is known.
    pub variable: Option<String>,
    /// Source file of the statement that was running, of the function where that is not known.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// What the panic or error said.
    pub message: Option<String>,
    /// Id of the incident.
    pub incident: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It died of a panic or another error of Go's.
    Died,
    /// It exited.
    Exited,
    /// A signal killed it.
    Killed,
    /// It executed another program.
    Executed,
    /// It was lost from sight.
    Unknown,
}

impl InitTrace {
    /// The moment that others are shown relative to: the first step, or the first that is known.
    pub fn origin_ns(&self) -> u64 {
        let first = self.chain.first().map(|step| step.time_ns);
        first.or(self.packages.first().map(|package| package.start_ns)).or(self.exec_ns).unwrap_or(0)
    }

    /// The packages, those that took longest first; those that did not end before all others.
    pub fn slowest(&self) -> Vec<&Package> {
        let mut all: Vec<&Package> = self.packages.iter().collect();
        all.sort_by_key(|package| std::cmp::Reverse(package.duration_ns.unwrap_or(u64::MAX)));
        all
    }
}

#[cfg(test)]
mod tests;

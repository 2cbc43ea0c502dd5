//! Initialization of a Go program on one timeline: rt0_go, schedinit, the first goroutine, every package's
//! init, main.main. Pure: events and a binary in, the document out.
//!
//! [`Collector`] selects the relevant events, [`build()`] adds names and depths, [`text`] renders them; JSON
//! is the document itself. Must not know how events are received or where output is written.

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

/// Name and version of the document's schema.
pub const SCHEMA: &str = "panicwatch.init-trace/1";

/// The document. Times are CLOCK_MONOTONIC nanoseconds, durations nanoseconds; a value that could not be
/// determined is null and has an entry in `missing`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InitTrace {
    /// Always [`SCHEMA`].
    pub schema: &'static str,
    /// The traced program.
    pub program: Program,
    /// Time at which the kernel had loaded the program, before the dynamic loader ran.
    pub exec_ns: Option<u64>,
    /// Steps of the initialization, in the order they happened.
    pub chain: Vec<Step>,
    /// Packages in the order they were initialized. Those without anything to initialize have no entry.
    pub packages: Vec<Package>,
    /// Time from the first step of the chain to main.main; null when main.main was not reached.
    pub total_ns: Option<u64>,
    /// Source of [`Package::depth`] and [`Package::imports`].
    pub depth_source: DepthSource,
    /// Where initialization stopped; null when main.main was reached.
    pub stopped: Option<Stopped>,
    /// Values that could not be determined, with the reason.
    pub missing: Vec<Missing>,
}

/// The traced process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Process ID of the program.
    pub pid: u32,
    /// Path of the binary.
    pub exe: String,
    /// Go version as the linker recorded it.
    pub go_version: String,
}

/// A step of the initialization.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// A function of the runtime, `main.init` or `main.main`.
    pub what: String,
    /// Time at which it began or was called.
    pub time_ns: u64,
}

/// Initialization of one package: variables first, then its init functions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Import path; null when its functions are not in the binary's tables.
    pub package: Option<String>,
    /// Time at which its first function was about to be called.
    pub start_ns: u64,
    /// Time until its last function had returned; null when it did not return.
    pub duration_ns: Option<u64>,
    /// Minimum number of known imports from package main to this one; 0 is main.
    pub depth: Option<u32>,
    /// Packages of this list that it is known to import.
    pub imports: Vec<String>,
    /// Whether the runtime initialized it before anything else, for its own use.
    pub runtime: bool,
    /// Its functions, in the order they were called.
    pub functions: Vec<Function>,
}

/// One init function, or the initialization of all of a package's variables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Function {
    /// `pkg.init` initializes the variables; `pkg.init.0`, `pkg.init.1` … are the init functions.
    pub function: Option<String>,
    /// Path of the source file, as recorded by the compiler.
    pub file: Option<String>,
    /// Line of its first statement.
    pub line: Option<u32>,
    /// Time at which it was about to be called.
    pub start_ns: u64,
    /// Time until it had returned; null when it did not return.
    pub duration_ns: Option<u64>,
}

/// Source of the import graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum DepthSource {
    /// The init tasks list their dependencies (up to Go 1.20): complete.
    #[serde(rename = "init tasks")]
    InitTasks,
    /// The linker drops the graph; a call of another package's function proves an import: incomplete.
    #[serde(rename = "calls in the code")]
    Calls,
}

/// Where initialization ended before main.main, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stopped {
    /// How it ended.
    pub how: How,
    /// Exit status or signal number.
    pub code: Option<i32>,
    /// Time of the end, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: Option<u64>,
    /// The function that was running, or the last step.
    pub at: String,
    /// Package that was being initialized.
    pub package: Option<String>,
    /// Function of the package that was running.
    pub function: Option<String>,
    /// The package's variable that was being initialized, if known.
    pub variable: Option<String>,
    /// Source file of the running statement, or of the function if the statement is unknown.
    pub file: Option<String>,
    /// Line in `file`.
    pub line: Option<u32>,
    /// Message of the panic or error.
    pub message: Option<String>,
    /// Id of the incident document.
    pub incident: Option<String>,
}

/// How initialization ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// The process died of a panic or another error of the Go runtime.
    Died,
    /// The process exited.
    Exited,
    /// A signal killed the process.
    Killed,
    /// The process executed another program.
    Executed,
    /// The process was lost from sight.
    Unknown,
}

impl InitTrace {
    /// Returns the time to which others are displayed relative: that of the first step, or the first known
    /// time.
    pub fn origin_ns(&self) -> u64 {
        let first = self.chain.first().map(|step| step.time_ns);
        first.or(self.packages.first().map(|package| package.start_ns)).or(self.exec_ns).unwrap_or(0)
    }

    /// Returns the packages by duration, longest first; those that did not end come before all others.
    pub fn slowest(&self) -> Vec<&Package> {
        let mut all: Vec<&Package> = self.packages.iter().collect();
        all.sort_by_key(|package| std::cmp::Reverse(package.duration_ns.unwrap_or(u64::MAX)));
        all
    }
}

#[cfg(test)]
mod tests;

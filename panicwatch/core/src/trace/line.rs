//! One event as it is told: the fields of a JSON line.

use serde::Serialize;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A call began.
    Entry,
    /// A call returned.
    Exit,
    /// A call was ended by a panic that was recovered further out, or by runtime.Goexit.
    Unwound,
}

/// An argument or a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// Name; of a result without one, `~r0` and so on, as the compiler calls it.
    pub name: String,
    /// Go type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// As Go's `%+v` prints it, but for strings (`%q`), pointers (`&` and what they point to) and what is cut (`…`).
    pub value: Option<String>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// Function, as Go prints it.
    pub function: String,
    /// Source file.
    pub file: Option<String>,
    /// Source line.
    pub line: Option<u32>,
}

/// One event. Times are CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line<'a> {
    /// When.
    pub time_ns: u64,
    /// What.
    pub event: Event,
    /// Process.
    pub pid: u32,
    /// Thread.
    pub thread: u32,
    /// Goroutine; 0 on a thread's own stack (the scheduler, signal handlers); null where none could be read.
    pub goroutine: Option<u64>,
    /// Traced calls around it.
    pub depth: usize,
    /// Function, as Go prints it.
    pub function: &'a str,
    /// Source file.
    pub file: Option<&'a str>,
    /// Line of the function.
    pub line: Option<u32>,
    /// Arguments, when they were asked for and are known.
    pub args: Option<&'a [Argument]>,
    /// Results of a call that returned, likewise.
    pub results: Option<&'a [Argument]>,
    /// Since the entry; null for entries and where the entry was not seen.
    pub duration_ns: Option<u64>,
    /// Who called, the innermost first; only with `--stack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<&'a [Caller]>,
}

/// The last line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Always true.
    pub summary: bool,
    /// Calls that began, counted in the kernel: exact, whatever was lost or filtered.
    pub entries: u64,
    /// Calls that returned, likewise.
    pub exits: u64,
    /// Events that were counted and are not told, because the ring was full.
    pub lost: u64,
    /// Calls that were unwound, as far as their events were seen.
    pub unwound: u64,
    /// By function, those that were called.
    pub functions: Vec<FunctionCount>,
}

/// How often one function was called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FunctionCount {
    /// As Go prints it.
    pub function: String,
    /// Calls that began.
    pub entries: u64,
    /// Calls that returned.
    pub exits: u64,
    /// Events that are not told.
    pub lost: u64,
}

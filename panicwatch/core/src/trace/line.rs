//! An event of a trace: the fields of a JSON line.

use serde::Serialize;

/// Kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A call started.
    Entry,
    /// A call returned.
    Exit,
    /// A call was ended by a panic that an outer function recovered, or by runtime.Goexit.
    Unwound,
}

/// An argument or a result of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// Name; an unnamed result has the compiler's name, `~r0` and so on.
    pub name: String,
    /// Name of the value's Go type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The value as Go's `%+v` prints it, except for strings (`%q`), pointers (`&` and the value pointed to)
    /// and omitted parts (`…`).
    pub value: Option<String>,
    /// Why there is no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A caller of a traced function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Caller {
    /// Name of the function, as Go prints it.
    pub function: String,
    /// Source file of the function's entry.
    pub file: Option<String>,
    /// Line of the function's entry in it.
    pub line: Option<u32>,
}

/// An event of a trace. Times are CLOCK_MONOTONIC nanoseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line<'a> {
    /// Time of the event.
    pub time_ns: u64,
    /// Kind of the event.
    pub event: Event,
    /// PID of the process.
    pub pid: u32,
    /// TID of the thread.
    pub thread: u32,
    /// Goroutine ID; 0 on a thread's own stack (the scheduler, signal handlers); null if it could not be
    /// read.
    pub goroutine: Option<u64>,
    /// Number of traced calls that enclose this one.
    pub depth: usize,
    /// Name of the function, as Go prints it.
    pub function: &'a str,
    /// Source file of the function.
    pub file: Option<&'a str>,
    /// Source line of the function.
    pub line: Option<u32>,
    /// Arguments, if requested and known.
    pub args: Option<&'a [Argument]>,
    /// Results of a call that returned, if requested and known.
    pub results: Option<&'a [Argument]>,
    /// Time since the entry; null for entries, and if the entry was not seen.
    pub duration_ns: Option<u64>,
    /// Callers, innermost first; only with `--stack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<&'a [Caller]>,
}

/// The last line of a trace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Always true, to identify the line.
    pub summary: bool,
    /// Number of calls that started. It is counted in the kernel and exact, whatever was lost or filtered.
    pub entries: u64,
    /// Number of calls that returned, counted in the same way.
    pub exits: u64,
    /// Number of events that were counted but lost, because the ring was full.
    pub lost: u64,
    /// Number of calls that were unwound, as far as their events were seen.
    pub unwound: u64,
    /// Counts of each function that was called.
    pub functions: Vec<FunctionCount>,
}

/// Counts of one function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FunctionCount {
    /// Name of the function, as Go prints it.
    pub function: String,
    /// Number of calls that started.
    pub entries: u64,
    /// Number of calls that returned.
    pub exits: u64,
    /// Number of events that were counted but lost.
    pub lost: u64,
}

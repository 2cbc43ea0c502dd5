//! Parses what a dying Go program prints on standard error.
//!
//! Reads only text, of every Go release from 1.19 to 1.27; the program's own output may precede it. Must not
//! depend on incidents: `compare` compares the two. The formats are those of printpanics, dopanic_m,
//! goroutineheader and traceback2:
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go>
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go>

mod chain;
mod frame;
mod goroutine;

use std::collections::BTreeMap;

pub(crate) use chain::{Note, PanicLine, SignalDeath, SignalLine, unindent};
pub(crate) use frame::FrameText;
pub(crate) use goroutine::{CreatedBy, GoroutineText};

/// Go's account of one death.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Account {
    /// Text before it: the program's own output, and the runtime's remarks ("runtime: goroutine stack
    /// exceeds").
    pub(crate) before: String,
    /// The `panic:` lines, oldest first.
    pub(crate) chain: Vec<PanicLine>,
    /// Text after `fatal error: `, as printed.
    pub(crate) fatal: Option<String>,
    /// The line `[signal SIGSEGV: …]`.
    pub(crate) signal: Option<SignalLine>,
    /// The lines `SIGSEGV: segmentation violation`, `PC=…`: a signal that is not turned into a panic.
    pub(crate) death: Option<SignalDeath>,
    /// The frames under `runtime stack:`.
    pub(crate) runtime_stack: Option<Vec<FrameText>>,
    /// Every goroutine, in the order printed.
    pub(crate) goroutines: Vec<GoroutineText>,
    /// Registers of a death by signal, from lines such as `rax    0x0`.
    pub(crate) registers: BTreeMap<String, u64>,
    /// Status from `exit status 2`, which `go run` and `go test` add.
    pub(crate) exit_status: Option<i32>,
}

impl Account {
    /// Returns the first account in `text`; `None` if there is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::all(text).into_iter().next()
    }

    /// Returns every account: goroutines that die at the same time print one after the other.
    pub(crate) fn all(text: &str) -> Vec<Self> {
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
        let mut accounts = Vec::new();
        let mut begun = 0;
        while let Some(start) = (begun..lines.len()).find(|&i| chain::starts(lines[i])) {
            let body = (start..lines.len()).find(|&i| starts_traceback(lines[i])).unwrap_or(lines.len());
            let end = (body..lines.len()).find(|&i| chain::starts(lines[i])).unwrap_or(lines.len());
            let mut account = Self { before: joined(&lines[begun..start]), ..Self::default() };
            // One empty line precedes the traceback; any others belong to the value.
            let separated = body < lines.len() && lines[body - 1].is_empty();
            chain::parse(&lines[start..body - usize::from(separated)], &mut account);
            account.parse_body(&lines[body..end]);
            accounts.push(account);
            begun = end;
        }
        accounts
    }

    /// Returns the goroutine that caused the death. A deadlock has none, nor has a throw on a thread that ran
    /// no goroutine: then the first goroutine printed is merely the first of allgs, and it is not running.
    pub(crate) fn subject(&self) -> Option<&GoroutineText> {
        let first = self.goroutines.first()?;
        // In C code it is the thread's own goroutine, unless that has just ended.
        let ended = "runtime.Goexit called in a thread that was not created by the Go runtime";
        let in_c = first.status == "syscall" && self.fatal.as_deref() != Some(ended);
        let waits = self.fatal.is_some() && first.status != "running" && !in_c;
        (!waits && first.id != 0).then_some(first)
    }

    fn parse_body(&mut self, mut lines: &[&str]) {
        while let Some((line, rest)) = lines.split_first() {
            if *line == "runtime stack:" {
                let (frames, rest) = goroutine::frames(rest);
                self.runtime_stack = Some(frames);
                lines = rest;
            } else if let Some((goroutine, rest)) = goroutine::parse(line, rest) {
                self.goroutines.push(goroutine);
                lines = rest;
            } else {
                self.parse_tail(line);
                lines = rest;
            }
        }
    }

    fn parse_tail(&mut self, line: &str) {
        if let Some(status) = line.strip_prefix("exit status ") {
            self.exit_status = status.trim().parse().ok();
        } else if let [name, value] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let Some(value) = hex(value)
            && self.death.is_some()
        {
            self.registers.insert(name.to_owned(), value);
        }
    }
}

/// Parses the output of `debug.Stack`: a single header and its frames.
pub(crate) fn parse_stack(text: &str) -> Option<GoroutineText> {
    let lines: Vec<&str> = text.lines().collect();
    let (header, rest) = lines.split_first()?;
    goroutine::parse(header, rest).map(|(goroutine, _)| goroutine)
}

fn starts_traceback(line: &str) -> bool {
    line == "runtime stack:" || goroutine::is_header(line)
}

/// Parses `0x…`.
fn hex(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn joined(lines: &[&str]) -> String {
    lines.iter().flat_map(|l| [*l, "\n"]).collect()
}

//! Parses the output of `go tool trace -d=parsed FILE` (`-d=1` before Go 1.24) for traces of Go 1.22 and
//! later.
//!
//! The tracer's clock is nanotime in steps of 64 ns, and the reader adds nanoseconds to keep events ordered;
//! so its times are CLOCK_MONOTONIC.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/tracetime.go> (traceClockNow),
//! <https://github.com/golang/go/blob/go1.24.11/src/internal/trace/event.go> (Event.String)

use super::{Note, State, Trace, field, number};

/// Allowed difference between the program's clock and the trace's: the time it takes to write a log line; a
/// program's first one takes longest.
const NOTE_NS: i64 = 5_000_000;

/// Parses the trace, or returns why that fails.
pub(crate) fn read(text: &str) -> Result<Trace, String> {
    let mut trace = Trace { has_syscalls: true, ..Trace::default() };
    let mut last = 0;
    // Stacks are printed between the events, on lines of their own.
    for line in text.lines().filter(|line| line.starts_with("M=")) {
        last = number(line, "Time").ok_or_else(|| format!("no time in {line:?}"))?;
        event(&mut trace, line, last)?;
    }
    trace.close(last);
    match trace.clock_ahead() {
        Some((most, least)) if most <= 64 && least > -NOTE_NS => Ok(trace),
        other => Err(format!("the trace's clock is not the program's: notes are {other:?} ns apart from it")),
    }
}

fn event(trace: &mut Trace, line: &str, time_ns: u64) -> Result<(), String> {
    let wrong = || format!("not understood: {line:?}");
    match line.split_whitespace().nth(3).ok_or_else(wrong)? {
        "StateTransition" if field(line, "GoID").is_some() => {
            let goroutine = number(line, "GoID").ok_or_else(wrong)?;
            let (_, to) = line.split_whitespace().find_map(|word| word.split_once("->")).ok_or_else(wrong)?;
            let reason = field(line, "Reason").unwrap_or_default();
            let state = match to {
                "Running" => Some(State::Running),
                "Runnable" => Some(State::Runnable),
                "Waiting" => Some(State::Waiting),
                "Syscall" => Some(State::Syscall),
                "NotExist" => None,
                _ => return Err(wrong()),
            };
            trace.turn(goroutine, time_ns, state.map(|state| (state, reason)));
        }
        "RangeBegin" => match field(line, "Name").ok_or_else(wrong)? {
            "GC concurrent mark phase" => trace.mark(time_ns, true),
            name => {
                if let Some(reason) = stopped(name) {
                    trace.stop(time_ns, reason);
                }
            }
        },
        "RangeEnd" => match field(line, "Name").ok_or_else(wrong)? {
            "GC concurrent mark phase" => trace.mark(time_ns, false),
            name if stopped(name).is_some() => trace.start(time_ns),
            _ => {}
        },
        "Log" => trace.notes.push(Note {
            time_ns,
            what: field(line, "Category").ok_or_else(wrong)?.to_owned(),
            clock_ns: number(line, "Message").ok_or_else(wrong)?,
            goroutine: number(line, "G").ok_or_else(wrong)?,
        }),
        _ => {}
    }
    Ok(())
}

fn stopped(range: &str) -> Option<&str> {
    range.strip_prefix("stop-the-world (")?.strip_suffix(')')
}

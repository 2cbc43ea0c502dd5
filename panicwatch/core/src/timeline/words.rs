//! Text for records. All text is ours except the names of threads and functions, which the consumer must
//! escape.

use panicwatch_common::recorder::{NO_SYSCALL, PREEMPTED, Slot, TASK_STATE};

use super::{
    Input,
    names::signal_name,
    thread::{Call, Task},
};
use crate::go::value;

/// Signal by which the Go runtime requests preemption of a goroutine.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_unix.go> sigPreempt
const SIGURG: u32 = 23;
/// Largest error number: a system call that returns a value from -4095 to -1 has failed with that error
/// number.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/err.h>
const MAX_ERRNO: i64 = 4095;

/// Returns the name of the system call that a thread is in.
pub(super) fn call(input: &Input<'_>, call: Call) -> Option<String> {
    match call {
        Call::In(number) => Some(syscall(input, number)),
        Call::User | Call::Unknown(_) => None,
    }
}

pub(super) fn syscall(input: &Input<'_>, number: u32) -> String {
    input.names.syscall(number).map_or_else(|| format!("system call {number}"), str::to_owned)
}

pub(super) fn waker_call(input: &Input<'_>, number: u32) -> Option<String> {
    (number != NO_SYSCALL).then(|| syscall(input, number))
}

pub(super) fn wait_reason(input: &Input<'_>, number: u32) -> String {
    match input.names.wait_reason(number) {
        Some("") => "no wait reason".to_owned(),
        Some(text) => text.to_owned(),
        None => format!("wait reason {number}"),
    }
}

/// Number used for a missing STW reason: Go 1.20 and earlier have none.
pub(super) const UNTOLD: u32 = u32::MAX;

pub(super) fn stw_reason(input: &Input<'_>, number: u32) -> String {
    match input.names.stw_reason(number) {
        Some(reason) => reason.to_owned(),
        None if number == UNTOLD => "no reason given (Go 1.20 and earlier)".to_owned(),
        None => format!("reason {number}"),
    }
}

pub(super) fn signal(number: u32) -> String {
    match (number, signal_name(number)) {
        (SIGURG, _) => "SIGURG (Go's preemption signal)".to_owned(),
        (_, Some(name)) => name.to_owned(),
        (_, None) => format!("signal {number}"),
    }
}

impl Task {
    pub(super) fn tid(self) -> u32 {
        self.0[0] as u32
    }

    /// Returns the name as the kernel has it: up to 16 bytes, NUL-terminated.
    pub(super) fn name(self) -> String {
        let bytes: Vec<u8> =
            self.0[1..].iter().flat_map(|word| word.to_le_bytes()).take_while(|b| *b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Formats a task as "bash[123]".
pub(super) fn task(task: Task) -> String {
    match task.tid() {
        0 => "the idle task".to_owned(),
        tid => format!("{}[{tid}]", task.name()),
    }
}

/// Formats a thread as "thread 12", with its goroutine and its system call.
pub(super) fn who(thread: u32, goroutine: Option<u64>, call: Option<&str>) -> String {
    let mut text = match (thread, goroutine) {
        (0, _) => "an interrupt on an idle CPU".to_owned(),
        (tid, Some(id)) => format!("goroutine {id} on thread {tid}"),
        (tid, None) => format!("thread {tid}"),
    };
    if let Some(call) = call {
        text = format!("{text}, in {call}");
    }
    text
}

/// Name of the switch-out of a preempted thread.
pub(super) const PREEMPTION: &str = "preempted";

/// Returns how a thread was switched out.
pub(super) fn leaving(slot: &Slot) -> &'static str {
    match slot.extra & (PREEMPTED | TASK_STATE) {
        state if state & PREEMPTED != 0 => PREEMPTION,
        0 => "yielded",
        _ => "blocked",
    }
}

pub(super) fn left(slot: &Slot, cpu: u32) -> String {
    let follows = task(Task(slot.args));
    match slot.extra & (PREEMPTED | TASK_STATE) {
        state if state & PREEMPTED != 0 => format!("preempted on CPU {cpu} by {follows}"),
        0 => format!("switched out on CPU {cpu} for {follows}, still runnable"),
        _ => format!("blocked (off CPU {cpu})"),
    }
}

/// Describes the return of a system call: "read returned 5", "read failed: bad file descriptor".
pub(super) fn returned(name: &str, result: i64) -> String {
    if (-MAX_ERRNO..0).contains(&result) {
        let text = value::errno_text(result.unsigned_abs());
        return text.map_or_else(
            || format!("{name} failed with error {}", -result),
            |t| format!("{name} failed: {t}"),
        );
    }
    // Large values are probably addresses.
    match u64::try_from(result) {
        Ok(result) if result >= 1 << 32 => format!("{name} returned {result:#x}"),
        _ => format!("{name} returned {result}"),
    }
}

/// Describes the entry of a system call: "futex(0xc000052d48, 0x80, 0x0, …)"; small numbers are decimal.
pub(super) fn entered(name: &str, args: &[u64]) -> String {
    let args: Vec<String> = args
        .iter()
        .map(|arg| match *arg as i64 {
            n @ -4095..=65535 => n.to_string(),
            n => format!("{n:#x}"),
        })
        .collect();
    format!("{name}({}, …)", args.join(", "))
}

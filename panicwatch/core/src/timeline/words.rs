//! What records say, in words. All text is ours but for the names of threads and functions, which the reader escapes.

use panicwatch_common::recorder::{NO_SYSCALL, PREEMPTED, Slot, TASK_STATE};

use super::{
    Input,
    names::signal_name,
    thread::{Call, Task},
};
use crate::go::value;

/// Go asks a goroutine to give way by this signal.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/signal_unix.go> sigPreempt
const SIGURG: u32 = 23;
/// A system call that returns -1 to this failed with the error number.
/// <https://github.com/torvalds/linux/blob/v6.12/include/linux/err.h>
const MAX_ERRNO: i64 = 4095;

/// The system call a thread is in.
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
        Some("") => "for no reason that it gave".to_owned(),
        Some(text) => text.to_owned(),
        None => format!("wait reason {number}"),
    }
}

/// Go 1.20 and earlier stop the world without a reason.
pub(super) const UNTOLD: u32 = u32::MAX;

pub(super) fn stw_reason(input: &Input<'_>, number: u32) -> String {
    match input.names.stw_reason(number) {
        Some(reason) => reason.to_owned(),
        None if number == UNTOLD => "a reason that this release of Go does not tell".to_owned(),
        None => format!("reason {number}"),
    }
}

pub(super) fn signal(number: u32) -> String {
    match (number, signal_name(number)) {
        (SIGURG, _) => "SIGURG (Go's request to give way)".to_owned(),
        (_, Some(name)) => name.to_owned(),
        (_, None) => format!("signal {number}"),
    }
}

impl Task {
    pub(super) fn tid(self) -> u32 {
        self.0[0] as u32
    }

    /// The name as the kernel has it: up to 16 bytes, ended by a zero.
    pub(super) fn name(self) -> String {
        let bytes: Vec<u8> =
            self.0[1..].iter().flat_map(|word| word.to_le_bytes()).take_while(|b| *b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// "bash[123]".
pub(super) fn task(task: Task) -> String {
    match task.tid() {
        0 => "nobody".to_owned(),
        tid => format!("{}[{tid}]", task.name()),
    }
}

/// "thread 12", with its goroutine and its system call.
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

/// A thread whose CPU was taken away.
pub(super) const PREEMPTION: &str = "preempted";

/// How a thread left its CPU.
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
        state if state & PREEMPTED != 0 => format!("CPU {cpu} was taken away, for {follows}"),
        0 => format!("left CPU {cpu} to {follows}, ready to run on"),
        _ => format!("left CPU {cpu} to wait"),
    }
}

/// "read returned 5", "read failed: bad file descriptor".
pub(super) fn returned(name: &str, result: i64) -> String {
    if (-MAX_ERRNO..0).contains(&result) {
        let text = value::errno_text(result.unsigned_abs());
        return text.map_or_else(
            || format!("{name} failed with error {}", -result),
            |t| format!("{name} failed: {t}"),
        );
    }
    // Addresses are told as such.
    match u64::try_from(result) {
        Ok(result) if result >= 1 << 32 => format!("{name} returned {result:#x}"),
        _ => format!("{name} returned {result}"),
    }
}

/// "futex(0xc000052d48, 0x80, 0x0)"; small numbers as such.
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

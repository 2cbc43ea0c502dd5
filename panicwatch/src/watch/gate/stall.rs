//! For tests: blocks the gate's loop once, like a kernel that does not return from opening a file.

use std::{env, thread, time::Duration};

/// Environment variable: milliseconds to block at the first exec.
const STALL_MS: &str = "PANICWATCH_GATE_STALL_MS";

#[derive(Debug)]
pub(super) struct Stall(Option<Duration>);

impl Stall {
    pub(super) fn of_environment() -> Stall {
        let ms = env::var(STALL_MS).ok().and_then(|ms| ms.parse().ok());
        Stall(ms.map(Duration::from_millis))
    }

    /// Called when a permission event was read.
    pub(super) fn at_an_exec(&mut self) {
        if let Some(time) = self.0.take() {
            thread::sleep(time);
        }
    }
}

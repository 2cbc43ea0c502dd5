//! For tests: makes the gate's loop stand still once, as a kernel that does not come back from opening a file would.

use std::{env, thread, time::Duration};

/// Milliseconds to stand still at the first exec.
const STALL_MS: &str = "PANICWATCH_GATE_STALL_MS";

#[derive(Debug)]
pub(super) struct Stall(Option<Duration>);

impl Stall {
    pub(super) fn of_environment() -> Stall {
        let ms = env::var(STALL_MS).ok().and_then(|ms| ms.parse().ok());
        Stall(ms.map(Duration::from_millis))
    }

    /// An exec was read about.
    pub(super) fn at_an_exec(&mut self) {
        if let Some(time) = self.0.take() {
            thread::sleep(time);
        }
    }
}

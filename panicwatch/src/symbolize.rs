//! Symbolizing what comes from files: addresses on standard input, a vmlinux, source files. How is
//! [`panicwatch_core::symbolize`]'s.

pub mod input;
pub mod sources;
pub mod vmlinux;

use std::{num::NonZero, thread};

pub use panicwatch_core::symbolize::*;

/// Threads that resolve many addresses at once: as many as there are cores to run on.
pub fn threads() -> NonZero<usize> {
    thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

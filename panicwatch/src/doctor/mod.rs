//! Checks which features this machine supports: one list for `doctor`, `run` and `attach`.
//!
//! [`Facts::gather`] examines the machine (the only I/O); [`diagnose`] turns the facts into checks, each with
//! its consequence and the remedy. This module does not depend on how probes are attached.
mod bpf;
mod checks;
mod facts;
mod render;

pub use checks::{Able, Check, Diagnosis, Unable, diagnose};
pub use facts::{Facts, Feature};
pub use render::{json, text};

/// Checks that this machine and these permissions allow watching programs at all (exit status 3 when not).
pub fn requirements_for_run() -> Result<(), Unable> {
    diagnose(&Facts::gather()).requirements()
}

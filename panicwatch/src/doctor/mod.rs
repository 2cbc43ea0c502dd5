//! What this machine allows: one list of checks for `doctor`, `run` and `attach`.
//!
//! [`Facts::gather`] asks the machine (the only I/O), [`diagnose`] turns what it found into checks, each with what is
//! lost without it and the remedy. Must not know how probes are placed.
mod bpf;
mod checks;
mod facts;
mod render;

pub use checks::{Able, Check, Diagnosis, Unable, diagnose};
pub use facts::{Facts, Feature};
pub use render::{json, text};

/// Whether this machine and these permissions can run and attach at all (exit status 3 when not).
pub fn requirements_for_run() -> Result<(), Unable> {
    diagnose(&Facts::gather()).requirements()
}

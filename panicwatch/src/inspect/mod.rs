//! Implements `inspect`: describes a Go binary, and what panicwatch can watch in it.
//!
//! [`Inspection`] is computed from the binary's bytes, and from the mappings of a process if one is given.
//! [`text`] renders it for users, [`json`] for programs. Only [`process`] does I/O: it reads /proc.
mod facts;
mod gather;
mod meaning;
pub mod process;
#[cfg(test)]
mod tests;
mod text;

pub use facts::{
    Dependency, Difference, Inspection, Layout, MappedGo, Probe, ProcessFacts, Replacement, Section, Vcs,
};
pub use gather::{inspect, probes};
pub use text::{plan, text};

/// Renders the facts for programs, on one line without a newline.
///
/// # Errors
/// Never in practice: every field can be serialized.
pub fn json(inspection: &Inspection) -> serde_json::Result<String> {
    crate::json::to_string(inspection)
}

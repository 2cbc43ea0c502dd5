//! What a Go binary is, and what of it panicwatch can watch: `inspect`.
//!
//! [`Inspection`] is made of the binary's bytes, and of a process's mappings when one is meant; [`text`] tells it to
//! people, [`json`] to programs. Pure: nothing is opened here, but for [`process`], which asks /proc.
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

/// For programs: one line without its end.
///
/// # Errors
/// None in practice: no field can fail to be written.
pub fn json(inspection: &Inspection) -> serde_json::Result<String> {
    crate::json::to_string(inspection)
}

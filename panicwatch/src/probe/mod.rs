//! Probes: detects kernel features, plans the probe sites of a binary, attaches and detaches.
//!
//! Only this module and the ring reader depend on aya.

pub mod attach;
mod btf;
pub mod calibrate;
mod closing;
mod diagnostics;
pub mod error;
pub mod kernel;
pub mod links;
mod marks;
mod multi;
pub mod object;
mod own;
pub mod rings;
pub mod sources;
pub mod trace;

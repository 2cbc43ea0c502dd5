//! Probes: what the kernel can do, which sites a binary offers, and attaching to them.
//!
//! Only this module and the event reader know aya.

pub mod attach;
mod btf;
pub mod calibrate;
mod closing;
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

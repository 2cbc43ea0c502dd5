//! Probes: what the kernel can do, which sites a binary offers, and attaching to them.
//!
//! [`plan`] is pure; only this module and the event reader know aya.

pub mod attach;
mod btf;
pub mod calibrate;
pub mod error;
pub mod kernel;
mod multi;
pub mod object;
mod own;
pub mod plan;
pub mod rings;
pub mod sources;
pub mod trace;

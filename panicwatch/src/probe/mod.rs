//! Probes: what the kernel can do, which sites a binary offers, and attaching to them.
//!
//! [`plan`] is pure; only this module and the event reader know aya.

#[cfg(feature = "host")]
pub mod attach;
#[cfg(feature = "host")]
mod btf;
#[cfg(feature = "host")]
pub mod calibrate;
#[cfg(feature = "host")]
mod closing;
#[cfg(feature = "host")]
pub mod error;
#[cfg(feature = "host")]
pub mod kernel;
#[cfg(feature = "host")]
pub mod links;
#[cfg(feature = "host")]
mod marks;
#[cfg(feature = "host")]
mod multi;
#[cfg(feature = "host")]
pub mod object;
#[cfg(feature = "host")]
mod own;
pub mod plan;
#[cfg(feature = "host")]
pub mod rings;
#[cfg(feature = "host")]
pub mod sources;
#[cfg(feature = "host")]
pub mod trace;

//! Probes: detects kernel features, plans the probe sites of a binary, attaches and detaches.
//!
//! [`plan`] is pure; only this module and the ring reader depend on aya.

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

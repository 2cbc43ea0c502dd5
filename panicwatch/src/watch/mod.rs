//! Watching programs: launching one, attaching probes to binaries before they run, and reading the event
//! ring.
//!
//! [`armory`] is the probe registry; `gate` attaches probes to binaries that watched processes are about to
//! execute; `follow` attaches them after an exec that the gate did not hold, and to Go libraries that a
//! process loads; `reader` drains the event ring; [`launch`] starts the program; [`session`] connects all of
//! these to the correlator.

pub mod armed;
pub mod armory;
pub mod census;
mod flight;
pub mod follow;
pub mod gate;
pub mod governor;
pub mod helpers;
pub mod host;
pub mod launch;
mod mounts;
mod names;
pub mod reader;
pub mod session;
mod shares;
mod signals;
pub mod tracing;

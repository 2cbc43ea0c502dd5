//! Watching programs: launching one, arming binaries before they run, and reading what the probes say.
//!
//! [`armory`] holds the probes, `gate` arms binaries that watched processes are about to execute, `reader` drains
//! the event ring, [`launch`] starts the program, [`session`] ties them to the correlator.

pub mod armed;
pub mod armory;
pub mod census;
mod flight;
pub mod gate;
pub mod governor;
pub mod launch;
mod names;
pub mod procfs;
pub mod reader;
pub mod session;
mod shares;
pub mod tracing;

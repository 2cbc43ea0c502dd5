//! A Go binary and its runtime: what is true of Go programs whatever is done with them.
//!
//! [`gobin`] reads a binary's tables, [`gotype`] its type descriptors; [`memory`] is the trait behind which a
//! target's memory lies; [`release`] names what differs between Go's releases. Knows
//! Go; must not know processes, probes, or what becomes of it.

pub mod defers;
pub mod disasm;
pub mod gobin;
pub mod gotype;
pub mod inittasks;
pub mod memory;
pub mod pattern;
pub mod raises;
pub mod release;
pub mod traceback;
pub mod value;

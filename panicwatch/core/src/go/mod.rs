//! What is true of Go programs whatever is done with them. Knows Go; must not know processes, probes or incidents.

pub mod pattern;

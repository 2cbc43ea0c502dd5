//! The pure core of panicwatch: bytes, events, times and identifiers go in, values come out.
//!
//! No file, no process, no clock, no randomness: callers pass them in. Every race is a table of events
//! in a test, every damaged file a slice of bytes.
//!
//! 1. [`gobin`](go::gobin) reads a Go binary's tables; [`plan`] plans where probes go in it.
//! 2. [`event`](capture::event) puts ring records together; [`memory`](go::memory) is what was captured of
//!    the process, [`capture`] both seen through the binary.
//! 3. [`correlate`](capture::correlate) makes incidents of events, with [`traceback`](go::traceback) for
//!    stacks, [`defers`](go::defers) for deferred calls, [`gotype`](go::gotype) and [`value`](go::value) for
//!    values, [`disasm`](go::disasm) for instructions, [`raises`](go::raises) for what they check,
//!    [`inittasks`](go::inittasks) for initialisation; [`init_trace`] makes a program's initialisation of the
//!    same events.
//! 4. [`recorder`] and [`timeline`] make of the flight recorder's records what happened before, [`trace`] of
//!    the tracer's records calls of functions.
//! 5. [`incident`] is the document; [`render`] has its forms, [`fingerprint`](incident::fingerprint) groups
//!    it.

#![forbid(unsafe_code)]

pub mod capture;
pub mod clock;
pub mod go;
pub mod incident;
pub mod init_trace;
pub mod mappings;
pub mod plan;
pub mod recorder;
pub mod render;
pub mod symbolize;
pub mod timeline;
pub mod trace;

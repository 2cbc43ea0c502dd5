//! The pure core of panicwatch: bytes, events, times and identifiers go in, values come out.
//!
//! No file, no process, no clock, no randomness; whoever uses it brings them. Every race is a table of events in a test,
//! every damaged file a slice of bytes.
//!
//! 1. [`gobin`] reads a Go binary's tables; [`plan`] plans where probes go in it.
//! 2. [`event`] puts ring records together; [`memory`] is what was captured of the process, [`capture`] both seen
//!    through the binary.
//! 3. [`correlate`] makes incidents of events, with [`traceback`] for stacks, [`defers`] for deferred calls,
//!    [`gotype`] and [`value`] for values, [`disasm`] for instructions, [`raises`] for what they check,
//!    [`inittasks`] for initialisation; [`init_trace`] makes a program's initialisation of the same events.
//! 4. [`recorder`] and [`timeline`] make of the flight recorder's records what happened before, [`trace`] of the
//!    tracer's records calls of functions.
//! 5. [`incident`] is the document; [`render`] has its forms, [`fingerprint`] groups it.

#![forbid(unsafe_code)]

pub mod capture;
pub mod clock;
pub mod correlate;
pub mod defers;
pub mod disasm;
pub mod escape;
pub mod event;
pub mod export;
pub mod fingerprint;
pub mod frame_class;
pub mod go;
pub mod gobin;
pub mod gotype;
pub mod incident;
pub mod init_trace;
pub mod inittasks;
pub mod json;
pub mod mappings;
pub mod memory;
pub mod plan;
pub mod raises;
pub mod recorder;
pub mod render;
pub mod stored;
pub mod symbolize;
pub mod timeline;
pub mod title;
pub mod trace;
pub mod traceback;
pub mod value;

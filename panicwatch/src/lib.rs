//! A flight recorder for Go panics: watches Go programs from outside, with eBPF uprobes.
//!
//! The way of a panic through the modules, in reading order:
//!
//! 1. [`gobin`] reads a Go binary's tables; [`plan`] plans where probes go in it, [`probe`] attaches them, with the
//!    programs of [`ebpf`].
//! 2. [`watch`] starts or finds processes, arms binaries before they run, and drains the ring.
//! 3. [`event`] puts ring records together; [`memory`] is what was captured of the process.
//! 4. [`correlate`] makes incidents of events, with [`traceback`] for stacks, [`defers`] for deferred calls,
//!    [`gotype`] and [`value`] for values, [`disasm`] for instructions, [`raises`] for what they check,
//!    [`inittasks`] for initialisation.
//! 5. [`incident`] is the document; [`render`] renders it for people and programs, [`fingerprint`] groups it.
//! 6. [`init_trace`] makes the time line of a program's initialisation of the same events. [`inspect`] says what a
//!    binary is, [`symbolize`] what a single address is, of Go programs and of the kernel.
//! 7. [`timeline`] is made of the flight recorder's records: what happened in the window before. [`trace`] tells of calls
//!    of functions that the user names, as they happen.
//! 8. [`cli`] has the subcommands, [`doctor`] says what this machine allows.
//!
//! What does no I/O and reads no clock is the crate [`panicwatch_core`]; its modules are here under the same names.

pub mod cli;
pub mod clock;
pub mod config;
pub mod container;
pub mod daemon;
pub mod doctor;
pub mod ebpf;
pub mod gobin;
pub mod helper;
pub mod hook;
pub mod host;
pub mod http;
pub mod inspect;
pub mod jsonl;
pub mod metrics;
pub mod otlp;
pub mod probe;
pub mod status;
pub mod store;
pub mod symbolize;
pub mod top;
pub mod vital;
pub mod watch;
pub mod web;

#[doc(inline)]
pub use panicwatch_core::{
    capture::{self, correlate, event},
    go::{self, defers, disasm, gotype, inittasks, memory, raises, traceback, value},
    incident::{self, escape, fingerprint, frame_class, json, stored, title},
    init_trace, mappings, plan, recorder,
    render::{self, export},
    timeline, trace,
};

//! A flight recorder for Go panics: watches Go programs from outside, with eBPF uprobes.
//!
//! The modules, in the order in which a panic passes through them:
//!
//! 1. [`gobin`] parses a Go binary's tables; [`plan`] plans the probes for it, [`probe`] attaches them, with
//!    the eBPF programs of [`ebpf`].
//! 2. [`watch`] starts or discovers processes, attaches probes to their binaries before they run, and drains
//!    the ring.
//! 3. [`event`] assembles events from ring records; [`memory`] holds what was captured of the process's
//!    memory.
//! 4. [`correlate`] turns events into incidents, with [`traceback`] for stacks, [`defers`] for deferred
//!    calls, [`gotype`] and [`value`] for values, [`disasm`] for instructions, [`raises`] for the checks
//!    those instructions implement, [`inittasks`] for package initialisation.
//! 5. [`incident`] is the incident document; [`render`] renders it, [`fingerprint`] groups incidents.
//! 6. [`init_trace`] builds the timeline of a program's initialisation from the same events. [`inspect`]
//!    describes a binary, [`symbolize`] resolves single addresses, of Go programs and of the kernel.
//! 7. [`timeline`] is built from the flight recorder's records and covers the window before the panic.
//!    [`trace`] reports calls of functions that the user names, as they happen.
//! 8. [`cli`] has the subcommands, [`doctor`] checks what this machine supports.

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

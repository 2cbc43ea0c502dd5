//! A flight recorder for Go panics: watches Go programs from outside, with eBPF uprobes.
//!
//! The modules, in the order in which a panic passes through them:
//!
//! 1. [`gobin`] parses a Go binary's tables; [`plan`] plans the probes for it, [`probe`] attaches them, with the eBPF
//!    programs of [`ebpf`].
//! 2. [`watch`] starts or discovers processes, attaches probes to their binaries before they run, and drains the ring.
//! 3. [`event`] assembles events from ring records; [`memory`] holds what was captured of the process's memory.
//! 4. [`correlate`] turns events into incidents, with [`traceback`] for stacks, [`defers`] for deferred calls,
//!    [`gotype`] and [`value`] for values, [`disasm`] for instructions, [`raises`] for the checks those instructions
//!    implement, [`inittasks`] for package initialisation.
//! 5. [`incident`] is the incident document; [`render`] renders it, [`fingerprint`] groups incidents.
//! 6. [`init_trace`] builds the timeline of a program's initialisation from the same events. [`inspect`] describes a
//!    binary, [`symbolize`] resolves single addresses, of Go programs and of the kernel.
//! 7. [`timeline`] is built from the flight recorder's records and covers the window before the panic. [`trace`]
//!    reports calls of functions that the user names, as they happen.
//! 8. [`cli`] has the subcommands, [`doctor`] checks what this machine supports.

pub mod capture;
#[cfg(feature = "host")]
pub mod cli;
pub mod clock;
#[cfg(feature = "host")]
pub mod config;
#[cfg(feature = "host")]
pub mod container;
pub mod correlate;
#[cfg(feature = "host")]
pub mod daemon;
pub mod defers;
pub mod disasm;
#[cfg(feature = "host")]
pub mod doctor;
#[cfg(feature = "host")]
pub mod ebpf;
pub mod escape;
pub mod event;
pub mod export;
pub mod fingerprint;
pub mod frame_class;
pub mod go;
pub mod gobin;
pub mod gotype;
#[cfg(feature = "host")]
pub mod helper;
#[cfg(feature = "host")]
pub mod hook;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod http;
pub mod incident;
pub mod init_trace;
pub mod inittasks;
#[cfg(feature = "host")]
pub mod inspect;
pub mod json;
#[cfg(feature = "host")]
pub mod jsonl;
pub mod mappings;
pub mod memory;
#[cfg(feature = "host")]
pub mod metrics;
#[cfg(feature = "host")]
pub mod otlp;
pub mod plan;
#[cfg(feature = "host")]
pub mod probe;
pub mod raises;
pub mod recorder;
pub mod render;
#[cfg(feature = "host")]
pub mod status;
#[cfg(feature = "host")]
pub mod store;
pub mod stored;
pub mod symbolize;
pub mod timeline;
pub mod title;
#[cfg(feature = "host")]
pub mod top;
pub mod trace;
pub mod traceback;
pub mod value;
#[cfg(feature = "host")]
pub mod vital;
#[cfg(feature = "host")]
pub mod watch;
#[cfg(feature = "host")]
pub mod web;

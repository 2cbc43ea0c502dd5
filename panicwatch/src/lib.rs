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

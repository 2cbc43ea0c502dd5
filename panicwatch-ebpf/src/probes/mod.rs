//! The programs: uprobes of the Go runtime by topic, and the kernel's tracepoints and sampling.
pub(crate) mod defers;
pub(crate) mod end;
pub(crate) mod fatal;
pub(crate) mod gopanic;
pub(crate) mod init;
pub(crate) mod kernel;
pub(crate) mod process;
pub(crate) mod recover;
pub(crate) mod runtime;
pub(crate) mod sample;
pub(crate) mod sched;
pub(crate) mod signal;

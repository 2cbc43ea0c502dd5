//! Errors of loading, planning and attaching probes.

use std::{io, path::PathBuf};

/// An error while loading, placing or attaching probes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// The object lacks a map or program: the build is broken.
    #[error("the eBPF object has no {0}")]
    Object(&'static str),
    /// The object could not be parsed.
    #[error("the eBPF object is damaged: {0}")]
    Parse(String),
    /// aya could not load the object.
    #[error("cannot load the eBPF programs")]
    Load(#[from] aya::EbpfError),
    /// The kernel rejected a program that aya loaded.
    #[error("the kernel rejected an eBPF program")]
    Program(#[from] aya::programs::ProgramError),
    /// aya could not access a map.
    #[error("cannot use an eBPF map")]
    Map(#[from] aya::maps::MapError),
    /// The verifier rejected a program that we loaded without aya.
    #[error("the kernel rejected eBPF program {name}: {error}; the verifier's last lines: {}", log.trim().replace('\n', " | "))]
    Verifier {
        /// Name of the program.
        name: String,
        /// Error of bpf(2).
        error: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// The kernel did not attach a probe.
    #[error("cannot attach {name} to {}: {error}", path.display())]
    Attach {
        /// Name of the program, with the Go function if one site failed verification.
        name: String,
        /// Path of the binary.
        path: PathBuf,
        /// Error of the system call, or of the check of the file's bytes.
        error: io::Error,
    },
    /// The helper process, which holds the probes, could not be started.
    #[error("cannot start the process that holds the probes: {0}")]
    Helper(io::Error),
    /// The one indispensable probe site, in `runtime.gopanic`, is occupied, for example by a debugger's
    /// breakpoint.
    #[error("no probe can be placed at {symbol} of {}: {reason}; restart panicwatch without it", path.display())]
    Occupied {
        /// Name of the Go function.
        symbol: String,
        /// Path of the binary.
        path: PathBuf,
        /// Why the site cannot be probed.
        reason: String,
    },
    /// One of our threads could not be started; usually file descriptors or threads are exhausted.
    #[error("cannot start the {0}: {1}; raise the limits on open files and processes (ulimit -n, ulimit -u)")]
    Thread(&'static str, io::Error),
    /// More functions match than the tables hold.
    #[error("more than {0} functions match; give a narrower pattern")]
    TooManyFunctions(u32),
    /// The runtime's struct layout breaks the assumptions of the eBPF programs.
    #[error("the layout of its runtime.g matches no known Go release")]
    UnknownLayout,
    /// More binaries are watched than the table holds.
    #[error("more than {0} binaries are watched")]
    TooManyBinaries(u32),
    /// The rings or the sampling clock could not be set up.
    #[error("cannot set up the flight recorder: {0}")]
    Recorder(io::Error),
    /// The kernel cannot record a source of the requested level.
    #[error("{0} is not possible on this kernel: {1}; leave it out with --without {2}")]
    Source(&'static str, Box<ProbeError>, &'static str),
    /// The kernel is too old for the tracepoint of socket sends; every level is recorded without it.
    #[error("Linux before 6.3 has no tracepoint for it")]
    NoSends,
    /// The rings of all CPUs together are too large for one map.
    #[error("the flight recorder's rings of {0} CPUs do not fit into one map: choose a shorter window")]
    TooManyCpus(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_failed_on_one_line() {
        let errno = || io::Error::from_raw_os_error(libc::EMFILE);
        let name = || "gopanic".to_owned();
        let errors = [
            ProbeError::Thread("event ring reader", errno()),
            ProbeError::Attach { name: name(), path: "/bin/x".into(), error: errno() },
            ProbeError::Verifier { name: name(), error: errno(), log: "1: r0 = 0\n2: exit\n".to_owned() },
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(!error.contains("  ") && !error.contains('\n'), "{error:?}");
            assert!(error.contains("Too many open files"), "{error:?}");
        }
    }
}

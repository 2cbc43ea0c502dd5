//! What can go wrong with probes.

use std::{io, path::PathBuf};

/// Loading, placing or attaching probes failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProbeError {
    /// A map or program is missing in the object: the build is broken.
    #[error("the eBPF object has no {0}")]
    Object(&'static str),
    /// The object could not be read.
    #[error("the eBPF object is damaged: {0}")]
    Parse(String),
    /// aya could not load the object.
    #[error("cannot load the eBPF programs")]
    Load(#[from] aya::EbpfError),
    /// A program was refused.
    #[error("the kernel rejected an eBPF program")]
    Program(#[from] aya::programs::ProgramError),
    /// A map could not be used.
    #[error("cannot use an eBPF map")]
    Map(#[from] aya::maps::MapError),
    /// The verifier refused a program that we loaded ourselves.
    #[error("the kernel rejected eBPF program {name}: {error}; the verifier's last lines: {}", log.trim().replace('\n', " | "))]
    Verifier {
        /// Program.
        name: String,
        /// errno.
        error: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
    /// A link could not be made.
    #[error("cannot attach {name} to {}: {error}", path.display())]
    Attach {
        /// Program.
        name: String,
        /// Binary.
        path: PathBuf,
        /// errno.
        error: io::Error,
    },
    /// The process that holds the probes cannot be started.
    #[error("cannot start the process that holds the probes: {0}")]
    Helper(io::Error),
    /// The site without which nothing is to be seen is another's now.
    #[error("no probe can be placed at {symbol} of {}: {reason}; restart panicwatch without it", path.display())]
    Occupied {
        /// Go function.
        symbol: String,
        /// Binary.
        path: PathBuf,
        /// Who has what there.
        reason: String,
    },
    /// One of our threads cannot be started: descriptors or threads are used up, as a rule.
    #[error("cannot start the {0}: {1}; raise the limits on open files and processes (ulimit -n, ulimit -u)")]
    Thread(&'static str, io::Error),
    /// More functions than the tables hold.
    #[error("more than {0} functions match; give a narrower pattern")]
    TooManyFunctions(u32),
    /// Offsets that the programs take for granted do not hold.
    #[error("the layout of its runtime.g matches no known Go release")]
    UnknownLayout,
    /// More binaries than the table holds.
    #[error("more than {0} binaries are watched")]
    TooManyBinaries(u32),
    /// The rings or the sampling clock cannot be had.
    #[error("cannot set up the flight recorder: {0}")]
    Recorder(io::Error),
    /// The kernel cannot record a source of a level that was asked for.
    #[error("{0} is not possible on this kernel: {1}; leave it out with --without {2}")]
    Source(&'static str, Box<ProbeError>, &'static str),
    /// The rings of that many CPUs are too large for one map.
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

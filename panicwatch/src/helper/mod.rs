//! Helper processes: parts of panicwatch that must continue when the main process is killed, stopped or out
//! of memory.
//!
//! A helper is this executable, started again with the helper's title as its only argument and a socket as
//! its standard input. It has its own session, ignores the signals that a terminal or a service manager sends
//! to a process group, and ends when the other end of its socket is closed, which the kernel does however the
//! main process ends. Each [`Kind`] of helper has its own function; this module must not know what they do
//! ([`crate::watch::helpers::serve`]).

pub mod socket;
pub mod spawn;

use std::{
    env,
    ffi::CStr,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _},
    process::ExitCode,
};

pub use socket::{Message, Socket};
pub use spawn::{Child, spawn};

/// Purpose of a helper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attaches and detaches probes.
    Probes,
    /// Answers permission events of the exec gate.
    ExecGate,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Probes, Kind::ExecGate];

    /// Returns the helper's only argument, as `ps` shows it.
    fn title(self) -> &'static str {
        match self {
            Kind::Probes => "panicwatch: probes",
            Kind::ExecGate => "panicwatch: exec gate",
        }
    }

    /// Returns its task name (comm). Differs from that of the main process, so that `killall panicwatch`
    /// spares the helper, which ends in an orderly way right afterwards. At most 15 bytes.
    fn task_name(self) -> &'static CStr {
        match self {
            Kind::Probes => c"pw: probes",
            Kind::ExecGate => c"pw: exec gate",
        }
    }
}

/// Runs as a helper if this process was started as one, and returns its exit status; returns `None`
/// otherwise.
///
/// Runs `serve` if this process is a helper, until the main process has closed its socket.
///
/// Must be the first call in `main` of every program that starts sessions: without it [`spawn`] refuses to
/// start this program again.
pub fn dispatch(serve: fn(Kind, &Socket)) -> Option<ExitCode> {
    spawn::this_program_dispatches();
    let title = env::args_os().next()?;
    let kind = Kind::ALL.into_iter().find(|kind| title.as_bytes() == kind.title().as_bytes())?;
    let input = std::io::stdin();
    if env::args_os().len() != 1 || !socket::is_packet_socket(input.as_fd()) {
        return None;
    }
    let Ok(socket) = spawn::become_helper(kind) else { return Some(ExitCode::FAILURE) };
    serve(kind, &socket);
    Some(ExitCode::SUCCESS)
}

//! Helper processes: parts of panicwatch that must go on when its main process is killed, stopped or out of memory.
//!
//! A helper is this executable, started again with the helper's title as its only argument and a socket as its standard
//! input. It has a session of its own, ignores the signals that a terminal or a service manager sends to a group of
//! processes, and ends when the other end of its socket is closed, which the kernel does however the main process ends.
//! What a helper does is a function of its [`Kind`] ([`crate::watch::helpers::serve`]); this module must not know it.

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

/// What a helper is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Attaches and detaches probes.
    Probes,
    /// Answers execs that wait.
    ExecGate,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Probes, Kind::ExecGate];

    /// The helper's only argument, as `ps` shows it.
    fn title(self) -> &'static str {
        match self {
            Kind::Probes => "panicwatch: probes",
            Kind::ExecGate => "panicwatch: exec gate",
        }
    }

    /// Its name as a task. Differs from the main process's, so that `killall panicwatch` leaves the helper alone: it ends in
    /// order right after. At most 15 bytes.
    fn task_name(self) -> &'static CStr {
        match self {
            Kind::Probes => c"pw: probes",
            Kind::ExecGate => c"pw: exec gate",
        }
    }
}

/// Runs the helper that this process was started as. `None`: it was not started as one, and goes on.
///
/// `serve` runs in the helper until the main process has closed its socket.
///
/// The first call of `main` in every program that starts sessions: without it [`spawn`] refuses to start this program again.
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

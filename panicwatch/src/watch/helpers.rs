//! Which helper process does what.

use super::gate;
use crate::{
    helper::{Kind, Socket},
    probe::links,
};

/// Runs in the helper until the main process has closed its socket. For [`crate::helper::dispatch`].
pub fn serve(kind: Kind, socket: &Socket) {
    match kind {
        Kind::Probes => links::service::serve(socket),
        Kind::ExecGate => gate::process::serve(socket),
    }
}

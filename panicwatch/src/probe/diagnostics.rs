//! Forwards diagnostics of the eBPF programs to panicwatch's own log, at level debug.
//!
//! `panicwatch-ebpf/src/diagnostics.rs` has the sites. Unless the log's level is debug, the programs are
//! loaded without them: the level is a constant of the object, and the verifier removes what it excludes.

use aya::{Ebpf, EbpfLoader};
use aya_log::{EbpfLogger, LEVEL, Level};
use log::Log;

use super::error::ProbeError;

/// Map of the diagnostics, and its size in bytes when they are off: the kernel requires a page.
pub(super) const MAP: &str = "AYA_LOGS";
const UNUSED_BYTES: u32 = 4096;
/// Target of the log records: the crate of the programs.
const TARGET: &str = "panicwatch_ebpf";

static OFF: u8 = 0;
static DEBUG: u8 = Level::Debug as u8;

/// Sets the level of the programs to that of the log.
pub(super) fn set_level(loader: &mut EbpfLoader<'_>) {
    if log::log_enabled!(target: TARGET, log::Level::Debug) {
        loader.override_global(LEVEL, &DEBUG, true);
    } else {
        loader.override_global(LEVEL, &OFF, true);
        loader.map_max_entries(MAP, UNUSED_BYTES);
    }
}

/// Reader of the diagnostics.
pub(super) type Diagnostics = EbpfLogger<&'static dyn Log>;

/// Takes the map of the diagnostics out of `ebpf`.
pub(super) fn take(ebpf: &mut Ebpf) -> Result<Diagnostics, ProbeError> {
    EbpfLogger::init(ebpf).map_err(|_| ProbeError::Object(MAP))
}

//! Gives up the privileges that watching does not need.
//!
//! What each is needed for: <https://man7.org/linux/man-pages/man7/capabilities.7.html>; memory of maps was locked memory
//! before <https://lore.kernel.org/bpf/20201201215900.3569844-1-guro@fb.com/>.
//!
//! To be called while there is one thread only: capabilities belong to threads, and later ones inherit.

use caps::{CapSet, Capability, CapsHashSet};

/// What is needed for as long as we run, and what for.
pub const NEEDED: [(Capability, &str); 6] = [
    (Capability::CAP_BPF, "loading programs and maps"),
    (Capability::CAP_PERFMON, "uprobes, tracepoints and sampling"),
    (Capability::CAP_SYS_PTRACE, "reading /proc of other users' processes"),
    (Capability::CAP_DAC_READ_SEARCH, "reading their executables"),
    (
        Capability::CAP_SYS_ADMIN,
        "probes in binaries of other mount namespaces, and holding an exec (fanotify)",
    ),
    (Capability::CAP_SYS_RESOURCE, "locked memory of maps before Linux 5.11"),
];

/// Drops all others, for us and for whatever we start.
///
/// # Errors
/// A sentence, when the kernel refuses.
pub fn drop_others() -> Result<(), String> {
    let failed = |error: caps::errors::CapsError| format!("cannot drop privileges: {error}");
    let needed: CapsHashSet = NEEDED.iter().map(|(capability, _)| *capability).collect();
    let may_bound = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)?;
    if may_bound {
        for capability in caps::read(None, CapSet::Bounding).map_err(failed)? {
            if !needed.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
    }
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        let held = caps::read(None, set).map_err(failed)?;
        let kept: CapsHashSet = held.intersection(&needed).copied().collect();
        caps::set(None, set, &kept).map_err(failed)?;
    }
    Ok(())
}

//! Drops the privileges that watching does not need.
//!
//! Meaning of the capabilities: <https://man7.org/linux/man-pages/man7/capabilities.7.html>. Memory of BPF
//! maps counted as locked memory before <https://lore.kernel.org/bpf/20201201215900.3569844-1-guro@fb.com/>.
//!
//! Must be called while the process has a single thread: capabilities belong to threads, and later threads
//! inherit them.

use caps::{CapSet, Capability, CapsHashSet};

/// Capabilities that the daemon needs permanently, with the reason.
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

/// Drops all other capabilities of this process and of every process it starts.
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

//! Attaches a probe plan to a file and detaches it.
//!
//! Probes are attached per inode, for every process that maps the file: a probe with a pid filter slows all
//! of them just as much. The eBPF programs look up whether a process is watched.

use std::{collections::BTreeSet, fs::File, io, mem, os::unix::fs::FileExt, path::Path};

use panicwatch_common::binary::{Binary, cookie};

use super::{
    calibrate::OWN_ROW,
    closing::{self, Link},
    error::ProbeError,
    links::{self, Target},
    object::Programs,
};
use crate::{
    gobin::GoBinary,
    plan::{self, LeftOut, ProbePlan, Site},
};

/// Probes attached to one file. Dropping detaches them.
pub struct Attached(Vec<Link>);

impl Drop for Attached {
    fn drop(&mut self) {
        closing::close(mem::take(&mut self.0));
    }
}

impl Attached {
    /// Detaches all of these in parallel.
    pub fn close(all: Vec<Attached>) {
        closing::close(all.into_iter().flat_map(Attached::into_links).collect());
    }

    pub(super) fn into_links(mut self) -> Vec<Link> {
        mem::take(&mut self.0)
    }
}

/// Returns the row of the `BINARIES` map for `bin`. Programs that copy no values need no `plan`.
///
/// `None` if the runtime's struct layout breaks the assumptions of the eBPF programs
/// ([`panicwatch_common::go`]).
pub fn binary_row(bin: &GoBinary, plan: Option<&ProbePlan>, watch_all: bool) -> Option<Binary> {
    let layout = bin.layout();
    let mut sites = plan.into_iter().flat_map(|plan| &plan.sites);
    let gopanic = sites.find(|site| site.program == "gopanic").map_or(0, |site| site.address);
    let constant = bin.constant_range(gopanic);
    // If a range exceeds 4 GiB, its distance is 0, and the binary's constants are copied.
    let distance = |from: u64, to: u64| u32::try_from(to - from).unwrap_or(0);
    layout.has_fixed_offsets().then(|| Binary {
        watch_all: u32::from(watch_all),
        g_goid: layout.g.goid.into(),
        m_curg: layout.m.curg.into(),
        panic_link: layout.panic.link.into(),
        panic_recovered: layout.panic.recovered.into(),
        panic_arg: layout.panic.arg.into(),
        defer_link: layout.defer.link.into(),
        defer_fn: layout.defer.fn_.into(),
        g_labels: layout.g.labels.into(),
        label_list: u32::from(layout.release.labels_are_list()),
        g_sched_sp: layout.g.sched_sp.into(),
        g_syscallsp: layout.g.syscallsp.into(),
        m_p: layout.m.p.into(),
        tls_g: plan::tls_g(bin).unwrap_or(0),
        g_startpc: layout.g.startpc.into(),
        g_gopc: layout.g.gopc.into(),
        image_below: distance(constant.start, gopanic),
        image_above: distance(gopanic, constant.end),
        g_ancestors: layout.g.ancestors.into(),
        g_tracking_seq: layout.g.tracking_seq.into(),
    })
}

/// Returns why a binary that was parsed cannot be watched; `None` if it can.
pub fn obstacle(bin: &GoBinary, plan: &ProbePlan) -> Option<String> {
    if !plan.is_useful() {
        let first = plan.left_out.first();
        return Some(first.map_or_else(String::new, |left| format!("{}: {}", left.symbol, left.reason)));
    }
    let refused = binary_row(bin, Some(plan), false).is_none();
    refused.then(|| "the layout of its runtime.g matches no known Go release".to_owned())
}

/// Returns `plan` without the sites that cannot be probed now: a debugger has set a breakpoint there, or a
/// running process has modified its code. They are listed as left out, with the reason, for as long as these
/// probes are attached.
///
/// # Errors
/// Fails if the `gopanic` site is one of them: nothing would be left to record.
pub fn admitted(mut plan: ProbePlan, file: &File, name: &Path) -> Result<ProbePlan, ProbeError> {
    let was_useful = plan.is_useful();
    let sites = plan.sites.iter().map(|site| (site.file_offset, site.bytes.clone())).collect();
    let mut refused = links::refused(Target { file, name }, sites);
    let (sites, out): (Vec<Site>, Vec<Site>) =
        plan.sites.into_iter().partition(|site| !refused.contains_key(&site.file_offset));
    plan.sites = sites;
    if let Some(site) = out.iter().find(|site| was_useful && site.program == "gopanic") {
        let reason = refused.remove(&site.file_offset).unwrap_or_default();
        return Err(ProbeError::Occupied { symbol: site.symbol.clone(), path: name.to_owned(), reason });
    }
    plan.left_out.extend(out.into_iter().map(|site| LeftOut {
        name: site.name,
        symbol: site.symbol,
        reason: refused.get(&site.file_offset).cloned().unwrap_or_default(),
        lost: "what this probe would have recorded",
    }));
    Ok(plan)
}

/// Attaches `plan` to the opened `file`, as row `index`.
///
/// The file is addressed by its descriptor, so it cannot be replaced between verification and attaching.
pub fn attach(
    programs: &mut Programs,
    plan: &ProbePlan,
    file: &File,
    name: &Path,
    index: u32,
) -> Result<Attached, ProbeError> {
    if index >= OWN_ROW {
        return Err(ProbeError::TooManyBinaries(OWN_ROW));
    }
    attach_row(programs, plan, file, name, index)
}

/// Like [`attach`], for any row, including the reserved one.
pub(super) fn attach_row(
    programs: &mut Programs,
    plan: &ProbePlan,
    file: &File,
    name: &Path,
    index: u32,
) -> Result<Attached, ProbeError> {
    for site in &plan.sites {
        verify(file, name, site)?;
    }
    let mut attached = Attached(Vec::new());
    let programs_of_plan: BTreeSet<&'static str> = plan.sites.iter().map(|site| site.program).collect();
    for program in programs_of_plan {
        let sites: Vec<(u64, u64)> = plan
            .sites
            .iter()
            .filter(|site| site.program == program)
            .map(|site| (site.file_offset, cookie(index, site.flags)))
            .collect();
        let failed = |error| ProbeError::Attach { name: program.to_owned(), path: name.to_owned(), error };
        let links = programs.attach_uprobes(program, Target { file, name }, &sites)?.map_err(failed)?;
        attached.0.extend(links.into_iter().map(Link::Held));
    }
    Ok(attached)
}

/// Checks that the file still has the decoded bytes at the site.
fn verify(file: &File, name: &Path, site: &Site) -> Result<(), ProbeError> {
    same_bytes(file, site.file_offset, &site.bytes).map_err(|error| ProbeError::Attach {
        name: format!("{} to {}", site.program, site.symbol),
        path: name.to_owned(),
        error,
    })
}

/// Returns an error if the file does not have `bytes` at `offset` any more.
pub(super) fn same_bytes(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    let mut found = vec![0; bytes.len()];
    file.read_exact_at(&mut found, offset)?;
    if found != bytes {
        return Err(io::Error::other("its code changed since it was read; start panicwatch again"));
    }
    Ok(())
}

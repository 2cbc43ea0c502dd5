//! Attaches a probe plan to a file and detaches it.
//!
//! Probes are attached per inode, for every process that maps the file: a probe with a pid filter slows all
//! of them just as much. The eBPF programs look up whether a process is watched.

use std::{collections::BTreeMap, fs::File, io, mem, os::unix::fs::FileExt, path::Path};

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

/// Removes the sites that cannot be probed now from `plans`: a debugger has set a breakpoint there, or a
/// running process has modified its code. They are listed as left out, with the reason, for as long as these
/// probes are attached. All plans are for `file`, whose processes are compared with it once.
///
/// # Errors
/// Fails if the `gopanic` site is one of them: nothing would be left to record.
pub fn admit(plans: &mut [ProbePlan], file: &File, name: &Path) -> Result<(), ProbeError> {
    let sites = plans.iter().flat_map(|plan| &plan.sites);
    let sites = sites.map(|site| (site.file_offset, site.bytes.clone())).collect();
    let refused = links::refused(Target { file, name }, sites);
    plans.iter_mut().try_for_each(|plan| leave_out(plan, &refused, name))
}

/// Removes the sites at the offsets `refused` from a plan.
fn leave_out(plan: &mut ProbePlan, refused: &BTreeMap<u64, String>, name: &Path) -> Result<(), ProbeError> {
    let was_useful = plan.is_useful();
    let (sites, out): (Vec<Site>, Vec<Site>) =
        mem::take(&mut plan.sites).into_iter().partition(|site| !refused.contains_key(&site.file_offset));
    plan.sites = sites;
    let reason = |site: &Site| refused.get(&site.file_offset).cloned().unwrap_or_default();
    if let Some(site) = out.iter().find(|site| was_useful && site.program == "gopanic") {
        let (symbol, path) = (site.symbol.clone(), name.to_owned());
        return Err(ProbeError::Occupied { symbol, path, reason: reason(site) });
    }
    plan.left_out.extend(out.into_iter().map(|site| LeftOut {
        reason: reason(&site),
        name: site.name,
        symbol: site.symbol,
        lost: "what this probe would have recorded",
    }));
    Ok(())
}

/// Attaches `plans` to the opened `file`, as row `index`: all of them, or none. Returns the probes of each
/// plan.
///
/// The file is addressed by its descriptor, so it cannot be replaced between verification and attaching.
pub fn attach(
    programs: &mut Programs,
    plans: &[ProbePlan],
    file: &File,
    name: &Path,
    index: u32,
) -> Result<Vec<Attached>, ProbeError> {
    if index >= OWN_ROW {
        return Err(ProbeError::TooManyBinaries(OWN_ROW));
    }
    attach_row(programs, plans, file, name, index)
}

/// Like [`attach`], for any row, including the reserved one.
pub(super) fn attach_row(
    programs: &mut Programs,
    plans: &[ProbePlan],
    file: &File,
    name: &Path,
    index: u32,
) -> Result<Vec<Attached>, ProbeError> {
    for site in plans.iter().flat_map(|plan| &plan.sites) {
        verify(file, name, site)?;
    }
    // One request for all: the kernel waits for an RCU grace period, some 15 ms, before the first of several
    // probes that are attached in immediate succession.
    // https://github.com/torvalds/linux/blob/v6.12/kernel/events/uprobes.c (register_for_each_vma,
    // percpu_down_write)
    let (groups, plan_of): (Vec<_>, Vec<usize>) = groups(plans, index).into_iter().unzip();
    let names: Vec<&'static str> = groups.iter().map(|(program, _)| *program).collect();
    let links = programs.attach_uprobes(Target { file, name }, groups)?.map_err(|refused| {
        let program = names.get(refused.group).copied().unwrap_or_default();
        ProbeError::Attach { name: program.to_owned(), path: name.to_owned(), error: refused.error }
    })?;
    let mut attached: Vec<Attached> = plans.iter().map(|_| Attached(Vec::new())).collect();
    for (links, plan) in links.into_iter().zip(plan_of) {
        if let Some(attached) = attached.get_mut(plan) {
            attached.0.extend(links.into_iter().map(Link::Held));
        }
    }
    Ok(attached)
}

/// Program, and the file offsets and cookies of its sites.
type Group = (&'static str, Vec<(u64, u64)>);

/// Returns the sites of each program of each plan, with the index of the plan.
fn groups(plans: &[ProbePlan], index: u32) -> Vec<(Group, usize)> {
    let mut groups = Vec::new();
    for (i, plan) in plans.iter().enumerate() {
        let mut by_program: BTreeMap<&'static str, Vec<(u64, u64)>> = BTreeMap::new();
        for site in &plan.sites {
            by_program.entry(site.program).or_default().push((site.file_offset, cookie(index, site.flags)));
        }
        groups.extend(by_program.into_iter().map(|group| (group, i)));
    }
    groups
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

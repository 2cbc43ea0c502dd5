//! eBPF programs and maps of the `trace` command: loading, attaching, counters, detaching functions.
//!
//! Separate from the probes of the panic path and loaded for `trace` only. Does not interpret the records.

mod price;
mod rings;

use std::{
    ffi::CString,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use aya::{
    Pod,
    maps::{Array, MapData, PerCpuArray, RingBuf},
};
use panicwatch_common::trace::{Counts, FetchList, ON_STACK_CHECK, Slot, TraceConfig, cookie};

use super::{
    attach::same_bytes,
    closing::{Link, close},
    error::ProbeError,
    kernel::KernelFacts,
    links::{self, Target},
    multi,
    object::{Crossing, Programs},
    rings::cpus,
};
use crate::plan::trace::{Tells, TracePlan, TraceSite};

pub use price::HitPrices;
pub use rings::TraceRings;

// SAFETY: `TraceConfig` consists of integers without padding: any bytes are a valid value.
unsafe impl Pod for Crossing<TraceConfig> {}
// SAFETY: `Counts` consists of integers without padding, too.
unsafe impl Pod for Crossing<Counts> {}
// SAFETY: `FetchList` consists of integers without padding, too.
unsafe impl Pod for Crossing<FetchList> {}

const ENTRY: &str = "trace_entry";
const EXIT: &str = "trace_exit";
const ENTRY_FULL: &str = "trace_entry_full";
const EXIT_FULL: &str = "trace_exit_full";
/// Program at `runtime.recovery`.
pub const RECOVERY: &str = "trace_recovery";
/// Program at `runtime.goexit0`.
pub const GONE: &str = "trace_gone";

/// Where the programs write their records.
pub enum Source {
    /// Rings per CPU, in a session that records no data.
    Rings(TraceRings),
    /// The one ring of a session that records data.
    Ring(RingBuf<MapData>),
}

impl Source {
    fn throw_away(&mut self) {
        match self {
            Source::Rings(rings) => (0..rings.cpus()).for_each(|cpu| {
                rings.take(cpu, |_| {});
            }),
            Source::Ring(ring) => while ring.next().is_some() {},
        }
    }
}

/// Requirements of a tracing session.
#[derive(Debug, Clone, Default)]
pub struct TraceNeeds {
    /// Bytes to buffer unread records, a power of two.
    pub buffer: u32,
    /// Number of functions, including those watched for internal purposes.
    pub functions: u32,
    /// Whether entries are recorded with data or callers.
    pub full_entries: bool,
    /// Whether exits are recorded.
    pub exits: bool,
    /// Whether exits are recorded with data.
    pub full_exits: bool,
}

/// The loaded tracing programs and their maps.
pub struct TracePrograms {
    programs: Programs,
    full_entries: bool,
    full_exits: bool,
    /// Number of traced functions; our own function for cost measurement has the next index.
    functions: u32,
    /// Number of CPUs, and slots in the ring of each; `None` in a session with data.
    rings: Option<(u32, u32)>,
}

/// Fewest slots in the ring of a CPU: as many as it can have hits in some twenty milliseconds.
const LEAST_SLOTS: u32 = 1 << 15;

impl TraceNeeds {
    fn has_data(&self) -> bool {
        self.full_entries || self.full_exits
    }

    /// Returns the number of CPUs, and the slots in the ring of each.
    fn rings(&self) -> Result<Option<(u32, u32)>, ProbeError> {
        if self.has_data() {
            return Ok(None);
        }
        let cpus = cpus()?;
        let slots = self.buffer / size_of::<Slot>() as u32 / cpus;
        let slots = if slots > LEAST_SLOTS { 1 << slots.ilog2() } else { LEAST_SLOTS };
        Ok(Some((cpus, slots)))
    }
}

impl TracePrograms {
    /// Loads the programs and maps that `needs` require.
    ///
    /// # Errors
    /// Fails if the kernel rejects a program or map.
    pub fn load(needs: &TraceNeeds) -> Result<TracePrograms, ProbeError> {
        let mut names = vec![if needs.full_entries { ENTRY_FULL } else { ENTRY }];
        if needs.exits {
            names.extend([if needs.full_exits { EXIT_FULL } else { EXIT }, RECOVERY, GONE]);
        }
        let functions = needs.functions.max(1);
        let rows = functions + 1;
        let lists = if needs.has_data() { rows * 2 } else { 1 };
        let rings = needs.rings()?;
        let (cpus, slots) = rings.unwrap_or((1, 1));
        let all_slots = cpus.checked_mul(slots).ok_or(ProbeError::TooManyCpus(cpus))?;
        let sizes = [
            // Process events, which are always recorded; not read in this session.
            ("EVENTS", 4096),
            ("TRACE_RING", if needs.has_data() { needs.buffer } else { 4096 }),
            ("TRACE_SLOTS", all_slots),
            ("TRACE_HEADS", cpus),
            ("TRACE_COUNTS", rows),
            ("TRACE_FETCH", lists),
        ];
        let programs = Programs::load_some(&KernelFacts::detect(), &names, &sizes)?;
        let (full_entries, full_exits) = (needs.full_entries, needs.full_exits);
        Ok(TracePrograms { programs, full_entries, full_exits, functions, rings })
    }

    /// Writes the settings; may be called at any time.
    ///
    /// # Errors
    /// Fails if the map cannot be updated.
    pub fn configure(&mut self, mut config: TraceConfig) -> Result<(), ProbeError> {
        config.slot_mask = self.rings.map_or(0, |(_, slots)| slots - 1);
        let mut map: Array<_, Crossing<TraceConfig>> = self.programs.map("TRACE_CONFIG")?.try_into()?;
        Ok(map.set(0, Crossing(config), 0)?)
    }

    /// Sets what to read at the entry of a function or, with `at_exit`, at its exits.
    ///
    /// # Errors
    /// Fails if the map cannot be updated.
    pub fn set_fetch(&mut self, function: u32, at_exit: bool, list: FetchList) -> Result<(), ProbeError> {
        let mut map: Array<_, Crossing<FetchList>> = self.programs.map("TRACE_FETCH")?.try_into()?;
        Ok(map.set(function * 2 + u32::from(at_exit), Crossing(list), 0)?)
    }

    /// Returns the rings that the programs write to. Can be called once.
    ///
    /// # Errors
    /// Fails if the ring was taken before or cannot be mapped.
    pub fn take_source(&mut self) -> Result<Source, ProbeError> {
        let Some((cpus, slots)) = self.rings else {
            return Ok(Source::Ring(self.programs.take_ring("TRACE_RING")?));
        };
        let (heads, records) =
            (self.programs.array_fd("TRACE_HEADS")?, self.programs.array_fd("TRACE_SLOTS")?);
        let rings = TraceRings::map(cpus, slots, heads, records);
        Ok(Source::Rings(rings.map_err(ProbeError::Recorder)?))
    }

    /// Traces process `tgid` and its future descendants that run the same binary.
    ///
    /// # Errors
    /// Fails if the table of watched processes is full.
    pub fn watch(&mut self, tgid: u32) -> Result<(), ProbeError> {
        self.programs.watch(tgid, None)
    }

    /// Removes process `tgid` from the table of watched processes; its descendants stay.
    ///
    /// # Errors
    /// Fails if the process was not in the table.
    pub fn unwatch(&mut self, tgid: u32) -> Result<(), ProbeError> {
        self.programs.unwatch(tgid)
    }

    /// Returns the counters of every function, by its index.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn counts(&mut self) -> Result<Vec<Counts>, ProbeError> {
        let map: PerCpuArray<_, Crossing<Counts>> = self.programs.map("TRACE_COUNTS")?.try_into()?;
        (0..self.functions)
            .map(|function| {
                let mut sum = Counts::default();
                for Crossing(cpu) in map.get(&function, 0)?.iter() {
                    sum.entries += cpu.entries;
                    sum.exits += cpu.exits;
                    sum.lost_entries += cpu.lost_entries;
                    sum.lost_exits += cpu.lost_exits;
                }
                Ok(sum)
            })
            .collect()
    }

    /// Attaches a plan to the opened `file`, and the `extra` programs at their own sites.
    ///
    /// # Errors
    /// Fails if the file differs from the one that was planned for, or the kernel rejects a probe.
    pub fn attach(
        &mut self,
        plan: &TracePlan,
        extra: &[(&'static str, TraceSite)],
        file: &File,
        name: &Path,
    ) -> Result<TraceProbes, ProbeError> {
        for site in plan.sites.iter().chain(extra.iter().map(|(_, site)| site)) {
            same_bytes(file, site.file_offset, &site.bytes).map_err(|error| ProbeError::Attach {
                name: plan.functions.get(site.function as usize).map_or("", |f| &f.symbol).to_owned(),
                path: name.to_owned(),
                error,
            })?;
        }
        let sites = plan.sites.iter().chain(extra.iter().map(|(_, site)| site));
        let sites = sites.map(|site| (site.file_offset, site.bytes.clone())).collect();
        let occupied = links::refused(Target { file, name }, sites);
        let is_free = |site: &TraceSite| !occupied.contains_key(&site.file_offset);
        let mut probes = TraceProbes {
            file: file.try_clone().map_err(|error| failed("trace", name, error))?,
            name: name.to_owned(),
            multi: Vec::new(),
            perf: Vec::new(),
            refused: Vec::new(),
        };
        let reasons = plan.sites.iter().map(|site| (site.function, occupied.get(&site.file_offset)));
        probes.refused.extend(reasons.filter_map(|(function, reason)| Some((function, reason?.clone()))));
        probes.refused.dedup();
        let (entry, exit) = (
            if self.full_entries { ENTRY_FULL } else { ENTRY },
            if self.full_exits { EXIT_FULL } else { EXIT },
        );
        let of = |entries: bool| -> Vec<TraceSite> {
            let wanted = |site: &&TraceSite| (site.tells == Tells::Entry) == entries && is_free(site);
            plan.sites.iter().filter(wanted).cloned().collect()
        };
        for (program, site) in extra.iter().filter(|(_, site)| is_free(site)) {
            probes.add(self, program, vec![site.clone()])?;
        }
        // Exits first, so that calls that begin while probes are being attached have an end.
        probes.add(self, exit, of(false))?;
        probes.add(self, entry, of(true))?;
        Ok(probes)
    }
}

fn failed(program: &str, path: &Path, error: io::Error) -> ProbeError {
    ProbeError::Attach { name: program.to_owned(), path: path.to_owned(), error }
}

struct Group {
    program: &'static str,
    sites: Vec<TraceSite>,
    link: links::Link,
}

/// Attached tracing probes; dropping detaches them.
pub struct TraceProbes {
    file: File,
    name: PathBuf,
    multi: Vec<Group>,
    perf: Vec<(u32, links::Link)>,
    refused: Vec<(u32, String)>,
}

impl Drop for TraceProbes {
    fn drop(&mut self) {
        let multi = self.multi.drain(..).map(|group| Link::Held(group.link));
        let perf = self.perf.drain(..).map(|(_, link)| Link::Held(link));
        close(multi.chain(perf).collect());
    }
}

impl TraceProbes {
    /// Returns the functions that have a site without a probe, each with the reason.
    pub fn refused(&self) -> &[(u32, String)] {
        &self.refused
    }

    /// Detaches the probes of `functions`. Functions that share a link with them may miss calls for the few
    /// milliseconds that this takes.
    ///
    /// # Errors
    /// Fails if the kernel does not attach the remaining functions again.
    pub fn detach(&mut self, programs: &mut TracePrograms, functions: &[u32]) -> Result<(), ProbeError> {
        let gone = |site: &TraceSite| functions.contains(&site.function);
        let (hit, rest): (Vec<Group>, Vec<Group>) =
            self.multi.drain(..).partition(|group| group.sites.iter().any(gone));
        self.multi = rest;
        let parts = |Group { program, sites, link }| (Link::Held(link), (program, sites));
        let (links, sites): (Vec<Link>, Vec<_>) = hit.into_iter().map(parts).unzip();
        close(links);
        for (program, mut sites) in sites {
            sites.retain(|site| !gone(site));
            self.add(programs, program, sites)?;
        }
        let (off, rest) = self.perf.drain(..).partition(|(function, _)| functions.contains(function));
        self.perf = rest;
        let off: Vec<(u32, links::Link)> = off;
        close(off.into_iter().map(|(_, link)| Link::Held(link)).collect());
        Ok(())
    }

    fn add(
        &mut self,
        programs: &mut TracePrograms,
        program: &'static str,
        sites: Vec<TraceSite>,
    ) -> Result<(), ProbeError> {
        if sites.is_empty() {
            return Ok(());
        }
        let one_link = programs.programs.has_multi();
        // One instruction that the kernel cannot probe makes the whole call fail: it is located by bisection.
        let mut waiting = vec![sites];
        while let Some(mut sites) = waiting.pop() {
            let target = Target { file: &self.file, name: &self.name };
            let places: Vec<_> = sites.iter().map(|site| (site.file_offset, site_cookie(site))).collect();
            let attached = programs.programs.attach_uprobes(target, vec![(program, places)])?;
            match attached.map(|links| links.into_iter().flatten()).map_err(|refused| refused.error) {
                Ok(links) if one_link => {
                    self.multi.extend(links.map(|link| Group { program, sites: sites.clone(), link }));
                }
                Ok(links) => {
                    let functions = sites.iter().map(|site| site.function);
                    self.perf.extend(functions.zip(links));
                }
                Err(error) if !refuses_instruction(&error) => {
                    return Err(failed(program, &self.name, error));
                }
                Err(_) if sites.len() == 1 => {
                    let reason = || "the kernel accepts no probe in its code".to_owned();
                    self.refused.extend(sites.iter().map(|site| (site.function, reason())));
                }
                Err(_) => {
                    let half = sites.split_off(sites.len() / 2);
                    waiting.extend([half, sites]);
                }
            }
        }
        Ok(())
    }
}

fn site_cookie(site: &TraceSite) -> u64 {
    cookie(site.function, if site.on_check { ON_STACK_CHECK } else { 0 }, site.below)
}

/// Reports whether the kernel cannot probe an instruction: ENOTSUPP, which has no name outside the kernel, or
/// an error that other kernels return.
fn refuses_instruction(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::ENOEXEC | libc::EINVAL))
}

/// A no-op program attached to some offsets of a file: the baseline that other programs are compared with.
pub struct EmptyProbe {
    _link: OwnedFd,
}

impl EmptyProbe {
    /// Attaches the program at `file_offsets` of `path`.
    ///
    /// # Errors
    /// Fails if the kernel rejects the link or has no uprobe_multi links.
    pub fn attach(path: &Path, file_offsets: &[u64]) -> io::Result<EmptyProbe> {
        let sites: Vec<_> = file_offsets.iter().map(|offset| (*offset, 0)).collect();
        let path = CString::new(path.as_os_str().as_bytes())?;
        multi::attach(&multi::empty_program()?, &path, &sites).map(|link| EmptyProbe { _link: link })
    }
}

//! The programs and maps of tracing in the kernel: loading, attaching, counters, taking functions off.
//!
//! Beside the probes of the panic path, not among them: what is here is loaded for `trace` only. Must not know what
//! the records mean.

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
    plan::trace::{Tells, TracePlan, TraceSite},
    rings::cpus,
};

pub use price::HitPrices;
pub use rings::TraceRings;

// SAFETY: `TraceConfig` consists of integers without padding: any bytes are a value.
unsafe impl Pod for Crossing<TraceConfig> {}
// SAFETY: so does `Counts`.
unsafe impl Pod for Crossing<Counts> {}
// SAFETY: so does `FetchList`.
unsafe impl Pod for Crossing<FetchList> {}

const ENTRY: &str = "trace_entry";
const EXIT: &str = "trace_exit";
const ENTRY_FULL: &str = "trace_entry_full";
const EXIT_FULL: &str = "trace_exit_full";
/// `runtime.recovery`.
pub const RECOVERY: &str = "trace_recovery";
/// `runtime.goexit0`.
pub const GONE: &str = "trace_gone";

/// Where the records are.
pub enum Source {
    /// Of a session without data: a ring a CPU.
    Rings(TraceRings),
    /// Of one with data.
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

/// What a session of tracing needs.
#[derive(Debug, Clone, Default)]
pub struct TraceNeeds {
    /// Bytes for records that wait, a power of two.
    pub buffer: u32,
    /// Functions, those that are watched for themselves included.
    pub functions: u32,
    /// Entries with data or callers.
    pub full_entries: bool,
    /// Exits.
    pub exits: bool,
    /// Exits with data.
    pub full_exits: bool,
}

/// The programs in the kernel, not yet attached.
pub struct TracePrograms {
    programs: Programs,
    full_entries: bool,
    full_exits: bool,
    /// Our own function has the number behind them.
    functions: u32,
    /// CPUs, and the slots of each one's ring; `None` in a session with data.
    rings: Option<(u32, u32)>,
}

/// The smallest ring of a CPU: as many hits as it can have in some twenty milliseconds.
const LEAST_SLOTS: u32 = 1 << 15;

impl TraceNeeds {
    fn has_data(&self) -> bool {
        self.full_entries || self.full_exits
    }

    /// CPUs, and the slots of each one's ring.
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
    /// Loads what is needed.
    ///
    /// # Errors
    /// When the kernel refuses.
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
            // Nobody reads it here: the events of processes, which cannot be left out.
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

    /// Settings; may be changed at any time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn configure(&mut self, mut config: TraceConfig) -> Result<(), ProbeError> {
        config.slot_mask = self.rings.map_or(0, |(_, slots)| slots - 1);
        let mut map: Array<_, Crossing<TraceConfig>> = self.programs.map("TRACE_CONFIG")?.try_into()?;
        Ok(map.set(0, Crossing(config), 0)?)
    }

    /// What to read at the entry, or else at the exits, of a function.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_fetch(&mut self, function: u32, at_exit: bool, list: FetchList) -> Result<(), ProbeError> {
        let mut map: Array<_, Crossing<FetchList>> = self.programs.map("TRACE_FETCH")?.try_into()?;
        Ok(map.set(function * 2 + u32::from(at_exit), Crossing(list), 0)?)
    }

    /// What the programs write into, once.
    ///
    /// # Errors
    /// When it was taken before, or there is no memory to map.
    pub fn take_source(&mut self) -> Result<Source, ProbeError> {
        let Some((cpus, slots)) = self.rings else {
            return Ok(Source::Ring(self.programs.take_ring("TRACE_RING")?));
        };
        let (heads, records) =
            (self.programs.array_fd("TRACE_HEADS")?, self.programs.array_fd("TRACE_SLOTS")?);
        let rings = TraceRings::map(cpus, slots, heads, records);
        Ok(Source::Rings(rings.map_err(ProbeError::Recorder)?))
    }

    /// Traces process `tgid`, and what it will start of the same binary.
    ///
    /// # Errors
    /// When the table is full.
    pub fn watch(&mut self, tgid: u32) -> Result<(), ProbeError> {
        self.programs.watch(tgid, None)
    }

    /// Takes process `tgid` out of the table; what it has started stays.
    ///
    /// # Errors
    /// When it was not in it.
    pub fn unwatch(&mut self, tgid: u32) -> Result<(), ProbeError> {
        self.programs.unwatch(tgid)
    }

    /// The counters of every function, by its number.
    ///
    /// # Errors
    /// When the kernel refuses.
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

    /// Attaches a plan to the opened `file`, and the programs `extra` at sites of their own.
    ///
    /// # Errors
    /// When the file is not what was planned for, or the kernel refuses.
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
        // Exits first: a call that begins in between has an end.
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

/// Attached probes; dropping takes them off.
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
    /// Functions with a site that has no probe, and why.
    pub fn refused(&self) -> &[(u32, String)] {
        &self.refused
    }

    /// Takes these functions off. Their neighbours may miss calls for the few milliseconds that it takes.
    ///
    /// # Errors
    /// When the kernel refuses to take the others back.
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
        let one_link = programs.programs.has_multi(program);
        // One instruction that the kernel takes no probe on fails them all: it is found by halving.
        let mut waiting = vec![sites];
        while let Some(mut sites) = waiting.pop() {
            let target = Target { file: &self.file, name: &self.name };
            let places: Vec<_> = sites.iter().map(|site| (site.file_offset, site_cookie(site))).collect();
            match programs.programs.attach_uprobes(program, target, &places)? {
                Ok(links) if one_link => {
                    self.multi.extend(links.into_iter().map(|link| Group {
                        program,
                        sites: sites.clone(),
                        link,
                    }));
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

/// ENOTSUPP, which has no name outside the kernel, and what it was before.
fn refuses_instruction(error: &io::Error) -> bool {
    const ENOTSUPP: i32 = 524;
    matches!(error.raw_os_error(), Some(ENOTSUPP | libc::EOPNOTSUPP | libc::ENOEXEC | libc::EINVAL))
}

/// A program that does nothing, at some places of a file: what others are measured against.
pub struct EmptyProbe {
    _link: OwnedFd,
}

impl EmptyProbe {
    /// Attaches it.
    ///
    /// # Errors
    /// When the kernel refuses, or has no uprobe_multi links.
    pub fn attach(path: &Path, file_offsets: &[u64]) -> io::Result<EmptyProbe> {
        let sites: Vec<_> = file_offsets.iter().map(|offset| (*offset, 0)).collect();
        let path = CString::new(path.as_os_str().as_bytes())?;
        multi::attach(&multi::empty_program()?, &path, &sites).map(|link| EmptyProbe { _link: link })
    }
}

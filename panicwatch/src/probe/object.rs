//! Loads the compiled eBPF object into the kernel and gives access to its maps.
//!
//! aya loads maps and raw tracepoints. Uprobe programs are loaded by `multi` if the kernel has uprobe_multi
//! links, else by aya.

use std::{
    collections::BTreeMap,
    env, io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf},
    programs::{RawTracePoint, UProbe},
};
use panicwatch_common::{
    binary::{Binary, row},
    config::{Config, TaskLayout, UNKNOWN},
    counted::{Goroutine, Place},
    reason::Reason,
    recorder::PROCESS_WORDS,
};

use super::{
    attach::Attached,
    closing::{self, Link},
    diagnostics::{self, Diagnostics},
    error::ProbeError,
    kernel::{self, BTF_TRACEPOINTS, KernelFacts},
    links::{self, Target},
    marks::Marks,
    multi,
    rings::{MappedRings, RingSizes},
    sources::Attachments,
};
use crate::{correlate::Lost, ebpf};

/// Names of the uprobe programs, one per kind of event; see `panicwatch-ebpf/src/probes`.
pub const UPROBES: [&str; 14] = [
    "gopanic",
    "defer_begin",
    "defer_end",
    "recover",
    "recovery",
    "throw",
    "dopanic",
    "sighandler",
    "fatalsignal",
    "startpanic",
    "goexit",
    "exit",
    "init_step",
    "init_task",
];

/// Uprobe programs of the flight recorder, loaded if it records; `process_begins` is attached whenever it
/// records, the others if an enabled source needs them.
pub(super) const RECORDER_UPROBES: [&str; 7] =
    ["process_begins", "gc", "park", "ready", "turn", "create", "function"];

/// Raw tracepoints that are always attached; each program has the name of its tracepoint.
const TRACEPOINTS: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

/// Wrapper that makes a type shared with the eBPF programs usable as a map key or value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Crossing<T>(pub(super) T);
// SAFETY: `Binary` consists of 32-bit integers only: any bytes are a valid value, and there is no padding.
unsafe impl Pod for Crossing<Binary> {}
// SAFETY: `Config` consists of 32-bit integers only, too.
unsafe impl Pod for Crossing<Config> {}
// SAFETY: `Goroutine` is two 64-bit integers, without padding.
unsafe impl Pod for Crossing<Goroutine> {}
// SAFETY: `TaskLayout` consists of 32-bit integers only, too.
unsafe impl Pod for Crossing<TaskLayout> {}
// SAFETY: `Place` is two 32-bit and three 64-bit integers, without padding.
unsafe impl Pod for Crossing<Place> {}

/// The loaded eBPF programs and their maps.
pub struct Programs {
    ebpf: Ebpf,
    diagnostics: Diagnostics,
    /// Loaded uprobe programs by name; empty if this kernel has no uprobe_multi links.
    multi: BTreeMap<&'static str, Arc<OwnedFd>>,
    uprobe_multi: bool,
    config: Config,
    /// BTF type IDs of the BTF tracepoints, see [`KernelFacts`].
    tracepoints: [Option<u32>; BTF_TRACEPOINTS.len()],
    /// Loaded programs of BTF tracepoints, by name.
    at_tracepoints: BTreeMap<&'static str, OwnedFd>,
    marks: Marks,
    pub(super) sources: Attachments,
}

/// Bounds of captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLimits {
    /// Panics of one binary that are captured in a window
    /// ([`WINDOW_NS`](panicwatch_common::counted::WINDOW_NS)); 0: all.
    pub per_window: u32,
    /// Time that one capture may take in the target.
    pub nanoseconds: u32,
}

/// Environment variable: number of rows in the tables that the eBPF programs fill, to test full tables.
const FORCED_ROWS: &str = "PANICWATCH_TABLE_ROWS";
const FILLED: [&str; 4] = ["WATCHED", "COUNTED", "QUIET", "LOST"];

/// Programs whose descriptors several requests to the helper can use.
fn shared(programs: BTreeMap<&'static str, OwnedFd>) -> BTreeMap<&'static str, Arc<OwnedFd>> {
    programs.into_iter().map(|(name, program)| (name, Arc::new(program))).collect()
}

impl Programs {
    /// Loads the programs and maps that every session needs and attaches the process tracepoints.
    ///
    /// `ring_bytes` is the size of the event ring, a power of two; `recorder` has the ring sizes of the
    /// flight recorder if it records; `limits` bounds captures.
    pub fn load(
        kernel: &KernelFacts,
        ring_bytes: u32,
        recorder: Option<RingSizes>,
        limits: CaptureLimits,
    ) -> Result<Programs, ProbeError> {
        let mut maps = vec![("EVENTS", ring_bytes)];
        if let Some(rows) = env::var(FORCED_ROWS).ok().and_then(|rows| rows.parse().ok()) {
            maps.extend(FILLED.map(|map| (map, rows)));
        }
        let mut config =
            Config { max_captures: limits.per_window, max_capture_ns: limits.nanoseconds, ..kernel.config };
        if let Some(RingSizes { cpus, slots, samples }) = recorder {
            let all = |one: u32| one.checked_mul(cpus).ok_or(ProbeError::TooManyCpus(cpus));
            maps.extend([("SLOTS", all(slots)?), ("SAMPLES", all(samples)?), ("HEADS", cpus)]);
            maps.push(("MAY_BE_WATCHED", PROCESS_WORDS));
            (config.slot_mask, config.sample_mask) = (slots - 1, samples - 1);
        }
        let mut programs = Programs::load_some(&KernelFacts { config, ..*kernel }, &UPROBES, &maps)?;
        if recorder.is_some() {
            programs.load_uprobes(&RECORDER_UPROBES)?;
        }
        Ok(programs)
    }

    /// Like [`Programs::load`], but loads the uprobe programs `names` only, with other sizes for some maps.
    pub(super) fn load_some(
        kernel: &KernelFacts,
        names: &[&'static str],
        sizes: &[(&'static str, u32)],
    ) -> Result<Programs, ProbeError> {
        let mut loader = EbpfLoader::new();
        for &(map, size) in sizes {
            loader.map_max_entries(map, size);
        }
        let task = Crossing(kernel.task);
        loader.override_global("TASK", &task, true);
        diagnostics::set_level(&mut loader);
        let mut ebpf = loader.load(ebpf::object())?;
        let diagnostics = diagnostics::take(&mut ebpf)?;
        let mut multi = BTreeMap::new();
        if kernel.uprobe_multi {
            multi = shared(multi::load(ebpf::object(), &map_fds(&ebpf, &diagnostics), names)?);
        } else {
            for &name in names {
                uprobe(&mut ebpf, name)?.load()?;
            }
        }
        let marks = match ebpf.map("MAY_BE_WATCHED") {
            Some(Map::Array(data)) => Marks::map(data)?,
            _ => return Err(ProbeError::Object("MAY_BE_WATCHED")),
        };
        let mut programs = Programs {
            ebpf,
            diagnostics,
            multi,
            uprobe_multi: kernel.uprobe_multi,
            config: kernel.config,
            tracepoints: kernel.tracepoints,
            at_tracepoints: BTreeMap::new(),
            marks,
            sources: Attachments::default(),
        };
        programs.configure()?;
        for name in TRACEPOINTS {
            let program: &mut RawTracePoint =
                programs.ebpf.program_mut(name).ok_or(ProbeError::Object(name))?.try_into()?;
            program.load()?;
            let id = program.attach(name)?;
            let link = program.take_link(id)?;
            programs.sources.always.push(Link::Tracepoint(link));
        }
        Ok(programs)
    }

    /// Loads the uprobe programs `names` into the kernel, in addition to those loaded before.
    fn load_uprobes(&mut self, names: &[&'static str]) -> Result<(), ProbeError> {
        if self.uprobe_multi {
            let maps = map_fds(&self.ebpf, &self.diagnostics);
            self.multi.extend(shared(multi::load(ebpf::object(), &maps, names)?));
            return Ok(());
        }
        names.iter().try_for_each(|name| Ok(uprobe(&mut self.ebpf, name)?.load()?))
    }

    /// Returns the program of the BTF tracepoint `name`, loading it if necessary; `None` if the kernel has no
    /// such tracepoint.
    pub(super) fn at_tracepoint(&mut self, name: &str) -> Result<Option<&OwnedFd>, ProbeError> {
        let Some(at) = BTF_TRACEPOINTS.iter().position(|tracepoint| *tracepoint == name) else {
            return Ok(None);
        };
        let (Some(name), Some(Some(id))) = (BTF_TRACEPOINTS.get(at), self.tracepoints.get(at)) else {
            return Ok(None);
        };
        if !self.at_tracepoints.contains_key(name) {
            let maps = map_fds(&self.ebpf, &self.diagnostics);
            let loaded = multi::load_tracepoints(ebpf::object(), &maps, &[(name, *id)])?;
            self.at_tracepoints.extend(loaded);
        }
        Ok(self.at_tracepoints.get(name))
    }

    /// Detaches everything: the kernel's tracepoints, and `attached` in binaries. Nothing is watched
    /// afterwards.
    pub fn take_off(&mut self, attached: Vec<Attached>) {
        let in_binaries = attached.into_iter().flat_map(Attached::into_links);
        closing::close(self.sources.take().into_iter().chain(in_binaries).collect());
    }

    /// Maps the recorder's rings, which have the sizes given to [`Programs::load`].
    pub fn map_rings(&self, sizes: RingSizes) -> Result<MappedRings, ProbeError> {
        let fd = |name| self.array_fd(name);
        MappedRings::map(sizes, fd("HEADS")?, fd("SLOTS")?, fd("SAMPLES")?).map_err(ProbeError::Recorder)
    }

    /// Returns the descriptor of an array map, to map its values.
    pub(super) fn array_fd(&self, name: &'static str) -> Result<RawFd, ProbeError> {
        match self.ebpf.map(name) {
            Some(Map::Array(data)) => Ok(data.fd().as_fd().as_raw_fd()),
            _ => Err(ProbeError::Object(name)),
        }
    }

    /// Returns the number of panics since loading that were counted but not captured, by place.
    pub fn counted(&mut self) -> Result<Vec<(Place, u64)>, ProbeError> {
        let map: HashMap<_, Crossing<Place>, u64> = self.map("COUNTED")?.try_into()?;
        Ok(map.iter().filter_map(Result::ok).map(|(place, count)| (place.0, count)).collect())
    }

    /// Removes a row from the table of counted panics: its process has exited.
    pub fn forget_counted(&mut self, place: Place) -> Result<(), ProbeError> {
        let mut map: HashMap<_, Crossing<Place>, u64> = self.map("COUNTED")?.try_into()?;
        Ok(map.remove(&Crossing(place))?)
    }

    /// Returns the watched processes.
    pub fn watched(&mut self) -> Result<Vec<u32>, ProbeError> {
        let map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        let watched = map.iter().filter_map(Result::ok).filter(|(_, row)| *row != row::IGNORED);
        Ok(watched.map(|(tgid, _)| tgid).collect())
    }

    /// Reports whether any process is watched.
    pub fn watches_any(&mut self) -> Result<bool, ProbeError> {
        let map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        Ok(map.iter().filter_map(Result::ok).any(|(_, row)| row != row::IGNORED))
    }

    /// Returns the event ring. Fails after the first call.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, ProbeError> {
        self.take_ring("EVENTS")
    }

    /// Writes row `index` of the `BINARIES` map.
    pub fn set_binary(&mut self, index: u32, binary: Binary) -> Result<(), ProbeError> {
        let mut map: Array<_, Crossing<Binary>> = self.map("BINARIES")?.try_into()?;
        Ok(map.set(index, Crossing(binary), 0)?)
    }

    /// Watches process `tgid` and its future descendants. `runs` is the row of the binary that it executes
    /// already, if known.
    pub fn watch(&mut self, tgid: u32, runs: Option<u32>) -> Result<(), ProbeError> {
        self.marks.set(tgid);
        let mut map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        Ok(map.insert(tgid, runs.map_or(0, |row| row + 1), 0)?)
    }

    /// Marks process `tgid` as ignored: it is not reported though its binary has probes.
    pub fn ignore(&mut self, tgid: u32) -> Result<(), ProbeError> {
        let mut map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        map.insert(tgid, row::IGNORED, 0)?;
        self.marks.clear(tgid);
        Ok(())
    }

    /// Returns the probe hits in reported processes since loading, for each of the first `binaries` rows.
    pub fn hits(&mut self, binaries: u32) -> Result<Vec<u64>, ProbeError> {
        let map: PerCpuArray<_, u64> = self.map("HITS")?.try_into()?;
        (0..binaries).map(|row| Ok(map.get(&row, 0)?.iter().sum())).collect()
    }

    /// Removes process `tgid` from the table of watched processes; its descendants stay.
    pub fn unwatch(&mut self, tgid: u32) -> Result<(), ProbeError> {
        let mut map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        map.remove(&tgid)?;
        self.marks.clear(tgid);
        Ok(())
    }

    /// Returns a descriptor of the table of watched processes, for [`Watched::from_fd`] in any process.
    pub fn watched_fd(&mut self) -> Result<OwnedFd, ProbeError> {
        let Map::HashMap(data) = self.map("WATCHED")? else { return Err(ProbeError::Object("WATCHED")) };
        Ok(data.fd().as_fd().try_clone_to_owned().map_err(MapError::from)?)
    }

    /// Writes the kernel's layout to the `CONFIG` map.
    fn configure(&mut self) -> Result<(), ProbeError> {
        let config = self.config;
        let mut map: Array<_, Crossing<Config>> = self.map("CONFIG")?.try_into()?;
        Ok(map.set(0, Crossing(config), 0)?)
    }

    /// Writes the diagnostics since the last call to the log.
    pub fn log_diagnostics(&mut self) {
        self.diagnostics.flush();
    }

    /// Returns the failures that the programs have counted since loading, without zero counts.
    pub fn failures(&mut self) -> Result<Vec<(Reason, u64)>, ProbeError> {
        let map: PerCpuArray<_, u64> = self.map("FAILURES")?.try_into()?;
        let mut counts = Vec::new();
        for reason in Reason::ALL {
            let sum = map.get(&(reason as u32), 0)?.iter().sum();
            if sum > 0 {
                counts.push((reason, sum));
            }
        }
        Ok(counts)
    }

    /// Returns the number of records about the goroutines of process `tgid` that did not fit into the event
    /// ring. `None` if no record of any process was lost.
    pub fn lost(&mut self, tgid: u32) -> Result<Option<Lost>, ProbeError> {
        let losses: Array<_, u64> = self.map("LOSSES")?.try_into()?;
        if losses.get(&0, 0)? == 0 {
            return Ok(None);
        }
        let unattributed = losses.get(&1, 0)?;
        let map: HashMap<_, Crossing<Goroutine>, u64> = self.map("LOST")?.try_into()?;
        let rows = map.iter().filter_map(Result::ok).filter(|(key, _)| key.0.tgid == u64::from(tgid));
        let by_goroutine = rows.map(|(key, count)| (key.0.goid, count)).collect();
        Ok(Some(Lost { by_goroutine, unattributed }))
    }

    /// Like [`Programs::lost`], for a process that has ended, and removes its rows.
    pub fn take_lost(&mut self, tgid: u32) -> Result<Option<Lost>, ProbeError> {
        let Some(lost) = self.lost(tgid)? else { return Ok(None) };
        let mut map: HashMap<_, Crossing<Goroutine>, u64> = self.map("LOST")?.try_into()?;
        for goid in lost.by_goroutine.keys() {
            // If it fails, the row stays, which does no harm.
            let _ = map.remove(&Crossing(Goroutine { tgid: tgid.into(), goid: *goid }));
        }
        Ok(Some(lost))
    }

    /// Attaches uprobe programs at file offsets, each with its cookie, by one request: all of them, or none.
    /// Returns the links of each program: one if the kernel has uprobe_multi links, else one per site, in
    /// their order.
    ///
    /// # Errors
    /// Fails if the object has no such program. The inner error is the kernel's.
    pub(super) fn attach_uprobes(
        &mut self,
        target: Target<'_>,
        groups: Vec<(&'static str, Vec<(u64, u64)>)>,
    ) -> Result<Result<Vec<Vec<links::Link>>, links::Refused>, ProbeError> {
        let mut opened = Vec::with_capacity(groups.len());
        for (group, (name, sites)) in groups.into_iter().enumerate() {
            match self.uprobe_fd(name)? {
                Ok(program) => opened.push(links::ProgramSites { program, sites }),
                Err(error) => return Ok(Err(links::Refused { group, error })),
            }
        }
        let attach = if self.uprobe_multi { links::attach_multi } else { links::attach_perf };
        Ok(attach(target, &opened))
    }

    /// Returns a descriptor of uprobe program `name`. The inner error means that no descriptor is left.
    fn uprobe_fd(&mut self, name: &'static str) -> Result<io::Result<Arc<OwnedFd>>, ProbeError> {
        if self.uprobe_multi {
            return Ok(Ok(self.multi.get(name).ok_or(ProbeError::Object(name))?.clone()));
        }
        Ok(uprobe(&mut self.ebpf, name)?.fd()?.as_fd().try_clone_to_owned().map(Arc::new))
    }

    /// Reports whether a uprobe program is attached by one link for all sites.
    pub(super) fn has_multi(&self) -> bool {
        self.uprobe_multi
    }

    /// Configures sampling in the scheduler tick; returns `false` if that is not possible.
    pub(super) fn use_tick(&mut self) -> Result<bool, ProbeError> {
        if self.config.tick == [0; 2] && self.config.hrtimer_function != UNKNOWN {
            let tick = kernel::tick().unwrap_or(0);
            self.config.tick = [tick as u32, (tick >> 32) as u32];
            self.configure()?;
        }
        Ok(self.samples_in_ticks())
    }

    /// Reports whether samples are taken in the scheduler tick instead of by our own clocks.
    pub(super) fn samples_in_ticks(&self) -> bool {
        self.config.tick != [0; 2]
    }

    /// Returns the object with its programs and maps.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Returns a ring. Fails after the first call for `name`.
    pub(super) fn take_ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, ProbeError> {
        Ok(self.ebpf.take_map(name).ok_or(ProbeError::Object(name))?.try_into()?)
    }

    pub(super) fn map(&mut self, name: &'static str) -> Result<&mut Map, ProbeError> {
        self.ebpf.map_mut(name).ok_or(ProbeError::Object(name))
    }
}

/// Read-only access to the table of watched processes.
pub struct Watched(HashMap<MapData, u32, u32>);

impl Watched {
    /// Opens the table by a descriptor that [`Programs::watched_fd`] returned.
    ///
    /// # Errors
    /// Fails if the descriptor is not that of such a map.
    pub fn from_fd(fd: OwnedFd) -> Result<Watched, ProbeError> {
        Ok(Watched(Map::HashMap(MapData::from_fd(fd)?).try_into()?))
    }

    /// Reports whether the table has an entry for process `tgid`, because it or an ancestor was passed to
    /// [`Programs::watch`].
    pub fn contains(&self, tgid: u32) -> bool {
        self.0.get(&tgid, 0).is_ok()
    }
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut UProbe, ProbeError> {
    Ok(ebpf.program_mut(name).ok_or(ProbeError::Object(name))?.try_into()?)
}

fn map_fds(ebpf: &Ebpf, diagnostics: &Diagnostics) -> BTreeMap<String, i32> {
    let taken = (diagnostics::MAP.to_owned(), diagnostics.as_fd().as_raw_fd());
    let maps = ebpf.maps().filter_map(|(name, map)| {
        let data = match map {
            Map::RingBuf(data)
            | Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data) => data,
            _ => return None,
        };
        Some((name.to_owned(), data.fd().as_fd().as_raw_fd()))
    });
    maps.chain([taken]).collect()
}

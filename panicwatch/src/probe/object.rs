//! The compiled eBPF object and its loading into the kernel.
//!
//! aya loads maps and raw tracepoints. A uprobe program is loaded by `multi` when the kernel has
//! uprobe_multi links, else by aya.

use std::{
    collections::BTreeMap,
    env, io,
    os::fd::{AsFd, AsRawFd, OwnedFd, RawFd},
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
    error::ProbeError,
    kernel::{self, BTF_TRACEPOINTS, KernelFacts},
    links::{self, Target},
    marks::Marks,
    multi,
    rings::{MappedRings, RingSizes},
    sources::Attachments,
};
use crate::{correlate::Lost, ebpf};

/// The uprobe programs by name, one per kind of event; see `panicwatch-ebpf/src/probes`.
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

/// The uprobe programs of the recorder, loaded when a source of it wants them; `process_begins` whenever it records.
pub(super) const RECORDER_UPROBES: [&str; 7] =
    ["process_begins", "gc", "park", "ready", "turn", "create", "function"];

/// The raw tracepoints that are always attached, each of the name of its program.
const TRACEPOINTS: [&str; 3] = ["sched_process_fork", "sched_process_exec", "sched_process_exit"];

/// A crossing type may be a map's value.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Crossing<T>(pub(super) T);
// SAFETY: `Binary` consists of 32-bit integers only: any bytes are a value and there is no padding.
unsafe impl Pod for Crossing<Binary> {}
// SAFETY: so does `Config`.
unsafe impl Pod for Crossing<Config> {}
// SAFETY: `Goroutine` is two 64-bit integers.
unsafe impl Pod for Crossing<Goroutine> {}
// SAFETY: so does `TaskLayout`.
unsafe impl Pod for Crossing<TaskLayout> {}
// SAFETY: `Place` is two 32-bit and three 64-bit integers, without padding.
unsafe impl Pod for Crossing<Place> {}

/// The programs in the kernel, not yet attached to any binary.
pub struct Programs {
    ebpf: Ebpf,
    /// By name; empty when this kernel has no uprobe_multi links.
    multi: BTreeMap<&'static str, OwnedFd>,
    uprobe_multi: bool,
    config: Config,
    /// Numbers of the BTF tracepoints, see [`KernelFacts`].
    tracepoints: [Option<u32>; BTF_TRACEPOINTS.len()],
    /// Programs of BTF tracepoints that were loaded, by name.
    at_tracepoints: BTreeMap<&'static str, OwnedFd>,
    marks: Marks,
    pub(super) sources: Attachments,
}

/// Bounds of captures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureLimits {
    /// Panics of one binary that are captured in a window ([`WINDOW_NS`](panicwatch_common::counted::WINDOW_NS)); 0: all.
    pub per_window: u32,
    /// Time that one capture may take in the target.
    pub nanoseconds: u32,
}

/// Environment variable: rows of the tables that the programs fill, to test what happens when they are full.
const FORCED_ROWS: &str = "PANICWATCH_TABLE_ROWS";
const FILLED: [&str; 4] = ["WATCHED", "COUNTED", "QUIET", "LOST"];

impl Programs {
    /// Loads what every session needs and attaches the process tracepoints.
    ///
    /// `ring_bytes` is the size of the event ring, a power of two; `recorder` what the flight recorder shall have, if it
    /// records; `limits` bounds captures.
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

    /// As [`Programs::load`], of the uprobe programs `names` only, with other sizes for some maps.
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
        let mut ebpf = loader.load(ebpf::object())?;
        let mut multi = BTreeMap::new();
        if kernel.uprobe_multi {
            multi = multi::load(ebpf::object(), &map_fds(&ebpf), names)?;
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

    /// Loads more uprobe programs.
    fn load_uprobes(&mut self, names: &[&'static str]) -> Result<(), ProbeError> {
        if self.uprobe_multi {
            self.multi.append(&mut multi::load(ebpf::object(), &map_fds(&self.ebpf), names)?);
            return Ok(());
        }
        names.iter().try_for_each(|name| Ok(uprobe(&mut self.ebpf, name)?.load()?))
    }

    /// The program at the BTF tracepoint `name`; `None` where the kernel has no such tracepoint.
    pub(super) fn at_tracepoint(&mut self, name: &str) -> Result<Option<&OwnedFd>, ProbeError> {
        let Some(at) = BTF_TRACEPOINTS.iter().position(|tracepoint| *tracepoint == name) else {
            return Ok(None);
        };
        let (Some(name), Some(Some(id))) = (BTF_TRACEPOINTS.get(at), self.tracepoints.get(at)) else {
            return Ok(None);
        };
        if !self.at_tracepoints.contains_key(name) {
            let loaded = multi::load_tracepoints(ebpf::object(), &map_fds(&self.ebpf), &[(name, *id)])?;
            self.at_tracepoints.extend(loaded);
        }
        Ok(self.at_tracepoints.get(name))
    }

    /// Takes everything off: what stands at the kernel's tracepoints, and `attached` in binaries. Nothing is watched afterwards.
    pub fn take_off(&mut self, attached: Vec<Attached>) {
        let in_binaries = attached.into_iter().flat_map(Attached::into_links);
        closing::close(self.sources.take().into_iter().chain(in_binaries).collect());
    }

    /// The recorder's rings, of the sizes given when loading.
    pub fn map_rings(&self, sizes: RingSizes) -> Result<MappedRings, ProbeError> {
        let fd = |name| self.array_fd(name);
        MappedRings::map(sizes, fd("HEADS")?, fd("SLOTS")?, fd("SAMPLES")?).map_err(ProbeError::Recorder)
    }

    /// The descriptor of an array, to map its values.
    pub(super) fn array_fd(&self, name: &'static str) -> Result<RawFd, ProbeError> {
        match self.ebpf.map(name) {
            Some(Map::Array(data)) => Ok(data.fd().as_fd().as_raw_fd()),
            _ => Err(ProbeError::Object(name)),
        }
    }

    /// Panics that were counted only, by place, since loading.
    pub fn counted(&mut self) -> Result<Vec<(Place, u64)>, ProbeError> {
        let map: HashMap<_, Crossing<Place>, u64> = self.map("COUNTED")?.try_into()?;
        Ok(map.iter().filter_map(Result::ok).map(|(place, count)| (place.0, count)).collect())
    }

    /// Makes room in the table of places: that process is gone.
    pub fn forget_counted(&mut self, place: Place) -> Result<(), ProbeError> {
        let mut map: HashMap<_, Crossing<Place>, u64> = self.map("COUNTED")?.try_into()?;
        Ok(map.remove(&Crossing(place))?)
    }

    /// The watched processes.
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

    /// The event ring, once.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, ProbeError> {
        self.take_ring("EVENTS")
    }

    /// Writes row `index` of the binaries.
    pub fn set_binary(&mut self, index: u32, binary: Binary) -> Result<(), ProbeError> {
        let mut map: Array<_, Crossing<Binary>> = self.map("BINARIES")?.try_into()?;
        Ok(map.set(index, Crossing(binary), 0)?)
    }

    /// Watches process `tgid`, and what it will start. `runs` is the row of the binary that it runs already, if it is known.
    pub fn watch(&mut self, tgid: u32, runs: Option<u32>) -> Result<(), ProbeError> {
        self.marks.set(tgid);
        let mut map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        Ok(map.insert(tgid, runs.map_or(0, |row| row + 1), 0)?)
    }

    /// Process `tgid` is not reported, though its binary has probes.
    pub fn ignore(&mut self, tgid: u32) -> Result<(), ProbeError> {
        let mut map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        map.insert(tgid, row::IGNORED, 0)?;
        self.marks.clear(tgid);
        Ok(())
    }

    /// Hits of the probes of the first `binaries` rows, in reported processes, since loading.
    pub fn hits(&mut self, binaries: u32) -> Result<Vec<u64>, ProbeError> {
        let map: PerCpuArray<_, u64> = self.map("HITS")?.try_into()?;
        (0..binaries).map(|row| Ok(map.get(&row, 0)?.iter().sum())).collect()
    }

    /// Takes process `tgid` out of the table; what it has started stays.
    pub fn unwatch(&mut self, tgid: u32) -> Result<(), ProbeError> {
        let mut map: HashMap<_, u32, u32> = self.map("WATCHED")?.try_into()?;
        map.remove(&tgid)?;
        self.marks.clear(tgid);
        Ok(())
    }

    /// A descriptor of the table of watched processes, for [`Watched::from_fd`] in whatever process.
    pub fn watched_fd(&mut self) -> Result<OwnedFd, ProbeError> {
        let Map::HashMap(data) = self.map("WATCHED")? else { return Err(ProbeError::Object("WATCHED")) };
        Ok(data.fd().as_fd().try_clone_to_owned().map_err(MapError::from)?)
    }

    /// Writes the kernel's facts.
    fn configure(&mut self) -> Result<(), ProbeError> {
        let config = self.config;
        let mut map: Array<_, Crossing<Config>> = self.map("CONFIG")?.try_into()?;
        Ok(map.set(0, Crossing(config), 0)?)
    }

    /// Counted failures of the programs since loading, those that happened.
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

    /// Records about the goroutines of process `tgid`, which has ended, that the event ring had no room for; the process's rows
    /// are removed. `None` when no record of any process was lost.
    pub fn take_lost(&mut self, tgid: u32) -> Result<Option<Lost>, ProbeError> {
        let losses: Array<_, u64> = self.map("LOSSES")?.try_into()?;
        if losses.get(&0, 0)? == 0 {
            return Ok(None);
        }
        let unattributed = losses.get(&1, 0)?;
        let mut map: HashMap<_, Crossing<Goroutine>, u64> = self.map("LOST")?.try_into()?;
        let rows = map.iter().filter_map(Result::ok).filter(|(key, _)| key.0.tgid == u64::from(tgid));
        let by_goroutine: BTreeMap<u64, u64> = rows.map(|(key, count)| (key.0.goid, count)).collect();
        for goid in by_goroutine.keys() {
            // Should it fail, the row stays: no harm is done.
            let _ = map.remove(&Crossing(Goroutine { tgid: tgid.into(), goid: *goid }));
        }
        Ok(Some(Lost { by_goroutine, unattributed }))
    }

    /// Attaches uprobe program `name` at file offsets, each with its cookie: by one link where the kernel has uprobe_multi links, else
    /// by one a site, in their order.
    ///
    /// # Errors
    /// When the object has no such program. The inner error is the kernel's refusal.
    pub(super) fn attach_uprobes(
        &mut self,
        name: &'static str,
        target: Target<'_>,
        sites: &[(u64, u64)],
    ) -> Result<io::Result<Vec<links::Link>>, ProbeError> {
        if let Some(program) = self.multi.get(name) {
            return Ok(links::attach_multi(program, target, sites).map(|link| vec![link]));
        }
        let program = uprobe(&mut self.ebpf, name)?.fd()?.as_fd().try_clone_to_owned();
        Ok(program.and_then(|program| links::attach_perf(&program, target, sites)))
    }

    /// Uprobe program `name` is attached by one link for all sites.
    pub(super) fn has_multi(&self, name: &str) -> bool {
        self.multi.contains_key(name)
    }

    /// Lets samples be taken in the scheduler's tick; `false` where that cannot be.
    pub(super) fn use_tick(&mut self) -> Result<bool, ProbeError> {
        if self.config.tick == [0; 2] && self.config.hrtimer_function != UNKNOWN {
            let tick = kernel::tick().unwrap_or(0);
            self.config.tick = [tick as u32, (tick >> 32) as u32];
            self.configure()?;
        }
        Ok(self.samples_in_ticks())
    }

    /// Samples are taken in ticks, not by clocks of ours.
    pub(super) fn samples_in_ticks(&self) -> bool {
        self.config.tick != [0; 2]
    }

    /// The object with its programs and maps.
    pub(super) fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// A ring, once.
    pub(super) fn take_ring(&mut self, name: &'static str) -> Result<RingBuf<MapData>, ProbeError> {
        Ok(self.ebpf.take_map(name).ok_or(ProbeError::Object(name))?.try_into()?)
    }

    pub(super) fn map(&mut self, name: &'static str) -> Result<&mut Map, ProbeError> {
        self.ebpf.map_mut(name).ok_or(ProbeError::Object(name))
    }
}

/// The table of watched processes, read-only.
pub struct Watched(HashMap<MapData, u32, u32>);

impl Watched {
    /// The table of that descriptor, which [`Programs::watched_fd`] gave.
    ///
    /// # Errors
    /// When it is none.
    pub fn from_fd(fd: OwnedFd) -> Result<Watched, ProbeError> {
        Ok(Watched(Map::HashMap(MapData::from_fd(fd)?).try_into()?))
    }

    /// Is process `tgid` watched: was it, or an ancestor of it, given to [`Programs::watch`]?
    pub fn contains(&self, tgid: u32) -> bool {
        self.0.get(&tgid, 0).is_ok()
    }
}

fn uprobe<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut UProbe, ProbeError> {
    Ok(ebpf.program_mut(name).ok_or(ProbeError::Object(name))?.try_into()?)
}

fn map_fds(ebpf: &Ebpf) -> BTreeMap<String, i32> {
    ebpf.maps()
        .filter_map(|(name, map)| {
            let data = match map {
                Map::RingBuf(data)
                | Map::Array(data)
                | Map::HashMap(data)
                | Map::LruHashMap(data)
                | Map::PerCpuArray(data) => data,
                _ => return None,
            };
            Some((name.to_owned(), data.fd().as_fd().as_raw_fd()))
        })
        .collect()
}

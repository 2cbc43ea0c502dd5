//! The recorder's sources in the kernel: tracepoints and the sampling clocks, attached and taken off one by one.

use std::collections::BTreeMap;

use aya::programs::{
    PerfEvent, RawTracePoint,
    perf_event::{PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
};

use super::{
    closing::{self, Link},
    error::ProbeError,
    multi,
    object::Programs,
};
use crate::recorder::Source;

/// What is attached to the kernel.
#[derive(Default)]
pub(super) struct Attachments {
    by_source: BTreeMap<Source, Vec<Link>>,
    /// Whatever is recorded.
    pub(super) always: Vec<Link>,
}

impl Attachments {
    /// All of them.
    pub(super) fn take(&mut self) -> Vec<Link> {
        let by_source = std::mem::take(&mut self.by_source).into_values().flatten();
        by_source.chain(self.always.drain(..)).collect()
    }
}

/// Samples a second of each CPU where it takes a clock of our own; no divisor of anybody's tick.
const CLOCK_PER_SECOND: u32 = 199;

/// The tracepoints of a source, each with its program for a raw tracepoint.
fn tracepoints(source: Source) -> &'static [(&'static str, &'static str)] {
    match source {
        Source::Switch => &[("sched_switch", "sched_switch_raw")],
        Source::Wakeup => &[("sched_waking", "sched_waking_raw")],
        Source::Migrate => &[("sched_migrate_task", "sched_migrate_task_raw")],
        Source::Signal => &[("signal_generate", "signal_generate"), ("signal_deliver", "signal_deliver")],
        Source::Syscall => &[("sys_enter", "sys_enter"), ("sys_exit", "sys_exit")],
        Source::Fault => &[("page_fault_user", "page_fault_user")],
        Source::Sample => &[("hrtimer_expire_entry", "hrtimer_expire_entry")],
        Source::Gc | Source::Assist | Source::Goroutine | Source::Function => &[],
    }
}

impl Programs {
    /// Attaches what `source` has in the kernel (nothing, for those in the program).
    ///
    /// # Errors
    /// When this kernel has no such tracepoint or clock, or refuses.
    pub fn attach_source(&mut self, source: Source) -> Result<(), ProbeError> {
        if source.is_in_program() || self.sources.by_source.contains_key(&source) {
            return Ok(());
        }
        let mut links = Vec::new();
        if source == Source::Sample && !self.use_tick()? {
            let clocks = self.start_clocks(CLOCK_PER_SECOND)?;
            self.sources.by_source.insert(source, clocks.into_iter().map(Link::Clock).collect());
            return Ok(());
        }
        for &(tracepoint, raw) in tracepoints(source) {
            links.push(match self.at_tracepoint(tracepoint)? {
                Some(program) => {
                    Link::Tracing(multi::attach_tracepoint(program).map_err(ProbeError::Recorder)?)
                }
                None => self.attach_raw(tracepoint, raw)?,
            });
        }
        self.sources.by_source.insert(source, links);
        Ok(())
    }

    fn attach_raw(&mut self, tracepoint: &str, name: &'static str) -> Result<Link, ProbeError> {
        let program: &mut RawTracePoint =
            self.ebpf().program_mut(name).ok_or(ProbeError::Object(name))?.try_into()?;
        if program.fd().is_err() {
            program.load()?;
        }
        let id = program.attach(tracepoint)?;
        Ok(Link::Tracepoint(program.take_link(id)?))
    }

    /// One sampling clock a CPU, which strikes so often a second.
    pub(super) fn start_clocks(&mut self, per_second: u32) -> Result<Vec<PerfEventLink>, ProbeError> {
        let name = "sample";
        let program: &mut PerfEvent =
            self.ebpf().program_mut(name).ok_or(ProbeError::Object(name))?.try_into()?;
        if program.fd().is_err() {
            program.load()?;
        }
        let cpus = aya::util::online_cpus().map_err(|(_, error)| ProbeError::Recorder(error))?;
        let mut clocks = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let id = program.attach(
                PerfEventConfig::Software(SoftwareEvent::CpuClock),
                PerfEventScope::AllProcessesOneCpu { cpu },
                SamplePolicy::Frequency(per_second.into()),
                false,
            )?;
            clocks.push(program.take_link(id)?);
        }
        Ok(clocks)
    }

    /// Takes what `source` has in the kernel off.
    pub fn detach_source(&mut self, source: Source) {
        closing::close(self.sources.by_source.remove(&source).unwrap_or_default());
    }
}

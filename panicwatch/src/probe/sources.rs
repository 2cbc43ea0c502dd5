//! The flight recorder's sources in the kernel, tracepoints and sampling clocks, each attached and detached
//! separately.

use std::{collections::BTreeMap, io};

use aya::programs::{
    PerfEvent, ProgramError, RawTracePoint,
    perf_event::{PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
};

use super::{
    closing::{self, Link},
    error::ProbeError,
    multi,
    object::Programs,
};
use crate::recorder::Source;

/// Links to the kernel's tracepoints and sampling clocks.
#[derive(Default)]
pub(super) struct Attachments {
    by_source: BTreeMap<Source, Vec<Link>>,
    /// Links that do not depend on what is recorded.
    pub(super) always: Vec<Link>,
}

impl Attachments {
    /// Removes and returns all links.
    pub(super) fn take(&mut self) -> Vec<Link> {
        let by_source = std::mem::take(&mut self.by_source).into_values().flatten();
        by_source.chain(self.always.drain(..)).collect()
    }
}

/// Sampling frequency of our own clocks, samples per second on each CPU; not a divisor of a usual tick
/// frequency, so that samples do not coincide with ticks.
const CLOCK_PER_SECOND: u32 = 199;

/// Returns the tracepoints of a source, each with the name of its program for raw tracepoints.
fn tracepoints(source: Source) -> &'static [(&'static str, &'static str)] {
    match source {
        Source::Switch => &[("sched_switch", "sched_switch_raw")],
        Source::Wakeup => &[("sched_waking", "sched_waking_raw")],
        Source::Migrate => &[("sched_migrate_task", "sched_migrate_task_raw")],
        Source::Signal => &[("signal_generate", "signal_generate"), ("signal_deliver", "signal_deliver")],
        Source::Syscall => &[("sys_enter", "sys_enter"), ("sys_exit", "sys_exit")],
        Source::Fault => &[("page_fault_user", "page_fault_user")],
        Source::Send => &[("sock_send_length", "sock_send_length")],
        Source::Sample => &[("hrtimer_expire_entry", "hrtimer_expire_entry")],
        Source::Gc | Source::Assist | Source::Goroutine | Source::Function => &[],
    }
}

/// Replaces the error of a kernel that does not have the tracepoint of socket sends.
fn absent(source: Source, error: ProbeError) -> ProbeError {
    match &error {
        ProbeError::Program(ProgramError::SyscallError(call))
            if source == Source::Send && call.io_error.kind() == io::ErrorKind::NotFound =>
        {
            ProbeError::NoSends
        }
        _ => error,
    }
}

impl Programs {
    /// Attaches the tracepoints or clocks of `source`; does nothing for sources that are probes in the
    /// program.
    ///
    /// # Errors
    /// Fails if this kernel lacks the tracepoint or clock, or rejects the program.
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
                None => self.attach_raw(tracepoint, raw).map_err(|error| absent(source, error))?,
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

    /// Starts one sampling clock per CPU with the given frequency.
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

    /// Detaches the tracepoints or clocks of `source`.
    pub fn detach_source(&mut self, source: Source) {
        closing::close(self.sources.by_source.remove(&source).unwrap_or_default());
    }
}

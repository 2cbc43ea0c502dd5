//! Turns the session's events into incidents, and adds the description of the process and the timeline.

use std::path::Path;

use panicwatch_common::{event::kind, reason::Reason};

use super::{Output, Session, program};
use crate::{
    correlate::Lost,
    event::{Body, Event},
    host::procfs,
    incident::{Incident, Missing},
    init_trace::Collector,
    probe::object::Programs,
};

impl Session {
    pub(super) fn event(&mut self, event: Event) {
        let init_is_over = self.init.as_mut().is_some_and(|collector| collector.push(&event));
        if !matches!(event.head.kind, kind::INIT_STEP | kind::INIT_TASK) {
            self.correlate(event);
        }
        if init_is_over {
            self.init_is_over();
        }
    }

    /// Outputs the collected initialisation, and detaches its probes.
    pub(super) fn init_is_over(&mut self) {
        if let Some(pid) = self.init.as_ref().and_then(Collector::pid)
            && let Ok(Some(lost)) = self.armory.with_programs(|programs| programs.lost(pid))
        {
            self.count_lost(pid, &lost);
        }
        let Some(collected) = self.init.take().and_then(|mut collector| collector.take()) else { return };
        self.armory.stop_tracing_init();
        if let Some(program) = program(&self.armory, collected.first.head.binary) {
            self.outputs.push_back(Output::Init(Box::new(collected), program));
        }
    }

    fn correlate(&mut self, event: Event) {
        let (pid, time_ns) = (event.head.tgid, event.head.time_ns);
        let armory = self.armory.clone();
        let ended = event.head.kind == kind::PROCESS_EXIT;
        let exec = match &event.body {
            Body::Process(process) if event.head.kind == kind::EXEC => {
                Some((process.args.clone(), process.env.clone()))
            }
            _ => None,
        };
        if exec.is_some() {
            self.follower.exec(pid, time_ns);
        }
        let is_probe = exec.is_none() && !ended;
        if is_probe
            && let Some(census) = &self.census
            && let Some(armed) = armory.get(event.head.binary)
            && !census.wants(pid, &armed)
        {
            return;
        }
        if let Some(flight) = &mut self.flight {
            flight.event(&event, program(&armory, event.head.binary).as_deref());
        }
        let describe = is_probe && !self.correlator.knows(pid);
        if ended {
            self.note_lost(pid);
        }
        self.correlator.push(event, &|index| program(&armory, index));
        match (exec, &self.census) {
            (Some((args, env)), Some(census)) => census.exec(pid, time_ns, args, env),
            (Some((args, env)), None) => self.describe_exec(pid, args, env),
            (None, Some(census)) if describe => self.correlator.describe(census.process(pid)),
            (None, None) if describe => self.correlator.describe(procfs::process(pid)),
            _ => {}
        }
        self.flush();
        if ended {
            self.follower.ended(pid);
            if let Some(flight) = &mut self.flight {
                flight.forget(pid);
            }
            if let Some(census) = &self.census {
                census.ended(pid);
            }
        }
    }

    /// Passes the number of lost records of a process that has ended to the correlator.
    pub(super) fn note_lost(&mut self, pid: u32) {
        if let Ok(Some(lost)) = self.armory.with_programs(|programs| programs.take_lost(pid)) {
            self.correlator.lost(pid, &lost);
            self.count_lost(pid, &lost);
        }
    }

    /// Passes the number of lost records of a process to the collector of its initialization, whose records
    /// are about no goroutine.
    fn count_lost(&mut self, pid: u32, lost: &Lost) {
        if let Some(collector) = &mut self.init {
            collector.lost(pid, lost.about(0));
        }
    }

    /// Handles processes whose exit record may have been lost: a process that no longer exists has ended.
    pub(super) fn look_for_vanished(&mut self) {
        let lost = self.armory.with_programs(Programs::failures).unwrap_or_default();
        let lost = lost.iter().find(|(reason, _)| *reason == Reason::RingFull).map_or(0, |(_, count)| *count);
        if lost == self.lost_records || self.reader.passed() != self.records {
            return;
        }
        self.lost_records = lost;
        let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
        for pid in self.correlator.pids().filter(gone).collect::<Vec<_>>() {
            self.note_lost(pid);
            let armory = self.armory.clone();
            self.correlator.vanished(pid, &|index| program(&armory, index));
            if let Some(flight) = &mut self.flight {
                flight.forget(pid);
            }
        }
        self.flush();
    }

    /// Describes a process after its exec, from the exec event, /proc and, for the program that we started,
    /// our own data.
    fn describe_exec(&mut self, pid: u32, args: Option<Vec<u8>>, env: Option<Vec<u8>>) {
        let mut info = procfs::process(pid);
        if let Some(ours) = self.launched.take_if(|ours| ours.pid == pid) {
            info.args = info.args.or(ours.args);
            info.env = info.env.or(ours.env);
            info.start_time = info.start_time.or(ours.start_time);
        }
        info.args = args.map(|block| procfs::strings(&block)).or(info.args);
        info.env = env.map(|block| procfs::go_variables(&block)).or(info.env);
        self.correlator.describe(info);
    }

    fn add_timeline(&mut self, incident: &mut Incident) {
        let made = match &mut self.flight {
            None => Err("nothing was recorded: timelines are off".to_owned()),
            Some(flight) => flight
                .binary_of(incident.process.pid)
                .and_then(|row| program(&self.armory, row))
                .ok_or_else(|| "the process's binary is no longer known".to_owned())
                .and_then(|program| flight.timeline(incident, &program)),
        };
        match made {
            Ok(timeline) => incident.timeline = Some(timeline),
            Err(reason) => incident.missing.push(Missing { what: "timeline".to_owned(), reason }),
        }
    }

    /// Returns why the start of process `pid` is not covered, if that is known.
    fn late(&self, pid: u32) -> Option<String> {
        let Some(census) = &self.census else { return self.follower.late(pid) };
        let armed = census.row(pid).and_then(|row| self.armory.get(row))?;
        self.follower.released(pid, &armed)
    }

    pub(super) fn flush(&mut self) {
        for mut incident in self.correlator.take() {
            self.host.get().add_to(&mut incident);
            self.add_timeline(&mut incident);
            if let Some(reason) = self.late(incident.process.pid) {
                incident.missing.push(Missing { what: "start-up".to_owned(), reason });
            }
            if let Some(census) = &self.census {
                census.had_incident(incident.process.pid);
            }
            self.outputs.push_back(Output::Incident(Box::new(incident)));
        }
    }
}

//! The session's event loop: takes records and messages in, and returns what came of them.

use std::{sync::mpsc::RecvTimeoutError, time::Duration};

use panicwatch_common::reason::Reason;

use super::{Input, Output, Session, counted::COUNTED_PACE, program};
use crate::{clock, probe::object::Programs};

impl Session {
    /// Returns the next output, waiting for it if necessary.
    pub fn wait(&mut self) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            if self.counted.is_due() {
                self.report_counted();
                self.look_for_vanished();
                if let Some(status) = self.child_status.filter(|_| self.alive().is_empty()) {
                    self.drain();
                    self.outputs.push_back(Output::ChildExited(status));
                    continue;
                }
                if self.census.is_some() {
                    // The wall clock may have been set.
                    self.correlator.set_clock(clock::measure());
                    self.outputs.push_back(Output::Tick);
                    continue;
                }
            }
            match self.inputs.recv_timeout(COUNTED_PACE) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Input::ChildExited(status)) => self.child_exited(status),
                Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    self.drain();
                    self.outputs.push_back(Output::Stopped);
                }
                Ok(input) => self.take(input),
            }
        }
    }

    /// Processes everything that happened before now, then completes what is in progress.
    pub(super) fn drain(&mut self) {
        // The reader may be waiting for room in the channel: keep receiving until its thread has ended.
        if let Some(census) = &self.census {
            census.stop();
        }
        self.reader.request_stop();
        loop {
            match self.inputs.recv_timeout(Duration::from_millis(5)) {
                Ok(input @ (Input::Record(_) | Input::Refused(_) | Input::Note(_) | Input::Aside(_))) => {
                    self.take(input)
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if !self.reader.has_ended() => {}
                Err(_) => break,
            }
        }
        for event in self.assembler.finish() {
            self.event(event);
        }
        let armory = self.armory.clone();
        for pid in self.correlator.pids().collect::<Vec<_>>() {
            self.note_lost(pid);
        }
        self.correlator.finish(&|index| program(&armory, index));
        self.flush();
        self.init_is_over();
        self.report_counted();
        let failures = self.armory.with_programs(Programs::failures).unwrap_or_default();
        for (reason, count) in failures {
            if !matches!(reason, Reason::StackRead) {
                self.outputs.push_back(Output::Note(format!("{count} times, {}", reason.sentence())));
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Record(bytes) => {
                self.records += 1;
                match self.assembler.push(&bytes) {
                    Ok(events) => events.into_iter().for_each(|event| self.event(event)),
                    Err(error) => self.outputs.push_back(Output::Note(error.to_string())),
                }
            }
            Input::Refused(error) => self.outputs.push_back(Output::Note(format!("not watched: {error}"))),
            Input::Note(note) => self.outputs.push_back(Output::Note(note)),
            Input::Aside(aside) => self.outputs.push_back(Output::Aside(aside)),
            Input::ChildExited(_) | Input::Stop => {}
        }
    }
}

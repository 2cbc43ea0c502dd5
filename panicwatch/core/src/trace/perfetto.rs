//! Exports a trace to Perfetto: a track per goroutine, and a slice per call if exits are traced, else an
//! instant.

use std::collections::HashMap;

use super::line::{Argument, Event, Line};
use crate::render::export::perfetto::{Annotation, Builder, Track, Value};

/// Maximum number of events, which stay in memory until the file is written at the end.
pub const MAX_EVENTS: u64 = 4_000_000;

/// A trace for Perfetto under construction.
pub struct Perfetto {
    builder: Builder,
    slices: bool,
    processes: HashMap<u32, Track>,
    tracks: HashMap<(u32, u64), Lane>,
    name: String,
    events: u64,
}

struct Lane {
    track: Track,
    /// Depths of the open slices, outermost first.
    open: Vec<usize>,
}

impl Perfetto {
    /// Returns an empty trace. `slices`: exits are traced. `name`: the program's. `realtime_offset_ns`:
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC.
    pub fn new(name: &str, slices: bool, realtime_offset_ns: Option<i128>) -> Perfetto {
        Perfetto {
            builder: Builder::new(realtime_offset_ns),
            slices,
            processes: HashMap::new(),
            tracks: HashMap::new(),
            name: name.to_owned(),
            events: 0,
        }
    }

    /// Adds an event; returns false if there are too many and it was dropped.
    pub fn push(&mut self, line: &Line<'_>) -> bool {
        if self.events >= MAX_EVENTS {
            return false;
        }
        self.events += 1;
        let process =
            *self.processes.entry(line.pid).or_insert_with(|| self.builder.process(line.pid, &self.name));
        // Stacks of threads get IDs that no goroutine has: there are never 2^63 goroutines.
        let id = line.goroutine.filter(|id| *id != 0).unwrap_or(1 << 63 | u64::from(line.thread));
        let lane = self.tracks.entry((line.pid, id)).or_insert_with(|| {
            let name = match line.goroutine {
                Some(goroutine) if goroutine != 0 => format!("goroutine {goroutine}"),
                _ => format!("thread {}", line.thread),
            };
            Lane { track: self.builder.track(process, &name), open: Vec::new() }
        });
        // The ends of calls at this depth or deeper were not seen: they were before this event.
        let deeper = |depth: &mut usize| match line.event {
            Event::Entry => *depth >= line.depth,
            Event::Exit | Event::Unwound => *depth > line.depth,
        };
        while lane.open.pop_if(deeper).is_some() {
            self.builder.end(lane.track, line.time_ns);
        }
        match line.event {
            Event::Entry if self.slices => {
                self.builder.begin(lane.track, line.time_ns, "call", line.function, facts(line));
                lane.open.push(line.depth);
            }
            Event::Entry => {
                self.builder.instant(lane.track, line.time_ns, "call", line.function, facts(line));
            }
            Event::Exit | Event::Unwound => {
                if lane.open.pop_if(|depth| *depth == line.depth).is_some() {
                    self.builder.end(lane.track, line.time_ns);
                } else if let Some(start) = line.duration_ns.and_then(|took| line.time_ns.checked_sub(took)) {
                    // A slow call that is reported when it is over.
                    self.builder.begin(lane.track, start, "call", line.function, facts(line));
                    self.builder.end(lane.track, line.time_ns);
                }
            }
        }
        true
    }

    /// Returns the bytes of the file.
    pub fn finish(self) -> Vec<u8> {
        self.builder.finish()
    }
}

fn facts(line: &Line<'_>) -> Vec<Annotation> {
    let text = |all: &[Argument]| {
        let one = |a: &Argument| format!("{}={}", a.name, a.value.as_deref().unwrap_or("?"));
        all.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let mut facts = vec![("thread", Value::Uint(line.thread.into()))];
    facts.extend(line.args.map(|args| ("args", Value::Text(text(args)))));
    facts.extend(line.results.map(|results| ("results", Value::Text(text(results)))));
    facts.extend(line.file.map(|file| ("file", Value::Text(file.to_owned()))));
    facts.extend(line.line.map(|line| ("line", Value::Uint(line.into()))));
    facts
}

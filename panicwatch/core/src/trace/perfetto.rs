//! The trace for Perfetto: a track for each goroutine, a slice for each call whose end is looked at, else an instant.

use std::collections::HashMap;

use super::line::{Argument, Event, Line};
use crate::render::export::perfetto::{Annotation, Builder, Track, Value};

/// Most events that are kept; the file is written at the end.
pub const MAX_EVENTS: u64 = 4_000_000;

/// Grows with each event.
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
    /// Depths of the slices that are open, outermost first.
    open: Vec<usize>,
}

impl Perfetto {
    /// `slices`: ends are looked at. `name`: of the program. `realtime_offset_ns`: CLOCK_REALTIME minus
    /// CLOCK_MONOTONIC.
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

    /// Adds one; false when there are too many and it was left out.
    pub fn push(&mut self, line: &Line<'_>) -> bool {
        if self.events >= MAX_EVENTS {
            return false;
        }
        self.events += 1;
        let process =
            *self.processes.entry(line.pid).or_insert_with(|| self.builder.process(line.pid, &self.name));
        // Threads' own stacks beside goroutines: 2^63 goroutines are never made.
        let id = line.goroutine.filter(|id| *id != 0).unwrap_or(1 << 63 | u64::from(line.thread));
        let lane = self.tracks.entry((line.pid, id)).or_insert_with(|| {
            let name = match line.goroutine {
                Some(goroutine) if goroutine != 0 => format!("goroutine {goroutine}"),
                _ => format!("thread {}", line.thread),
            };
            Lane { track: self.builder.track(process, &name), open: Vec::new() }
        });
        // Of calls as deep or deeper the end was not seen: it was before this.
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
                    // Told when over, because it was long.
                    self.builder.begin(lane.track, start, "call", line.function, facts(line));
                    self.builder.end(lane.track, line.time_ns);
                }
            }
        }
        true
    }

    /// The file's bytes.
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

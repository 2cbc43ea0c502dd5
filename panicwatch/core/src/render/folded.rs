//! Folded stacks: `process;goroutine;outermost;…;innermost COUNT`, the input format of flamegraph.pl, inferno
//! and speedscope.
//!
//! <https://github.com/brendangregg/FlameGraph/blob/v1.0/README.md> Each sample counts as one; if there are
//! none, calls count their duration in microseconds. The two are not mixed, because their numbers have
//! different meanings.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::incident::{
    Incident, escape,
    timeline::{Slice, SliceKind, Timeline, Track, TrackKind},
};

/// Returns the content of the file, sorted; empty if there is nothing to fold.
pub fn folded(incident: &Incident, timeline: &Timeline) -> String {
    let process = part(&super::program(incident));
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for track in &timeline.tracks {
        for sample in &track.samples {
            let mut line = format!("{process};{}", owner(track));
            for frame in sample.frames.iter().rev() {
                let _ = write!(line, ";{}", part(&frame.function));
            }
            for frame in sample.kernel.iter().rev() {
                let symbol = frame.symbol.clone().unwrap_or_else(|| frame.pc.to_string());
                // Marked as by stackcollapse-perf.pl --kernel.
                let _ = write!(line, ";{}_[k]", part(symbol.split('+').next().unwrap_or(&symbol)));
            }
            let count = counts.entry(line).or_default();
            *count = count.saturating_add(1);
        }
    }
    if counts.is_empty() {
        for track in &timeline.tracks {
            calls(&format!("{process};{}", owner(track)), timeline, track, &mut counts);
        }
    }
    counts.into_iter().filter(|(_, count)| *count > 0).fold(String::new(), |mut out, (line, count)| {
        let _ = writeln!(out, "{line} {count}");
        out
    })
}

fn owner(track: &Track) -> String {
    match track.kind {
        TrackKind::Goroutine => format!("goroutine {}", track.id),
        _ => format!("thread {}", track.id),
    }
}

/// Returns a name as a part of a line, without separators and line breaks.
fn part(name: &str) -> String {
    let name = escape::one_line_max(name, 1_000).replace(';', ":");
    if name.is_empty() { "?".to_owned() } else { name }
}

/// Adds the self time of each call, without the calls in it, in microseconds.
fn calls(prefix: &str, timeline: &Timeline, track: &Track, counts: &mut BTreeMap<String, u64>) {
    let mut open: Vec<(&Slice, String, u64)> = Vec::new();
    let end = |slice: &Slice| slice.to_ns.unwrap_or(timeline.to_ns);
    let mut close = |(slice, line, inner): (&Slice, String, u64)| {
        let own = end(slice).saturating_sub(slice.from_ns).saturating_sub(inner) / 1_000;
        let count = counts.entry(line).or_default();
        *count = count.saturating_add(own);
    };
    for slice in track.slices.iter().filter(|slice| slice.kind == SliceKind::Function) {
        while open.last().is_some_and(|(top, ..)| top.depth >= slice.depth) {
            open.pop().into_iter().for_each(&mut close);
        }
        let parent = open.last().map_or(prefix, |(_, line, _)| line);
        let line = format!("{parent};{}", part(&slice.name));
        if let Some((.., inner)) = open.last_mut() {
            *inner = inner.saturating_add(end(slice).saturating_sub(slice.from_ns));
        }
        open.push((slice, line, 0));
    }
    open.into_iter().rev().for_each(&mut close);
}

//! Draws a timeline as lanes of characters: one lane per track, one character per stretch of time.
//!
//! This module knows states and characters only. The character of a stretch shows the state that took most of
//! it.

use crate::{
    incident::timeline::{Doing, State, Timeline, Track, TrackKind},
    render::text::line::{Line, Tone},
};

/// Meaning of a character, in the order of the legend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Glyph {
    Ran,
    Inferred,
    Ready,
    Syscall,
    Waited,
    Stopped,
    Away,
    Unknown,
    Ours,
    Others,
    Marking,
}

/// All meanings, with character, tone and legend text.
const GLYPHS: [(Glyph, char, Tone, &str); 11] = [
    (Glyph::Ran, '█', Tone::Good, "running"),
    (Glyph::Inferred, '▓', Tone::Good, "running (inferred)"),
    (Glyph::Ready, '▒', Tone::Note, "runnable"),
    (Glyph::Syscall, '▂', Tone::Title, "syscall"),
    (Glyph::Waited, '·', Tone::Plain, "waiting"),
    (Glyph::Stopped, '╳', Tone::Bad, "stopped (STW or stack scan)"),
    (Glyph::Away, ' ', Tone::Plain, "none of these"),
    (Glyph::Unknown, '?', Tone::Note, "unknown"),
    (Glyph::Ours, '▚', Tone::Dim, "same process, not this goroutine"),
    (Glyph::Others, '░', Tone::Dim, "other processes"),
    (Glyph::Marking, 'm', Tone::Note, "GC mark"),
];

impl Glyph {
    fn of(track: &Track, state: &State, goroutine: Option<u64>) -> Glyph {
        let its = goroutine.is_some() && state.goroutine == goroutine;
        match (track.kind, state.state) {
            (TrackKind::Cpu | TrackKind::Thread, Doing::Running | Doing::Syscall | Doing::Runnable)
                if !its =>
            {
                match state.state {
                    Doing::Running => Glyph::Ours,
                    // A thread's states for other goroutines are not distinguished: its row is about the
                    // incident's goroutine.
                    _ if track.kind == TrackKind::Thread && state.cpu.is_none() => Glyph::Away,
                    _ => Glyph::Ours,
                }
            }
            (TrackKind::Cpu, Doing::Other) if is_idle(state) => Glyph::Away,
            (_, Doing::Running) if state.inferred => Glyph::Inferred,
            (_, Doing::Running) => Glyph::Ran,
            (_, Doing::Runnable) => Glyph::Ready,
            (_, Doing::Syscall) => Glyph::Syscall,
            (_, Doing::Waiting) => Glyph::Waited,
            (_, Doing::Stopped) => Glyph::Stopped,
            (_, Doing::Other) => Glyph::Others,
            (_, Doing::Marking) => Glyph::Marking,
            (_, Doing::NotRunning | Doing::Idle | Doing::Ended) => Glyph::Away,
            (_, Doing::Unknown) => Glyph::Unknown,
        }
    }

    fn entry(self) -> &'static (Glyph, char, Tone, &'static str) {
        &GLYPHS[self as usize]
    }
}

fn is_idle(state: &State) -> bool {
    state.detail.as_deref().is_some_and(|detail| detail.starts_with("idle") && !detail.contains(" last"))
}

/// Returns the lane of one track in `columns` columns, from the start of the window to the raise.
pub(super) fn lane(timeline: &Timeline, track: &Track, columns: usize) -> Vec<Glyph> {
    let (from, to) = (timeline.from_ns, timeline.raise_ns);
    let mut shares = vec![[0_u64; GLYPHS.len()]; columns];
    if columns == 0 || to <= from {
        return Vec::new();
    }
    let span = u128::from(to - from);
    // Start of column `i`, in nanoseconds from the start of the window. If the window is shorter than the
    // number of columns in nanoseconds, some columns are empty.
    let edge = |i: usize| (span * i as u128 / columns as u128) as u64;
    for state in &track.states {
        let (begin, end) = (state.from_ns.max(from), state.to_ns.min(to));
        if begin >= end {
            continue;
        }
        let (begin, end) = (begin - from, end - from);
        let glyph = Glyph::of(track, state, timeline.summary.goroutine) as usize;
        let first = (u128::from(begin) * columns as u128 / span) as usize;
        for (i, share) in shares.iter_mut().enumerate().skip(first) {
            if edge(i) >= end {
                break;
            }
            let part = edge(i + 1).min(end).saturating_sub(edge(i).max(begin));
            share[glyph] = share[glyph].saturating_add(part);
        }
    }
    let mut last = Glyph::Unknown;
    let most = |share: &[u64; GLYPHS.len()]| {
        // Among equal shares, the first in the legend wins.
        let most = GLYPHS.iter().rev().max_by_key(|(glyph, ..)| share[*glyph as usize]);
        most.map(|(glyph, ..)| *glyph).filter(|glyph| share[*glyph as usize] > 0)
    };
    shares
        .iter()
        .map(|share| {
            last = most(share).unwrap_or(last);
            last
        })
        .collect()
}

/// Returns the lane as text.
pub(super) fn draw(lane: &[Glyph]) -> Line {
    lane.iter().fold(Line::new(), |line, glyph| {
        let (_, char, tone, _) = glyph.entry();
        line.glyph(*tone, *char)
    })
}

/// Returns the legend of the characters in these lanes, one piece each.
pub(super) fn legend(lanes: &[Vec<Glyph>]) -> Vec<Line> {
    let used = |glyph: Glyph| glyph != Glyph::Away && lanes.iter().flatten().any(|g| *g == glyph);
    let entries = GLYPHS.iter().filter(|(glyph, ..)| used(*glyph));
    entries
        .map(|(_, char, tone, text)| Line::new().glyph(*tone, *char).own(Tone::Dim, " ").own(Tone::Dim, text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn glyphs_are_where_their_numbers_say() {
        for (i, (glyph, ..)) in GLYPHS.iter().enumerate() {
            assert_eq!(*glyph as usize, i);
        }
    }
}

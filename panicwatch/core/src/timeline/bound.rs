//! Bounds the size of a timeline in the document: keeps what is nearest to the raise and to the panicking
//! goroutine.

use super::{Input, states::state};
use crate::incident::timeline::{Doing, Track, TrackKind, event::Event};

/// Most events that a timeline keeps.
const MAX_EVENTS: usize = 20_000;
/// Most tracks of each kind.
const MAX_TRACKS: usize = 256;
/// Most states of one track.
const MAX_STATES: usize = 10_000;
const MAX_ALL_STATES: usize = 100_000;

/// Keeps the events nearest to the raise; returns the number of the others.
pub(super) fn events(input: &Input<'_>, events: &mut Vec<Event>) -> u64 {
    let left_out = events.len().saturating_sub(MAX_EVENTS);
    let raise = events.partition_point(|event| event.time_ns <= input.raise_ns);
    let after = events.len() - raise;
    // Events after the raise get one half of the room, plus what the events before it do not need.
    let after = after.min(MAX_EVENTS - raise.min(MAX_EVENTS / 2));
    events.truncate(raise + after);
    let first = events.len().saturating_sub(MAX_EVENTS);
    events.drain(..first);
    left_out as u64
}

/// Keeps the largest tracks, and those of the panicking goroutine and its thread; returns the number of the
/// others. If a track has too many states, its earliest states are merged into one.
pub(super) fn tracks(input: &Input<'_>, tracks: &mut Vec<Track>) -> u64 {
    let before = tracks.len();
    for kind in [TrackKind::Goroutine, TrackKind::Thread, TrackKind::Cpu] {
        let own = |track: &Track| match kind {
            TrackKind::Goroutine => Some(track.id) == input.goroutine,
            _ => Some(track.id) == input.thread.map(u64::from),
        };
        let mut sizes: Vec<(bool, usize, u64)> =
            tracks.iter().filter(|t| t.kind == kind).map(|t| (own(t), weight(t), t.id)).collect();
        sizes.sort_by(|a, b| b.cmp(a));
        let kept: Vec<u64> = sizes.into_iter().take(MAX_TRACKS).map(|(.., id)| id).collect();
        tracks.retain(|track| track.kind != kind || kept.contains(&track.id));
    }
    let mut room = MAX_ALL_STATES;
    for track in tracks.iter_mut() {
        shorten(input, track, room.clamp(1, MAX_STATES));
        room = room.saturating_sub(track.states.len());
    }
    (before - tracks.len()) as u64
}

fn weight(track: &Track) -> usize {
    track.states.len() + track.slices.len() + track.samples.len()
}

fn shorten(input: &Input<'_>, track: &mut Track, max: usize) {
    let Some(kept) = track.states.len().checked_sub(max).filter(|n| *n > 0) else { return };
    let end = track.states[kept].to_ns;
    let why = format!("{} states left out: too many for the document", kept + 1);
    let mut states = vec![state(input.from_ns, end, Doing::Unknown, Some(why))];
    states.extend(track.states.drain(kept + 1..));
    track.states = states;
}

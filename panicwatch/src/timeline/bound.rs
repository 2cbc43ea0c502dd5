//! How much of a timeline a document takes: what is nearest to the raise and to the goroutine stays.

use super::{
    Input,
    event::Event,
    model::{Doing, Track, TrackKind},
    states::state,
};

/// Events.
const MAX_EVENTS: usize = 20_000;
/// Tracks of each kind.
const MAX_TRACKS: usize = 256;
/// States of one track, and of all.
const MAX_STATES: usize = 10_000;
const MAX_ALL_STATES: usize = 100_000;

/// Keeps the events nearest to the raise; gives the number of the others.
pub(super) fn events(input: &Input<'_>, events: &mut Vec<Event>) -> u64 {
    let left_out = events.len().saturating_sub(MAX_EVENTS);
    let raise = events.partition_point(|event| event.time_ns <= input.raise_ns);
    let after = events.len() - raise;
    // What comes after the raise has its half, or what the time before it does not need.
    let after = after.min(MAX_EVENTS - raise.min(MAX_EVENTS / 2));
    events.truncate(raise + after);
    let first = events.len().saturating_sub(MAX_EVENTS);
    events.drain(..first);
    left_out as u64
}

/// Keeps the tracks with most to tell; gives the number of the others. Of a track with too many states, the earliest
/// become one.
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

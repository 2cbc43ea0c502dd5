//! Slices of the panic path on the goroutine's track: each panic from its raise to its end, with its deferred
//! calls.

use super::Input;
use crate::incident::{
    Panic, State,
    timeline::{Slice, SliceKind, Track, TrackKind},
};

/// Adds the slices to the panicking goroutine's track.
pub(super) fn add(input: &Input<'_>, tracks: &mut [Track]) {
    let id = input.goroutine;
    let Some(track) = tracks.iter_mut().find(|t| t.kind == TrackKind::Goroutine && Some(t.id) == id) else {
        return;
    };
    for (i, panic) in input.panics.iter().enumerate() {
        let depth = u32::try_from(i).unwrap_or(u32::MAX).saturating_mul(2);
        track.slices.push(Slice {
            from_ns: panic.raised_ns,
            to_ns: end(input, panic),
            kind: SliceKind::Panic,
            name: said(panic),
            depth,
            inferred: false,
            frame: panic.site.clone(),
        });
        for defer in &panic.defers {
            track.slices.push(Slice {
                from_ns: defer.start_ns,
                to_ns: defer.end_ns,
                kind: SliceKind::Defer,
                name: defer
                    .function
                    .as_ref()
                    .map_or_else(|| "unknown deferred call".to_owned(), |f| f.function.clone()),
                depth: depth.saturating_add(1),
                inferred: false,
                frame: defer.function.clone(),
            });
        }
    }
}

/// Returns the end of a panic: when it was recovered, or else the end of the incident.
fn end(input: &Input<'_>, panic: &Panic) -> Option<u64> {
    let recovered = panic.recover.as_ref().map(|r| panic.raised_ns.saturating_add(r.ns_after_raise));
    recovered.or(input.end_ns.filter(|_| panic.state != State::Running))
}

/// Returns the panic's text, or else its type, shortened; the document has it in full elsewhere.
pub(super) fn said(panic: &Panic) -> String {
    const MAX_CHARS: usize = 200;
    let value = &panic.value;
    let text = value.printed.as_ref().or(value.text.as_ref()).or(value.type_name.as_ref());
    let Some(text) = text else { return "panic".to_owned() };
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("panic: {}…", &text[..end]),
        None => format!("panic: {text}"),
    }
}

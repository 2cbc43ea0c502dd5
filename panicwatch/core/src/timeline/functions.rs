//! Calls of functions, derived from their entries only: a call has ended when a function is entered whose
//! frame is not deeper.
//!
//! Stacks grow down and are copied when they grow; the distance of the stack pointer from `stack.hi` stays
//! the same. So a call is open until an entry at the same or a smaller distance.

use std::collections::BTreeMap;

use panicwatch_common::recorder::{Slot, kind};

use super::Input;
use crate::incident::{
    Frame,
    timeline::{Slice, SliceKind, Track, TrackKind},
};

/// A call whose end is not known yet.
struct Open {
    distance: u64,
    from_ns: u64,
    frame: Frame,
    depth: u32,
}

/// Adds the calls to the tracks of their goroutines, or to those of threads for calls without a goroutine.
pub(super) fn add(input: &Input<'_>, tracks: &mut [Track]) {
    let mut by_owner: BTreeMap<(TrackKind, u64), Vec<&Slot>> = BTreeMap::new();
    for (_, slot) in input.own_records() {
        if matches!(slot.kind, kind::FUNCTION | kind::GO_END) {
            let owner = match slot.goid {
                0 => (TrackKind::Thread, u64::from(slot.tid)),
                goid => (TrackKind::Goroutine, goid),
            };
            by_owner.entry(owner).or_default().push(slot);
        }
    }
    for track in tracks {
        if let Some(slots) = by_owner.get(&(track.kind, track.id)) {
            track.slices.extend(slices(input, slots));
        }
    }
}

fn slices(input: &Input<'_>, slots: &[&Slot]) -> Vec<Slice> {
    let (mut open, mut done): (Vec<Open>, Vec<Slice>) = (Vec::new(), Vec::new());
    for slot in slots {
        let distance = if slot.kind == kind::GO_END { 0 } else { slot.args[1] };
        while open.last().is_some_and(|call| call.distance >= distance) {
            done.extend(open.pop().map(|call| call.over(Some(slot.time_ns))));
        }
        if slot.kind == kind::FUNCTION {
            let frame = input.names.frames(slot.args[0], true).pop();
            let frame = frame.unwrap_or_else(|| unnamed(slot.args[0]));
            let depth = u32::try_from(open.len()).unwrap_or(u32::MAX);
            open.push(Open { distance, from_ns: slot.time_ns, frame, depth });
        }
    }
    done.extend(open.into_iter().map(|call| call.over(None)));
    done.retain(|slice| slice.to_ns.is_none_or(|to| to >= input.from_ns));
    for slice in &mut done {
        slice.from_ns = slice.from_ns.max(input.from_ns);
    }
    done.sort_by_key(|slice| (slice.from_ns, slice.depth));
    done
}

impl Open {
    fn over(self, to_ns: Option<u64>) -> Slice {
        Slice {
            from_ns: self.from_ns,
            to_ns,
            kind: SliceKind::Function,
            name: self.frame.function.clone(),
            depth: self.depth,
            inferred: to_ns.is_some(),
            frame: Some(self.frame),
        }
    }
}

/// Returns a frame for an address without a symbol.
pub(super) fn unnamed(pc: u64) -> Frame {
    let pc = crate::incident::Addr(pc);
    Frame { function: pc.to_string(), pc, ..Frame::default() }
}

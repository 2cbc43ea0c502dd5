//! The goroutine's creator, the creator's creator, and so on.
//!
//! The nearest creator is in g itself; the others are in `g.ancestors`, which Go maintains with
//! `GODEBUG=tracebackancestors=N` and prints as `[originating from goroutine N]`.
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/proc.go> (saveAncestors)

use panicwatch_common::{event::ANCESTORS, go::SLICE_LEN};

use super::build::lack;
use crate::{
    capture::View,
    go::traceback::{self, Visibility},
    incident::{Ancestor, Frame, Incident},
};

const NOT_KEPT: &str =
    "the program runs without GODEBUG=tracebackancestors=N: Go keeps the nearest creator only";
const UNREAD: &str = "the goroutine's ancestor list is in memory that could not be read";

/// A decoded `runtime.ancestorInfo`.
struct Kept {
    goid: u64,
    /// The go statement that created it, in its creator.
    gopc: u64,
}

/// Go's list of a goroutine's ancestors.
enum List {
    /// There is no list.
    None,
    /// The list could not be read.
    Unread,
    /// Ancestors, nearest first; the list has `len`, some of which may not have been captured.
    Kept { kept: Vec<Kept>, len: u64 },
}

fn list(view: &View<'_>) -> List {
    let layout = view.program.bin.layout();
    let slice = match view.g(layout.g.ancestors) {
        Some(0) => return List::None,
        Some(slice) => slice,
        None => return List::Unread,
    };
    let (Some(first), Some(len)) = (view.word(slice, 0), view.word(slice, SLICE_LEN as u16)) else {
        return List::Unread;
    };
    let info = &layout.ancestor_info;
    let one = |i: u64| {
        let at = first.checked_add(i * u64::from(info.size))?;
        Some(Kept { goid: view.word(at, info.goid)?, gopc: view.word(at, info.gopc)? })
    };
    let kept: Vec<Kept> = (0..len.min(ANCESTORS as u64)).map_while(one).collect();
    if kept.is_empty() && len > 0 { List::Unread } else { List::Kept { kept, len } }
}

/// Fills in `ancestry`: `created_at` is the go statement of the goroutine, in goroutine `parent`.
pub(super) fn fill(
    incident: &mut Incident,
    view: &View<'_>,
    parent: Option<u64>,
    created_at: Frame,
    visibility: Visibility,
) {
    let (kept, len) = match list(view) {
        List::Kept { kept, len } => (kept, len),
        none @ (List::None | List::Unread) => {
            if let Some(id) = parent {
                incident.ancestry.push(Ancestor { goroutine_id: Some(id), created_at: Some(created_at) });
            }
            // The first goroutine is the runtime's own.
            if parent != Some(1) {
                let reason = if matches!(none, List::None) { NOT_KEPT } else { UNREAD };
                incident.missing.push(lack("ancestry", reason));
            }
            return;
        }
    };
    let mut next = Some(created_at);
    for ancestor in &kept {
        incident.ancestry.push(Ancestor { goroutine_id: Some(ancestor.goid), created_at: next.take() });
        let shown =
            traceback::shows_creator(&view.program.bin, view.bias, ancestor.gopc, ancestor.goid, visibility);
        next = shown.then(|| traceback::creator(&view.program.bin, view.bias, ancestor.gopc)).flatten();
        if next.is_none() {
            return; // The runtime created that one.
        }
    }
    let reason = match kept.len() as u64 {
        read if read < len.min(ANCESTORS as u64) => UNREAD.to_owned(),
        read if read < len => format!("Go keeps {len} ancestors; the nearest {ANCESTORS} are read"),
        _ => format!("GODEBUG=tracebackancestors keeps no more than {len}"),
    };
    // For the outermost known ancestor, the go statement that created it is known, but not the goroutine.
    let what = format!("ancestry[{}].goroutine_id", incident.ancestry.len());
    incident.ancestry.push(Ancestor { goroutine_id: None, created_at: next });
    incident.missing.push(lack(what, reason));
}

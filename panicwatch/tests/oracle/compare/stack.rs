//! Compares stack frames.

use panicwatch::{go::release::Release, incident::Frame};

use super::Differences;
use crate::go_text::{FrameText, GoroutineText};

/// Frames that Go prints at each end of a deep stack (Go 1.21 and later): tracebackInnerFrames,
/// tracebackOuterFrames in <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go>.
const KEPT: usize = 50;

/// Go 1.20 and earlier stop after 100 frames, including hidden ones, and do not print how many more there
/// are; if some were hidden, not even that there are more:
/// <https://github.com/golang/go/blob/go1.19.8/src/runtime/traceback.go> (_TracebackMaxFrames)
pub(crate) fn open_ended(go: &GoroutineText, release: Release) -> bool {
    matches!(go.elided, Some((_, None))) || (!release.traceback_prints_both_ends() && go.frames.len() >= 95)
}

/// Compares a goroutine's frames, their order, and the number of elided frames.
pub(crate) fn compare(
    go: &GoroutineText,
    seen: &[Frame],
    seen_elided: Option<u64>,
    release: Release,
    d: &mut Differences,
) {
    let Some(seen_elided) = seen_elided else {
        return d.equal("stack_elided is known", true, false);
    };
    match go.elided {
        _ if open_ended(go, release) => {
            let n = if seen_elided == 0 { go.frames.len() } else { KEPT };
            d.equal("stack: enough innermost frames", true, seen.len() >= n);
            pairs("stack", &go.frames[..n.min(go.frames.len())], &seen[..n.min(seen.len())], d);
        }
        None | Some((_, None)) => {
            d.equal("stack_elided", 0, seen_elided);
            pairs("stack", &go.frames, seen, d);
        }
        Some((at, Some(elided))) => {
            let total = go.frames.len() as u64 + elided;
            d.equal("stack depth, elided frames included", total, seen.len() as u64 + seen_elided);
            let (inner, outer) = go.frames.split_at(at);
            if seen.len() < go.frames.len() {
                d.add(format!("stack: Go shows {} frames, the incident {}", go.frames.len(), seen.len()));
                return;
            }
            pairs("stack", inner, &seen[..inner.len()], d);
            pairs("stack (outermost)", outer, &seen[seen.len() - outer.len()..], d);
        }
    }
}

fn pairs(what: &str, go: &[FrameText], seen: &[Frame], d: &mut Differences) {
    if go.len() != seen.len() {
        let go: Vec<&str> = go.iter().map(|f| f.function.as_str()).collect();
        let seen: Vec<&str> = seen.iter().map(|f| f.function.as_str()).collect();
        d.equal(&format!("{what}: functions"), go, seen);
        return;
    }
    for (i, (go, seen)) in go.iter().zip(seen).enumerate() {
        frame(&format!("{what}[{i}]"), go, seen, d);
    }
}

/// Compares one frame.
pub(crate) fn frame(what: &str, go: &FrameText, seen: &Frame, d: &mut Differences) {
    d.equal(&format!("{what}.function"), go.function.as_str(), seen.function.as_str());
    d.equal(&format!("{what}.file"), Some(go.file.as_str()), seen.file.as_deref());
    d.equal(&format!("{what}.line"), Some(go.line), seen.line);
    d.equal(&format!("{what}.inlined"), go.inlined, seen.inlined);
    // Go prints no offset at a function's first instruction, nor for inlined calls.
    if !go.inlined {
        d.equal(&format!("{what}.offset"), go.offset.unwrap_or(0), seen.offset);
    }
    if let Some(pc) = go.pc {
        d.equal(&format!("{what}.pc"), pc, seen.pc.0);
    }
}

//! Formats a goroutine's stack as Go's `debug.Stack` does, without arguments. Does no I/O.
//!
//! After traceback2 and printcreatedby of
//! <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceback.go>

use std::fmt::Write as _;

use super::wall::{MAX_NAME, cut};
use crate::incident::{Frame, Incident};

/// Maximum number of frames, as in Go.
const MAX_FRAMES: usize = 100;
/// Number of inner frames that precede the elided ones in Go's output.
const INNER: usize = 50;

/// Returns the stack; `None` if it is unknown.
pub(super) fn of(incident: &Incident) -> Option<String> {
    if incident.stack.is_empty() {
        return None;
    }
    let mut out = String::new();
    let goroutine = incident.goroutine.as_ref();
    if let Some(goroutine) = goroutine {
        let status = goroutine.status.as_deref().unwrap_or("running");
        let locked = if goroutine.locked_to_thread == Some(true) { ", locked to thread" } else { "" };
        let _ = writeln!(out, "goroutine {} [{}{locked}]:", goroutine.id, cut(status, MAX_NAME));
    }
    for (i, frame) in incident.stack.iter().take(MAX_FRAMES).enumerate() {
        if i == INNER && incident.stack_elided != Some(0) {
            let _ = match incident.stack_elided {
                Some(elided) => writeln!(out, "...{elided} frames elided..."),
                None => writeln!(out, "...additional frames elided..."),
            };
        }
        let _ = writeln!(out, "{}(...)", cut(&frame.function, MAX_NAME));
        place(&mut out, frame);
    }
    if incident.stack.len() > MAX_FRAMES {
        out.push_str("...additional frames elided...\n");
    }
    if let Some(created_by) = goroutine.and_then(|goroutine| goroutine.created_by.as_ref()) {
        let _ = write!(out, "created by {}", cut(&created_by.function, MAX_NAME));
        if let Some(parent) = goroutine.and_then(|goroutine| goroutine.parent_id) {
            let _ = write!(out, " in goroutine {parent}");
        }
        out.push('\n');
        place(&mut out, created_by);
    }
    Some(out)
}

fn place(out: &mut String, frame: &Frame) {
    let _ = write!(out, "\t{}", cut(frame.file.as_deref().unwrap_or("?"), MAX_NAME));
    if let Some(line) = frame.line {
        let _ = write!(out, ":{line}");
    }
    if !frame.inlined && frame.offset > 0 {
        let _ = write!(out, " +{:#x}", frame.offset);
    }
    out.push('\n');
}

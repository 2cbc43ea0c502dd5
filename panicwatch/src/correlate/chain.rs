//! One goroutine's panics: raised, their deferred calls, recovered. Changes [`ProcessState`], builds nothing.

use super::{
    has_defer_iterator,
    program::{Program, View},
    state::{OpenPanic, ProcessState},
};
use crate::{
    event::{Body, Event, Point},
    incident::{Defer, DeferEnd, Frame, Recover},
    memory::Memory,
};

/// `_panic`s of one goroutine that are followed.
const MAX_CHAIN: usize = 64;

/// gopanic was entered.
pub(super) fn raised(process: &mut ProcessState, event: Event, program: &Program) {
    let head = event.head;
    let layout = program.bin.layout();
    // g.sig is set by the signal handler for the panic it makes, and stays set until the panic ends.
    let from_signal = {
        let view = program.view(&event);
        view.memory().u32(head.g + u64::from(layout.g.sig)).is_some_and(|sig| sig != 0)
    };
    let fault = process.faults.remove(&head.tid).filter(|fault| from_signal && fault.head.goid == head.goid);
    let chain = process.goroutines.entry(head.goid).or_default();
    if let Some(older) = chain.last_mut() {
        older.end_defer(head.time_ns, DeferEnd::Panicked);
    }
    chain.push(OpenPanic { raise: event, signal: fault, place: None, defers: Vec::new(), recover: None });
}

/// The open panic whose `_panic` is at the top of the goroutine's list: known by its place, or else the newest whose
/// place is not known yet.
fn top<'a>(process: &'a mut ProcessState, view: &View<'_>, point: &Point) -> Option<&'a mut OpenPanic> {
    let head = view.event.head;
    let chain = process.goroutines.get_mut(&head.goid)?;
    if point.panic_addr == 0 || view.byte(point.panic_addr, view.program.bin.layout().panic.goexit) == Some(1)
    {
        return None;
    }
    let place = head.stack_hi.wrapping_sub(point.panic_addr);
    if let Some(known) = chain.iter().position(|panic| panic.place == Some(place)) {
        return chain.get_mut(known);
    }
    let newest = chain.iter_mut().rev().find(|panic| panic.place.is_none())?;
    newest.place = Some(place);
    Some(newest)
}

fn point(event: &Event) -> Option<&Point> {
    match &event.body {
        Body::Point(point) => Some(point),
        _ => None,
    }
}

/// A deferred call begins.
pub(super) fn defer_begins(process: &mut ProcessState, view: &View<'_>) {
    let Some(point) = point(view.event) else { return };
    let registered_by = registered_by(view, point);
    let function = view.function(point.args[1]);
    let time_ns = view.event.head.time_ns;
    let Some(panic) = top(process, view, point) else { return };
    // The one before cannot still run: its end was lost.
    panic.end_defer(time_ns, DeferEnd::Returned);
    panic.defers.push(Defer { function, registered_by, start_ns: time_ns, end_ns: None, ended: None });
}

/// Who wrote the defer statement: always a function of its own, for one that defers is not inlined.
///
/// From Go 1.22 on the panic knows the return address of deferproc, whose line is that of the statement, or, for an
/// open-coded defer, of deferreturn: then only the function is meant. Before, the record knows; an open-coded one
/// where the frame was left, which again means the function only.
fn registered_by(view: &View<'_>, point: &Point) -> Option<Frame> {
    let layout = view.program.bin.layout();
    let (pc, open_coded) = match layout.panic.retpc {
        Some(retpc) => (view.word(point.panic_addr, retpc)?, None),
        None => {
            let open = layout.defer.open_defer.and_then(|field| view.byte(point.defer_addr, field));
            match (open, layout.defer.framepc) {
                (Some(1), Some(framepc)) => (view.word(point.defer_addr, framepc)?, Some(true)),
                _ => (view.word(point.defer_addr, layout.defer.pc)?, Some(false)),
            }
        }
    };
    let link = pc.wrapping_sub(view.bias);
    let returns = view.program.bin.find_func(link).and_then(|func| func.deferreturn());
    // `p.retpc = fn.entry() + fn.deferreturn`: the call itself.
    // https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go (initOpenCodedDefers)
    let at_deferreturn = || returns == Some(link);
    let mut frame = view.frames(pc, false).pop()?;
    if open_coded.unwrap_or_else(at_deferreturn) {
        frame.line = None;
    }
    Some(frame)
}

/// The deferred call returned.
pub(super) fn defer_ended(process: &mut ProcessState, view: &View<'_>) {
    let Some(point) = point(view.event) else { return };
    let how = if point.args[0] == 1 { DeferEnd::Recovered } else { DeferEnd::Returned };
    // Only of a panic whose deferred call was seen to begin: the event brings nothing to know others by.
    let head = view.event.head;
    let place = head.stack_hi.wrapping_sub(point.panic_addr);
    let Some(chain) = process.goroutines.get_mut(&head.goid) else { return };
    if let Some(panic) = chain.iter_mut().find(|panic| panic.place == Some(place) && panic.defer_is_running())
    {
        panic.end_defer(head.time_ns, how);
    }
}

/// recover() caught a panic.
pub(super) fn recovered(process: &mut ProcessState, view: &View<'_>) {
    let Some(point) = point(view.event) else { return };
    // Up to 1.25 gorecover has no frame: the return address is at SP; from 1.26 on it has one.
    let caller = if view.program.bin.version().minor >= 26 { point.args[1] } else { point.args[0] };
    let by = view.caller(caller);
    let now = view.event.head.time_ns;
    if let Some(panic) = top(process, view, point) {
        panic.recover = Some(Recover { by, ns_after_raise: now.saturating_sub(panic.raise.head.time_ns) });
    }
}

/// The goroutine is about to continue after a recovery: takes out the panics that end here, oldest first.
pub(super) fn recovery(process: &mut ProcessState, view: &View<'_>) -> Vec<OpenPanic> {
    let head = view.event.head;
    let Some(point) = point(view.event) else { return Vec::new() };
    let now = head.time_ns;
    let remaining = remaining(view, point);
    let Some(chain) = process.goroutines.get_mut(&head.goid) else { return Vec::new() };
    let mut ended = Vec::new();
    let mut kept = Vec::new();
    // What is still linked lives on. A panic of unknown place has not run a deferred call: it is older than none.
    for panic in chain.drain(..) {
        let lives = panic.place.is_some_and(|place| remaining.contains(&place));
        if lives { kept.push(panic) } else { ended.push(panic) }
    }
    *chain = kept;
    if chain.is_empty() {
        process.goroutines.remove(&head.goid);
    }
    if let Some(last) = ended.last_mut() {
        last.end_defer(now, DeferEnd::Recovered);
    }
    ended
}

/// Places of the panics that go on after this recovery.
fn remaining(view: &View<'_>, point: &Point) -> Vec<u64> {
    let layout = view.program.bin.layout();
    let mut linked = Vec::new();
    let mut at = point.panic_addr;
    while at != 0 && linked.len() < MAX_CHAIN {
        linked.push(at);
        at = view.word(at, layout.panic.link).unwrap_or(0);
    }
    let places =
        |linked: &[u64]| linked.iter().map(|at| view.event.head.stack_hi.wrapping_sub(*at)).collect();
    if !has_defer_iterator(view.program.bin.version()) {
        // Already taken off the list.
        return places(&linked);
    }
    // `for ; p != nil && uintptr(p.startSP) < sp; p = p.link { if p.goexit { break } }`
    // https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L1108
    let (Some(start_sp), Some(top)) = (layout.panic.start_sp, linked.first()) else { return Vec::new() };
    let sp = view.word(*top, layout.panic.sp).unwrap_or(u64::MAX);
    let ends = |at: &u64| view.word(*at, start_sp).is_some_and(|start| start < sp);
    let first_kept = linked.iter().position(|at| !ends(at)).unwrap_or(linked.len());
    places(&linked[first_kept..])
}

//! One goroutine's panics: raised, their deferred calls, recovered. Changes [`ProcessState`], builds nothing.

use panicwatch_common::event::kind;

use super::{
    has_defer_iterator,
    state::{Ended, OpenPanic, Place, ProcessState},
};
use crate::{
    capture::{
        Program, View,
        event::{Body, Event, Point},
    },
    go::memory::Memory,
    incident::{Defer, DeferEnd, Frame, Recover},
};

/// Panics of one goroutine that are kept: half of them the oldest, half the newest.
pub(super) const MAX_CHAIN: usize = 128;
/// Size of gopanic's frame where the tables do not tell; those of Go 1.19 to 1.27 have 0x68 to 0x108.
const GOPANIC_FRAME: u64 = 0x100;

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
    if let Some(older) = chain.open.last_mut() {
        older.end_defer(head.time_ns, DeferEnd::Panicked);
    }
    if chain.open.len() >= MAX_CHAIN {
        let middle = chain.open.remove(MAX_CHAIN / 2);
        chain.left_out.push(middle.place);
    }
    // Under the probe the stack pointer is where the return address is.
    let slot = head.stack_hi.wrapping_sub(head.sp);
    let inner = slot.saturating_add(program.gopanic_frame().unwrap_or(GOPANIC_FRAME));
    let place = Place { start: slot.wrapping_sub(8), inner };
    chain.lost = head.lost;
    chain.open.push(OpenPanic {
        raise: event,
        signal: fault,
        place,
        defers: Vec::new(),
        recover: None,
        lost: 0,
    });
}

/// Where Go's list of the goroutine's panics begins: `Some(None)` when it is empty, `None` when the event does not say.
fn newest_linked(view: &View<'_>) -> Option<Option<u64>> {
    let head = view.event.head;
    let at = match &view.event.body {
        Body::Point(point) => point.panic_addr,
        Body::Capture(_) => view.g(view.program.bin.layout().g.panic)?,
        Body::Process(_) => return None,
    };
    Some((at != 0).then(|| head.stack_hi.wrapping_sub(at)))
}

/// Brings the open panics of an event's goroutine up to date before the event is acted on: counts the records that were
/// lost since its last event, and takes out the panics that Go does not list any more. Their end was not seen.
pub(super) fn catch_up(process: &mut ProcessState, view: &View<'_>) -> Ended {
    let head = view.event.head;
    let Some(chain) = process.goroutines.get_mut(&head.goid) else { return Ended::default() };
    chain.note_lost(head.lost);
    // Before Go 1.22 what a recovery ends is off the list already.
    let off_early = head.kind == kind::RECOVERY && !has_defer_iterator(view.program.bin.version());
    let Some(newest) = newest_linked(view).filter(|_| !off_early) else { return Ended::default() };
    // gopanic throws some panics before it has put them on the list ("panic during malloc").
    let unlisted = match chain.open.last() {
        Some(last) if head.kind == kind::THROW && last.defers.is_empty() && last.lost == 0 => {
            Some(last.place)
        }
        _ => None,
    };
    let ends = |place: &Place| Some(*place) != unlisted && !newest.is_some_and(|at| place.is_linked(at));
    let ended = chain.take(|panic| ends(&panic.place), ends);
    if chain.open.is_empty() {
        process.goroutines.remove(&head.goid);
    }
    ended
}

/// The open panic whose `_panic` is at the top of the goroutine's list.
fn top<'a>(process: &'a mut ProcessState, view: &View<'_>, point: &Point) -> Option<&'a mut OpenPanic> {
    let head = view.event.head;
    let chain = process.goroutines.get_mut(&head.goid)?;
    let at = head.stack_hi.wrapping_sub(point.panic_addr);
    chain.open.iter_mut().rev().find(|panic| point.panic_addr != 0 && panic.place.holds(at))
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
    // The call before has returned, or gopanic would not call the next; when, only its lost record knew.
    if let Some(before) = panic.defers.last_mut().filter(|defer| defer.end_ns.is_none()) {
        before.ended = Some(DeferEnd::Returned);
    }
    panic.defers.push(Defer {
        function,
        nil: point.args[0] == 0,
        registered_by,
        start_ns: time_ns,
        end_ns: None,
        ended: None,
    });
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
    let time_ns = view.event.head.time_ns;
    // The loop's first turn ends nothing.
    if let Some(panic) = top(process, view, point).filter(|panic| panic.defer_is_running()) {
        panic.end_defer(time_ns, how);
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

/// The goroutine is about to continue after a recovery: takes out the panics that end here.
pub(super) fn recovery(process: &mut ProcessState, view: &View<'_>) -> Ended {
    let head = view.event.head;
    let Some(point) = point(view.event) else { return Ended::default() };
    let Some(chain) = process.goroutines.get_mut(&head.goid) else { return Ended::default() };
    let newest = (point.panic_addr != 0).then(|| head.stack_hi.wrapping_sub(point.panic_addr));
    let layout = view.program.bin.layout();
    let mut ended = if has_defer_iterator(view.program.bin.version()) {
        // `for ; p != nil && uintptr(p.startSP) < sp; p = p.link { if p.goexit { break } }`. What is older than a Goexit
        // has ended with it.
        // https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L1108
        let sp = view.word(point.panic_addr, layout.panic.sp).map(|sp| head.stack_hi.wrapping_sub(sp));
        // startSP is that of gopanic, so a panic raised by the frame that goes on ends as well.
        let ends = |place: &Place| sp.is_some_and(|sp| place.start >= sp);
        chain.take(|panic| ends(&panic.place), ends)
    } else {
        // The list begins with the first that lives on.
        let ends = |place: &Place| !newest.is_some_and(|at| place.is_linked(at));
        chain.take(|panic| ends(&panic.place), ends)
    };
    if chain.open.is_empty() {
        process.goroutines.remove(&head.goid);
    }
    if let Some(last) = ended.panics.last_mut() {
        last.end_defer(head.time_ns, DeferEnd::Recovered);
    }
    ended
}

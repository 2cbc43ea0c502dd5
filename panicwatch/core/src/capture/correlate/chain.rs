//! Panics of one goroutine: raises, deferred calls, recoveries. Updates [`ProcessState`], builds no
//! incidents.

use panicwatch_common::event::kind;

use super::state::{Ended, OpenPanic, Place, ProcessState};
use crate::{
    capture::{
        Program, View,
        event::{Body, Event, Point},
    },
    go::memory::Memory,
    incident::{Defer, DeferEnd, Frame, Recover},
};

/// Maximum number of panics kept per goroutine: half of them the oldest, half the newest.
pub(super) const MAX_CHAIN: usize = 128;
/// Size of gopanic's frame if the tables do not have it; those of Go 1.19 to 1.27 are 0x68 to 0x108.
const GOPANIC_FRAME: u64 = 0x100;

/// Handles the entry of gopanic.
pub(super) fn raised(process: &mut ProcessState, event: Event, program: &Program) {
    let head = event.head;
    let layout = program.bin.layout();
    // The signal handler sets g.sig for the panic that it makes; it stays set until the panic ends.
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
    // At the probe the stack pointer points to the return address.
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

/// Returns the head of Go's list of the goroutine's panics, as a distance from the top of the stack:
/// `Some(None)` when the list is empty, `None` when the event does not contain it.
fn newest_linked(view: &View<'_>) -> Option<Option<u64>> {
    let head = view.event.head;
    let at = match &view.event.body {
        Body::Point(point) => point.panic_addr,
        Body::Capture(_) => view.g(view.program.bin.layout().g.panic)?,
        Body::Process(_) => return None,
    };
    Some((at != 0).then(|| head.stack_hi.wrapping_sub(at)))
}

/// Updates the open panics of an event's goroutine before the event is handled: counts the records lost since
/// its last event, and removes the panics that are no longer in Go's list. The end of those was not seen.
pub(super) fn catch_up(process: &mut ProcessState, view: &View<'_>) -> Ended {
    let head = view.event.head;
    let Some(chain) = process.goroutines.get_mut(&head.goid) else { return Ended::default() };
    chain.note_lost(head.lost);
    // Before Go 1.22 the panics that a recovery ends are already off the list.
    let off_early = head.kind == kind::RECOVERY && !view.program.bin.version().release.has_next_defer();
    let Some(newest) = newest_linked(view).filter(|_| !off_early) else { return Ended::default() };
    // gopanic throws for some panics before it has put them on the list ("panic during malloc").
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

/// Returns the open panic whose `_panic` is at the top of the goroutine's list.
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

/// Handles the start of a deferred call.
pub(super) fn defer_begins(process: &mut ProcessState, view: &View<'_>) {
    let Some(point) = point(view.event) else { return };
    let registered_by = registered_by(view, point);
    let function = view.function(point.args[1]);
    let time_ns = view.event.head.time_ns;
    let Some(panic) = top(process, view, point) else { return };
    // The previous call has returned, otherwise gopanic would not call the next one; its lost record had the
    // time.
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

/// Returns the function of the defer statement. It is always a physical function, because functions that
/// defer are not inlined.
///
/// From Go 1.22 on the panic has the return address of deferproc, whose line is that of the statement, or,
/// for an open-coded defer, of deferreturn, which identifies only the function. Before, the record has it;
/// for an open-coded defer, the record has the pc at which the frame was left, which again identifies only
/// the function.
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

/// Handles the return of a deferred call.
pub(super) fn defer_ended(process: &mut ProcessState, view: &View<'_>) {
    let Some(point) = point(view.event) else { return };
    let how = if point.args[0] == 1 { DeferEnd::Recovered } else { DeferEnd::Returned };
    let time_ns = view.event.head.time_ns;
    // The first iteration of gopanic's loop ends no call.
    if let Some(panic) = top(process, view, point).filter(|panic| panic.defer_is_running()) {
        panic.end_defer(time_ns, how);
    }
}

/// Handles a recover() that caught a panic.
pub(super) fn recovered(process: &mut ProcessState, view: &View<'_>) {
    let Some(point) = point(view.event) else { return };
    // Up to 1.25 gorecover has no frame: the return address is at SP; from 1.26 on it has one.
    let caller =
        if view.program.bin.version().release.gorecover_has_frame() { point.args[1] } else { point.args[0] };
    let by = view.caller(caller);
    let now = view.event.head.time_ns;
    if let Some(panic) = top(process, view, point) {
        panic.recover = Some(Recover { by, ns_after_raise: now.saturating_sub(panic.raise.head.time_ns) });
    }
}

/// Handles a goroutine about to continue after a recovery: removes and returns the panics that end here.
pub(super) fn recovery(process: &mut ProcessState, view: &View<'_>) -> Ended {
    let head = view.event.head;
    let Some(point) = point(view.event) else { return Ended::default() };
    let Some(chain) = process.goroutines.get_mut(&head.goid) else { return Ended::default() };
    let newest = (point.panic_addr != 0).then(|| head.stack_hi.wrapping_sub(point.panic_addr));
    let layout = view.program.bin.layout();
    let mut ended = if view.program.bin.version().release.has_next_defer() {
        // `for ; p != nil && uintptr(p.startSP) < sp; p = p.link { if p.goexit { break } }`. Panics older
        // than a Goexit have ended with it.
        // https://github.com/golang/go/blob/go1.24.11/src/runtime/panic.go#L1108
        let sp = view.word(point.panic_addr, layout.panic.sp).map(|sp| head.stack_hi.wrapping_sub(sp));
        // startSP is that of gopanic, so a panic raised by the frame that continues ends as well.
        let ends = |place: &Place| sp.is_some_and(|sp| place.start >= sp);
        chain.take(|panic| ends(&panic.place), ends)
    } else {
        // The list begins with the newest panic that continues.
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

//! The events of a timeline: all records of the process in the window, and the panic path, each with a
//! description.

use panicwatch_common::recorder::{NO_SYSCALL, Slot, kind};

use super::{
    Input,
    panics::said,
    replay::Replay,
    thread::{RanLast, Task},
    words,
};
use crate::incident::{
    Addr, DeferEnd, Outcome, Panic,
    timeline::event::{Event, What},
};

/// Returning from a signal handler restores the registers, and with them the register that has the number of
/// this system call.
/// <https://github.com/torvalds/linux/blob/v6.12/arch/x86/kernel/signal_64.c> restore_sigcontext
const SIGRETURN: &str = "rt_sigreturn";

impl Event {
    fn new(time_ns: u64, what: What, words: String) -> Self {
        Self {
            time_ns,
            what,
            words,
            cpu: None,
            thread: None,
            goroutine: None,
            number: None,
            name: None,
            result: None,
            address: None,
            args: Vec::new(),
            other_thread: None,
            other_goroutine: None,
        }
    }
}

/// Returns all events, in order of time.
pub(super) fn events(input: &Input<'_>, replay: &Replay) -> Vec<Event> {
    let shown = input.own_records().filter(|(_, slot)| input.is_shown(slot.time_ns));
    let mut events: Vec<Event> = shown.filter_map(|(cpu, slot)| record(input, replay, cpu, slot)).collect();
    for (i, panic) in input.panics.iter().enumerate() {
        path(input, i, panic, &mut events);
    }
    if let Some(at) = input.end_ns.filter(|_| input.outcome != Outcome::Recovered) {
        let words = match input.outcome {
            Outcome::Fatal => "the process died",
            Outcome::Goexit => "runtime.Goexit ended the goroutine",
            Outcome::Exited | Outcome::Recovered | Outcome::Unknown => "the process ended",
        };
        events.push(Event { goroutine: input.goroutine, ..Event::new(at, What::End, words.to_owned()) });
    }
    events.retain(|event| input.is_shown(event.time_ns));
    // A stable sort: events of the same nanosecond stay in the recorded order.
    events.sort_by_key(|event| event.time_ns);
    events
}

/// Adds the events of one panic.
fn path(input: &Input<'_>, i: usize, panic: &Panic, events: &mut Vec<Event>) {
    let number = Some(i as u64 + 1);
    let base = |at, what, words| Event { goroutine: input.goroutine, number, ..Event::new(at, what, words) };
    let raise = base(panic.raised_ns, What::Raise, said(panic));
    let thread = input.thread.filter(|_| panic.raised_ns == input.raise_ns);
    events.push(Event { thread, name: panic.site.as_ref().map(|f| f.function.clone()), ..raise });
    for defer in &panic.defers {
        let name = defer.function.as_ref().map(|f| f.function.clone());
        let unknown = if defer.nil { "nil function" } else { "unknown function" };
        let shown = name.clone().unwrap_or_else(|| unknown.to_owned());
        let begins = base(defer.start_ns, What::DeferBegin, format!("deferred {shown} began"));
        events.push(Event { name: name.clone(), ..begins });
        if let Some(at) = defer.end_ns {
            let ended = match defer.ended {
                Some(DeferEnd::Recovered) => "recovered the panic",
                Some(DeferEnd::Panicked) => "panicked",
                Some(DeferEnd::Exited) => "ended the process",
                Some(DeferEnd::Goexit) => "called runtime.Goexit",
                Some(DeferEnd::Returned) | None => "returned",
            };
            let ends = base(at, What::DeferEnd, format!("deferred {shown} {ended}"));
            events.push(Event { name, ..ends });
        }
    }
    if let Some(recover) = &panic.recover {
        let name = recover.by.as_ref().map(|f| f.function.clone());
        let by = name.as_ref().map_or_else(String::new, |name| format!(" by {name}"));
        let at = panic.raised_ns.saturating_add(recover.ns_after_raise);
        events.push(Event { name, ..base(at, What::Recover, format!("recovered{by}")) });
    }
}

fn task(event: Event, pair: u64) -> Event {
    let tid = pair as u32;
    Event { other_thread: (tid != 0).then_some(tid), ..event }
}

/// Returns the event of one record; `None` for an unknown kind.
fn record(input: &Input<'_>, replay: &Replay, cpu: u32, slot: &Slot) -> Option<Event> {
    let had = replay.goroutine_of(slot.tid, slot.time_ns);
    let told = Some(slot.goid).filter(|id| *id != 0);
    let ran_last = RanLast::of(slot).map(|last| last.goid);
    let goroutine = match slot.kind {
        kind::SWITCH_OUT if ran_last.is_some() => None,
        kind::SIGNAL_SENT | kind::THREAD_BEGIN | kind::MIGRATE | kind::WAKING => had,
        _ => told.or(had),
    };
    let new = |what, words: String| Event {
        cpu: Some(cpu),
        thread: Some(slot.tid),
        goroutine,
        ..Event::new(slot.time_ns, what, words)
    };
    let plain = |what, words: &str| new(what, words.to_owned());
    Some(match slot.kind {
        kind::SWITCH_OUT => {
            let name = Some(words::leaving(slot).to_owned());
            let event =
                Event { name, other_goroutine: ran_last, ..new(What::SwitchOut, words::left(slot, cpu)) };
            task(event, slot.args[0])
        }
        kind::SWITCH_IN => {
            let words = match Task(slot.args) {
                idle if idle.tid() == 0 => format!("scheduled on CPU {cpu}, which was idle"),
                before => format!("scheduled on CPU {cpu} after {}", words::task(before)),
            };
            task(new(What::SwitchIn, words), slot.args[0])
        }
        kind::WAKING => {
            let (name, waker) =
                (words::waker_call(input, slot.extra), Some(slot.args[1]).filter(|id| *id != 0));
            let by = words::who(slot.args[0] as u32, waker, name.as_deref());
            let event = Event { name, other_goroutine: waker, ..new(What::Waking, format!("woken by {by}")) };
            task(event, slot.args[0])
        }
        kind::MIGRATE => {
            let to = slot.args[1];
            let words = format!("migrated from CPU {} to CPU {to}", slot.args[0]);
            Event { number: Some(to), ..new(What::Migrate, words) }
        }
        kind::THREAD_BEGIN => task(plain(What::ThreadBegin, "thread started"), slot.args[0]),
        kind::THREAD_END => plain(What::ThreadEnd, "thread exited"),
        kind::SIGNAL_SENT | kind::SIGNAL_DELIVERED => signal(slot, new),
        kind::SYSCALL_ENTER | kind::SYSCALL_EXIT => call(input, slot, new),
        kind::PAGE_FAULT => {
            let address = Some(Addr(slot.args[0]));
            let args = vec![Addr(slot.args[1])];
            let words = format!("page fault at {:#x}", slot.args[0]);
            Event { address, args, number: Some(slot.extra.into()), ..new(What::PageFault, words) }
        }
        kind::GC_START..=kind::GC_ASSIST => collector(input, slot, new)?,
        kind::FUNCTION => {
            let name = input.names.frames(slot.args[0], true).pop().map(|frame| frame.function);
            let shown = name.clone().unwrap_or_else(|| format!("{:#x}", slot.args[0]));
            let address = Some(Addr(slot.args[0]));
            Event { name, address, ..new(What::Function, format!("entered {shown}")) }
        }
        kind::GO_CREATE..=kind::GO_END => scheduler(input, slot, new)?,
        _ => return None,
    })
}

fn signal(slot: &Slot, new: impl Fn(What, String) -> Event) -> Event {
    let name = super::signal_name(slot.extra).map(str::to_owned);
    let shown = words::signal(slot.extra);
    let event = if slot.kind == kind::SIGNAL_SENT {
        let by = words::who(slot.args[0] as u32, Some(slot.goid).filter(|id| *id != 0), None);
        let event = Event {
            result: Some(slot.args[1] as i64),
            ..new(What::SignalSent, format!("{shown} sent by {by}"))
        };
        task(event, slot.args[0])
    } else {
        Event {
            result: Some(slot.args[0] as i64),
            ..new(What::SignalDelivered, format!("{shown} delivered"))
        }
    };
    Event { number: Some(slot.extra.into()), name, ..event }
}

fn call(input: &Input<'_>, slot: &Slot, new: impl Fn(What, String) -> Event) -> Event {
    let name = match (slot.kind, slot.extra) {
        (kind::SYSCALL_EXIT, NO_SYSCALL) => SIGRETURN.to_owned(),
        (_, number) => words::syscall(input, number),
    };
    if slot.kind == kind::SYSCALL_EXIT && name == SIGRETURN {
        let words = "returned from the signal handler".to_owned();
        return Event { name: Some(name), ..new(What::SyscallExit, words) };
    }
    let event = if slot.kind == kind::SYSCALL_ENTER {
        let args = slot.args.iter().map(|arg| Addr(*arg)).collect();
        Event { args, ..new(What::SyscallEnter, words::entered(&name, &slot.args)) }
    } else {
        let result = slot.args[0] as i64;
        Event { result: Some(result), ..new(What::SyscallExit, words::returned(&name, result)) }
    };
    Event { number: Some(slot.extra.into()), name: Some(name), ..event }
}

fn collector(input: &Input<'_>, slot: &Slot, new: impl Fn(What, String) -> Event) -> Option<Event> {
    let plain = |what, words: &str| new(what, words.to_owned());
    Some(match slot.kind {
        kind::GC_START => plain(What::GcStart, "GC cycle started"),
        kind::GC_MARK_DONE => plain(What::GcMarkDone, "GC mark done"),
        kind::STW_BEGIN => {
            let name = words::stw_reason(input, slot.extra);
            let event = new(What::StwBegin, format!("stopped the world: {name}"));
            Event { number: Some(slot.extra.into()), name: Some(name), ..event }
        }
        kind::STW_END => plain(What::StwEnd, "started the world"),
        kind::GC_WORKER => plain(What::GcWorker, "mark worker started"),
        kind::GC_ASSIST => plain(What::GcAssist, "mark assist started"),
        _ => return None,
    })
}

fn scheduler(input: &Input<'_>, slot: &Slot, new: impl Fn(What, String) -> Event) -> Option<Event> {
    let plain = |what, words: &str| new(what, words.to_owned());
    let other = |id: u64| Some(id).filter(|id| *id != 0);
    Some(match slot.kind {
        kind::GO_CREATE => {
            let name = input.names.frames(slot.args[0], true).pop().map(|frame| frame.function);
            let runs = name.as_ref().map_or_else(String::new, |name| format!(", to run {name}"));
            let by = other(slot.args[2]).map_or_else(String::new, |id| format!(" by goroutine {id}"));
            let event = new(What::GoCreate, format!("created{by}{runs}"));
            Event { name, address: Some(Addr(slot.args[1])), other_goroutine: other(slot.args[2]), ..event }
        }
        kind::GO_PARK => {
            let name = words::wait_reason(input, slot.extra);
            let event = new(What::GoPark, format!("parked: {name}"));
            Event {
                number: Some(slot.extra.into()),
                name: Some(name),
                address: Some(Addr(slot.args[0])),
                ..event
            }
        }
        kind::GO_READY => {
            let by = other(slot.args[0])
                .map_or_else(|| "the scheduler".to_owned(), |id| format!("goroutine {id}"));
            Event {
                other_goroutine: other(slot.args[0]),
                ..new(What::GoReady, format!("made runnable by {by}"))
            }
        }
        kind::GO_RUN => new(What::GoRun, format!("running on thread {}", slot.tid)),
        kind::GO_YIELD => {
            let (name, words) = match slot.extra {
                1 => ("preempted by the Go scheduler", "preempted by the Go scheduler"),
                2 => ("runtime.Gosched", "yielded: runtime.Gosched"),
                3 => (crate::incident::timeline::STACK_SCAN, "stopped: stack scan"),
                _ => ("unknown reason", "yielded: unknown reason"),
            };
            let event = plain(What::GoYield, words);
            Event { number: Some(slot.extra.into()), name: Some(name.to_owned()), ..event }
        }
        kind::GO_END => plain(What::GoEnd, "ended"),
        _ => return None,
    })
}

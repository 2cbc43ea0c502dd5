//! The panicking goroutine in numbers, and its last steps in words.

use std::collections::BTreeMap;

use super::{
    Input,
    event::{Event, What},
    model::{Doing, Last, Share, SignalCount, State, Summary, Track, TrackKind, Woken},
    names::signal_name,
    replay::Replay,
    words,
};
use crate::report::words::Nanos;

/// So many steps are told.
const LAST: usize = 12;

/// From the window's beginning to the raise.
pub(super) fn summary(input: &Input<'_>, replay: &Replay, tracks: &[Track], events: &[Event]) -> Summary {
    let mut out = Summary { goroutine: input.goroutine, ..Summary::default() };
    let own = |track: &&Track| track.kind == TrackKind::Goroutine && Some(track.id) == input.goroutine;
    let Some(track) = tracks.iter().find(own) else {
        out.unknown_ns = input.raise_ns - input.from_ns;
        return out;
    };
    times(input, track, &mut out);
    let before: Vec<&Event> = events.iter().filter(|event| event.time_ns <= input.raise_ns).collect();
    let its: Vec<&Event> = before.iter().copied().filter(|e| e.goroutine == input.goroutine).collect();
    counts(&its, &mut out);
    calls(input, replay, track, &its, &mut out);
    out.samples = track.samples.iter().filter(|sample| sample.time_ns <= input.raise_ns).count() as u64;
    out.woken = its.iter().rev().find_map(|event| woken(event));
    out.last = last(input, &before);
    out
}

fn add(shares: &mut Vec<Share>, what: &str, ns: u64) {
    match shares.iter_mut().find(|share| share.what == what) {
        Some(share) => (share.ns, share.count) = (share.ns + ns, share.count + 1),
        None => shares.push(Share { what: what.to_owned(), ns, count: 1 }),
    }
}

fn times(input: &Input<'_>, track: &Track, out: &mut Summary) {
    let mut thread = None;
    for state in track.states.iter().filter(|state| state.from_ns < input.raise_ns) {
        let ns = state.to_ns.min(input.raise_ns) - state.from_ns;
        let detail = state.detail.as_deref().unwrap_or_default();
        let total = match state.state {
            Doing::Running => &mut out.running_ns,
            Doing::Runnable => &mut out.runnable_ns,
            Doing::Waiting => {
                add(&mut out.waiting, detail, ns);
                &mut out.waiting_ns
            }
            Doing::Syscall => {
                add(&mut out.syscalls, detail, ns);
                &mut out.syscall_ns
            }
            Doing::Stopped => {
                add(&mut out.stopped, detail, ns);
                &mut out.stopped_ns
            }
            Doing::NotRunning => &mut out.not_running_ns,
            Doing::Ended => &mut out.ended_ns,
            Doing::Other | Doing::Marking | Doing::Idle | Doing::Unknown => &mut out.unknown_ns,
        };
        *total += ns;
        if state.inferred && state.state == Doing::Running {
            out.inferred_ns += ns;
        }
        if state.thread.is_some() && state.state != Doing::Unknown {
            out.thread_changes += u64::from(thread.is_some() && thread != state.thread);
            thread = state.thread;
        }
    }
    for shares in [&mut out.waiting, &mut out.syscalls, &mut out.stopped] {
        shares.sort_by(|a, b| b.ns.cmp(&a.ns).then_with(|| a.what.cmp(&b.what)));
    }
}

/// A call is in several states when it blocks; its entries are counted, and the one it was in at first.
fn calls(input: &Input<'_>, replay: &Replay, track: &Track, its: &[&Event], out: &mut Summary) {
    let first = track.states.first().filter(|state| state.state == Doing::Syscall);
    let in_at_first = |state: &State| {
        let tid = state.thread?;
        replay.call_of(tid, input.from_ns)?;
        state.detail.clone()
    };
    let first = first.and_then(in_at_first);
    for share in &mut out.syscalls {
        let entered =
            its.iter().filter(|e| e.what == What::SyscallEnter && e.name.as_ref() == Some(&share.what));
        share.count = entered.count() as u64 + u64::from(first.as_ref() == Some(&share.what));
    }
}

fn counts(its: &[&Event], out: &mut Summary) {
    let mut signals = BTreeMap::new();
    for event in its {
        match event.what {
            What::SwitchOut => out.preemptions += u64::from(event.name.as_deref() == Some(words::PREEMPTION)),
            What::GoYield => out.yields += 1,
            What::Migrate => out.migrations += 1,
            What::PageFault => out.page_faults += 1,
            What::GcAssist => out.gc_assists += 1,
            What::SignalDelivered => *signals.entry(event.number.unwrap_or_default()).or_default() += 1,
            _ => {}
        }
    }
    let count = |(number, count)| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        SignalCount { number, name: signal_name(number).map(str::to_owned), count }
    };
    out.signals = signals.into_iter().map(count).collect();
}

fn woken(event: &Event) -> Option<Woken> {
    let by_runtime = event.what == What::GoReady;
    (by_runtime || event.what == What::Waking).then(|| Woken {
        time_ns: event.time_ns,
        thread: if by_runtime { event.thread } else { event.other_thread },
        goroutine: event.other_goroutine,
        syscall: event.name.clone().filter(|_| !by_runtime),
        by_runtime,
    })
}

/// A step that may go on in later events.
struct Step {
    time_ns: u64,
    what: What,
    number: Option<u64>,
    name: Option<String>,
    words: String,
    times: u64,
}

/// The last steps. A call and its return are one, as are leaving the CPU and getting one again, waiting and going on,
/// and page faults or entries of one function in a row.
fn last(input: &Input<'_>, before: &[&Event]) -> Vec<Last> {
    let mut steps: Vec<Step> = Vec::new();
    for event in before {
        if event.goroutine == input.goroutine {
            step(&mut steps, event);
        } else if event.other_goroutine == input.goroutine {
            let words = match (event.what, event.goroutine) {
                (What::GoCreate, Some(id)) => format!("created goroutine {id}"),
                (What::GoReady, Some(id)) => format!("made goroutine {id} ready"),
                _ => continue,
            };
            steps.push(Step { words, ..Step::new(event) });
        }
    }
    let shown = |step: Step| Last {
        time_ns: step.time_ns,
        words: if step.times > 1 { format!("{} ({} in a row)", step.words, step.times) } else { step.words },
    };
    let skip = steps.len().saturating_sub(LAST);
    steps.into_iter().skip(skip).map(shown).collect()
}

impl Step {
    fn new(event: &Event) -> Self {
        let (number, name) = (event.number, event.name.clone());
        Self { time_ns: event.time_ns, what: event.what, number, name, words: event.words.clone(), times: 1 }
    }
}

fn step(steps: &mut Vec<Step>, event: &Event) {
    let begun = |what: &'static [What]| move |step: &&mut Step| what.contains(&step.what);
    let since = |step: &Step| Nanos(event.time_ns.saturating_sub(step.time_ns));
    match event.what {
        What::SyscallExit => {
            let open = steps.iter_mut().rev().find(begun(&[What::SyscallEnter, What::SyscallExit]));
            if let Some(step) = open.filter(|s| s.what == What::SyscallEnter && s.number == event.number) {
                step.words = format!("{} after {}", event.words, since(step));
                step.what = What::SyscallExit;
                return;
            }
        }
        What::SwitchIn => {
            let open = steps.iter_mut().rev().find(begun(&[What::SwitchOut, What::SwitchIn]));
            if let Some(step) = open.filter(|s| s.what == What::SwitchOut) {
                let cpu = event.cpu.map_or_else(String::new, |cpu| format!(" on CPU {cpu}"));
                step.words = format!("{}, back after {}{cpu}", step.words, since(step));
                step.what = What::SwitchIn;
                return;
            }
        }
        What::GoRun => {
            let open = steps.iter_mut().rev().find(begun(&[What::GoPark, What::GoYield, What::GoRun]));
            if let Some(step) = open.filter(|s| s.what != What::GoRun) {
                step.words = format!("{}, ran again after {}", step.words, since(step));
                step.what = What::GoRun;
                return;
            }
        }
        What::PageFault | What::Function => {
            let again = steps.last_mut().filter(|s| s.what == event.what && s.name == event.name);
            if let Some(step) = again {
                step.times += 1;
                return;
            }
        }
        What::Raise | What::End | What::SignalSent => return,
        _ => {}
    }
    steps.push(Step::new(event));
}

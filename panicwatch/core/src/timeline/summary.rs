//! Summary of the panicking goroutine: times and counts, and its last steps as text.

use std::collections::BTreeMap;

use super::{Input, last, names::signal_name, replay::Replay, words};
use crate::{
    incident::timeline::{
        Doing, Share, SignalCount, State, Summary, Track, TrackKind, Woken,
        event::{Event, What},
    },
    recorder::Source,
};

/// Returns the summary from the window's beginning to the raise.
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
    counts(input, &its, &mut out);
    calls(input, replay, track, &its, &mut out);
    let samples = track.samples.iter().filter(|sample| sample.time_ns <= input.raise_ns);
    out.samples = (!input.lacks(Source::Sample)).then(|| samples.count() as u64);
    out.woken = its.iter().rev().find_map(|event| woken(event));
    out.last = last::last(input, &before);
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
        match state.state {
            Doing::Running if state.inferred => out.inferred_ns += ns,
            Doing::NotRunning if state.inferred => out.not_running_inferred_ns += ns,
            _ => {}
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

/// Counts system calls. A call that blocks spans several states, so its entries are counted, plus the call
/// that was in progress at the beginning.
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

fn counts(input: &Input<'_>, its: &[&Event], out: &mut Summary) {
    let count = |source: Source, counts: &dyn Fn(&Event) -> bool| {
        (!input.lacks(source)).then(|| its.iter().filter(|event| counts(event)).count() as u64)
    };
    let of = |what: What| move |event: &Event| event.what == what;
    let preempted = |e: &Event| e.what == What::SwitchOut && e.name.as_deref() == Some(words::PREEMPTION);
    out.preemptions = count(Source::Switch, &preempted);
    out.yields = count(Source::Goroutine, &of(What::GoYield));
    out.migrations = count(Source::Migrate, &of(What::Migrate));
    out.page_faults = count(Source::Fault, &of(What::PageFault));
    out.gc_assists = count(Source::Assist, &of(What::GcAssist));
    let mut signals: BTreeMap<u64, u64> = BTreeMap::new();
    for event in its.iter().filter(|event| event.what == What::SignalDelivered) {
        *signals.entry(event.number.unwrap_or_default()).or_default() += 1;
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

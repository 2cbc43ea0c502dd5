//! The parsers of Go's execution traces and the comparison with a timeline: what they read from real traces,
//! and that no false timeline is accepted.

use super::lanes::{
    Range, Span, State, Trace,
    compare::{Told, Tolerance, compare},
    old, parsed,
};

const SYSCALL: &str = include_str!("lanes/samples/go1.22-syscall.txt");
const GC: &str = include_str!("lanes/samples/go1.27-gc.txt");
const CHANNEL_OLD: &str = include_str!("lanes/samples/go1.21-channel.txt");
const GC_OLD: &str = include_str!("lanes/samples/go1.19-gc.txt");

/// Parses the sample traces; returns each with its name and the goroutine that panics in it.
fn traces() -> [(&'static str, Trace, u64); 4] {
    let read = |name, trace: Result<Trace, String>| {
        let trace = trace.expect("a trace");
        let goroutine = trace.panic().expect("a panic").goroutine;
        (name, trace, goroutine)
    };
    [
        read("syscall", parsed::read(SYSCALL)),
        read("gc", parsed::read(GC)),
        read("old channel", old::read(CHANNEL_OLD)),
        read("old gc", old::read(GC_OLD)),
    ]
}

/// Returns a timeline that agrees with the trace, of the ten milliseconds before the panic.
fn truth(trace: &Trace, goroutine: u64) -> Told {
    let panic = trace.panic().expect("a panic").clock_ns;
    let window = (panic - 10_000_000, panic);
    Told {
        window,
        whole: true,
        spans: trace.goroutines[&goroutine].iter().filter_map(|span| span.within(window)).collect(),
        stopped: Some(trace.stopped.clone()),
        marking: Some(trace.marking.clone()),
    }
}

fn differences(trace: &Trace, goroutine: u64, told: &Told) -> Vec<String> {
    compare(trace, goroutine, told, Tolerance::USUAL)
}

/// Returns state, reason and length of each span longer than a tenth of a millisecond, in tenths of
/// milliseconds.
fn long(trace: &Trace, goroutine: u64) -> Vec<(State, &str, u64)> {
    let spans = trace.goroutines[&goroutine].iter().filter(|span| span.ns() > 100_000);
    spans.map(|span| (span.state, span.reason.as_str(), span.ns() / 100_000)).collect()
}

#[test]
fn system_calls_are_read() {
    let [(_, trace, goroutine), ..] = traces();
    let spans = long(&trace, goroutine);
    let calls: Vec<u64> = spans.iter().filter(|s| s.0 == State::Syscall).map(|s| s.2).collect();
    assert_eq!(calls.len(), 6, "three reads of a pipe and three sleeps: {spans:?}");
    assert!(
        calls.iter().skip(1).step_by(2).all(|ns| (10..14).contains(ns)),
        "sleeps of a millisecond: {calls:?}"
    );
    assert!(trace.has_syscalls);
}

#[test]
fn the_world_is_stopped_twice_a_collection() {
    let [_, (_, gc, _), _, (_, old, _)] = traces();
    let names = |trace: &Trace| trace.stopped.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    let cycle = ["GC sweep termination", "GC mark termination"];
    assert_eq!(names(&gc), [&["start trace"], cycle.as_slice(), &cycle, &cycle].concat());
    assert_eq!(names(&old), cycle.repeat(names(&old).len() / 2));
    assert!(names(&old).len() >= 4);
    for trace in [&gc, &old] {
        assert!(trace.marking.len() >= 2, "{:?}", trace.marking);
        assert!(trace.stopped.iter().chain(&trace.marking).all(|r| r.from_ns < r.to_ns));
    }
}

#[test]
fn waits_are_read_with_their_reasons() {
    let [_, (_, gc, of_gc), (_, channel, of_channel), _] = traces();
    let waits = |trace: &Trace, goroutine: u64, reason: &str| {
        let spans = trace.goroutines[&goroutine].iter();
        spans.filter(|s| s.state == State::Waiting && s.reason == reason).count()
    };
    assert_eq!(waits(&gc, of_gc, "wait until GC ends"), 2);
    assert_eq!(waits(&channel, of_channel, "chan receive"), 5);
    assert!(!channel.has_syscalls);
}

#[test]
fn old_traces_are_put_on_the_clock_of_the_program() {
    let [.., (_, channel, _), (_, gc, _)] = traces();
    for trace in [channel, gc] {
        for note in &trace.notes {
            assert!(note.time_ns.abs_diff(note.clock_ns) < 100_000, "{note:?}");
        }
    }
}

#[test]
fn a_trace_by_another_clock_is_refused() {
    let of_another = GC.replace("\"13357216328466\"", "\"13357256328466\"");
    assert_ne!(of_another, GC);
    assert!(parsed::read(&of_another).is_err());
    assert!(parsed::read(&GC.replace(" Log ", " Metric ")).is_err(), "without notes");
    assert!(old::read(&CHANNEL_OLD.replace("UserLog", "HeapAlloc")).is_err(), "without notes");
    assert!(parsed::read(&GC.replace("Running->Waiting", "Running->Dreaming")).is_err());
}

#[test]
fn what_both_say_is_accepted() {
    for (name, trace, goroutine) in traces() {
        assert_eq!(differences(&trace, goroutine, &truth(&trace, goroutine)), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn small_shifts_are_accepted() {
    for (name, trace, goroutine) in traces() {
        for by in [-50_000, 50_000] {
            let mut told = truth(&trace, goroutine);
            for span in &mut told.spans {
                span.from_ns = span.from_ns.saturating_add_signed(by);
                span.to_ns = span.to_ns.saturating_add_signed(by);
            }
            assert_eq!(differences(&trace, goroutine, &told), Vec::<String>::new(), "{name} by {by}");
        }
    }
}

#[test]
fn the_runtimes_own_words_are_the_tracers() {
    let [_, (_, trace, goroutine), ..] = traces();
    let mut told = truth(&trace, goroutine);
    for span in told.spans.iter_mut().filter(|span| span.reason == "wait until GC ends") {
        span.reason = "wait for GC cycle".to_owned();
    }
    assert_eq!(differences(&trace, goroutine, &told), Vec::<String>::new());
}

/// Returns the indexes of the window's spans longer than 600 µs.
fn each_long_span(told: &Told) -> Vec<usize> {
    (0..told.spans.len()).filter(|i| told.spans[*i].ns() > 600_000).collect()
}

#[test]
fn every_lie_about_a_long_state_is_noticed() {
    for (name, trace, goroutine) in traces() {
        let good = truth(&trace, goroutine);
        let long = each_long_span(&good);
        assert!(!long.is_empty(), "{name}");
        for i in long {
            for (what, bad) in lies(&good, i) {
                assert_ne!(
                    differences(&trace, goroutine, &bad),
                    Vec::<String>::new(),
                    "{name}, span {i}: {what}"
                );
            }
        }
    }
}

/// Returns the timeline with one span falsified, in each way.
fn lies(good: &Told, i: usize) -> Vec<(&'static str, Told)> {
    let with = |change: &dyn Fn(&mut Vec<Span>)| {
        let mut bad = good.clone();
        change(&mut bad.spans);
        bad
    };
    let mut all = vec![
        ("left out", with(&|spans| drop(spans.remove(i)))),
        ("cut short", with(&|spans| spans[i].to_ns -= 550_000)),
        ("begun late", with(&|spans| spans[i].from_ns += 550_000)),
        ("over another", with(&|spans| spans.insert(i, spans[i].clone()))),
    ];
    for state in [State::Running, State::Runnable, State::Waiting] {
        if state != good.spans[i].state {
            all.push(("another state", with(&|spans| spans[i].state = state)));
        }
    }
    if good.spans[i].state == State::Waiting {
        all.push(("another reason", with(&|spans| spans[i].reason = "select".to_owned())));
        all.push(("no reason", with(&|spans| spans[i].reason.clear())));
    }
    all
}

/// Falsifies a list of ranges.
type Change = fn(&mut Vec<Range>);

#[test]
fn every_lie_about_the_collector_is_noticed() {
    let [_, gc, _, old_gc] = traces();
    for (name, trace, goroutine) in [gc, old_gc] {
        let good = truth(&trace, goroutine);
        let changes: [(&str, Change); 6] = [
            ("one less", |all| drop(all.pop())),
            ("one more", |all| all.push(all[all.len() - 1].clone())),
            ("none", Vec::clear),
            ("another name", |all| all.last_mut().expect("one").name = "GOMAXPROCS".to_owned()),
            ("too early", |all| all.last_mut().expect("one").from_ns -= 300_000),
            ("too long", |all| all.last_mut().expect("one").to_ns += 300_000),
        ];
        for (what, change) in changes {
            let (mut stopped, mut marking) = (good.clone(), good.clone());
            change(stopped.stopped.as_mut().expect("recorded"));
            change(marking.marking.as_mut().expect("recorded"));
            for bad in [stopped, marking] {
                assert_ne!(differences(&trace, goroutine, &bad), Vec::<String>::new(), "{name}: {what}");
            }
        }
        let unrecorded = Told { stopped: None, marking: None, ..good };
        assert_eq!(differences(&trace, goroutine, &unrecorded), Vec::<String>::new(), "{name}");
    }
}

/// Without the runtime's events, a timeline knows when a goroutine has a thread, and nothing about the rest.
#[test]
fn a_time_line_that_knows_less_is_held_to_what_it_says() {
    for (name, trace, goroutine) in traces() {
        let mut told = truth(&trace, goroutine);
        told.spans.retain(|span| span.state == State::Running || span.state == State::Syscall);
        let whole = differences(&trace, goroutine, &told);
        told.whole = false;
        assert_eq!(differences(&trace, goroutine, &told), Vec::<String>::new(), "{name}");
        let waited = trace.goroutines[&goroutine].iter().filter_map(|span| span.within(told.window));
        let waited =
            waited.filter(|s| matches!(s.state, State::Runnable | State::Waiting)).map(|s| s.ns()).max();
        assert!(!whole.is_empty() || waited.is_none_or(|ns| ns < 600_000), "{name}");
        let long = each_long_span(&told);
        for i in long.into_iter().filter(|i| told.spans[*i].state == State::Running) {
            let mut other = told.clone();
            other.spans[i].state = State::Waiting;
            assert_ne!(differences(&trace, goroutine, &other), Vec::<String>::new(), "{name}, span {i}");
        }
    }
}

#[test]
fn what_may_be_called_otherwise_is_only_where_go_does() {
    for (name, trace, goroutine) in traces() {
        let good = truth(&trace, goroutine);
        for i in each_long_span(&good) {
            let mut vague = good.clone();
            vague.spans[i].state =
                if good.spans[i].state == State::Runnable { State::Waiting } else { State::Runnable };
            vague.spans[i].also = match good.spans[i].state {
                State::Running => &[State::Running],
                State::Runnable => &[State::Runnable],
                State::Waiting => &[State::Waiting],
                State::Syscall => &[State::Syscall, State::Running],
            };
            assert_eq!(differences(&trace, goroutine, &vague), Vec::<String>::new(), "{name}, span {i}");
            vague.spans[i].also = match good.spans[i].state {
                State::Running | State::Syscall => &[State::Waiting],
                State::Runnable => &[State::Running],
                State::Waiting => &[State::Syscall],
            };
            assert_ne!(differences(&trace, goroutine, &vague), Vec::<String>::new(), "{name}, span {i}");
        }
    }
}

#[test]
fn another_goroutine_is_noticed() {
    let [(_, trace, goroutine), ..] = traces();
    assert_ne!(differences(&trace, 1, &truth(&trace, goroutine)), Vec::<String>::new());
    assert_ne!(differences(&trace, 4_000, &truth(&trace, goroutine)), Vec::<String>::new());
}

#[test]
fn damaged_traces_never_stop_the_readers() {
    for (text, read) in [
        (GC, parsed::read as fn(&str) -> Result<Trace, String>),
        (SYSCALL, parsed::read),
        (CHANNEL_OLD, old::read),
    ] {
        for at in (0..text.len()).filter(|at| text.is_char_boundary(*at)) {
            drop(read(&text[..at]));
            drop(read(&text[at..]));
        }
        for word in ["Time=", "GoID=", " off=", "->", "\""] {
            drop(read(&text.replace(word, "")));
        }
    }
}

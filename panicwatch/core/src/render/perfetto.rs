//! Exports the timeline for Perfetto: one track each for goroutines, threads, CPUs and the garbage collector;
//! states as slices, nested calls and panics, other events as instants, and wake-ups as flow arrows.

use crate::{
    incident::{
        Incident,
        timeline::{
            Doing, Slice, SliceKind, Stack, State, Timeline, Track, TrackKind,
            event::{Event, What},
        },
    },
    render::export::perfetto::{Annotation, Builder, Track as Line, Value},
};

/// Returns the content of the file.
pub fn perfetto(incident: &Incident, timeline: &Timeline) -> Vec<u8> {
    let mut builder = Builder::new(realtime_offset(incident));
    let pid = incident.process.pid;
    let name = super::program(incident);
    let process = builder.process(pid, &name);
    let mut threads: Vec<(u32, Line)> = Vec::new();
    for track in &timeline.tracks {
        let line = match track.kind {
            TrackKind::Process => process,
            TrackKind::Thread => {
                let tid = u32::try_from(track.id).unwrap_or(u32::MAX);
                let line = builder.thread(pid, tid, track.name.as_deref().unwrap_or(&name));
                threads.push((tid, line));
                line
            }
            _ => builder.track(process, &title(timeline, track)),
        };
        states(&mut builder, line, timeline, &track.states);
        slices(&mut builder, line, timeline, track);
        for sample in &track.samples {
            builder.instant(line, sample.time_ns, "sample", &innermost(sample), facts_of_sample(sample));
        }
    }
    instants(&mut builder, process, &threads, timeline);
    builder.finish()
}

/// Returns CLOCK_REALTIME minus CLOCK_MONOTONIC, according to the incident's two times.
fn realtime_offset(incident: &Incident) -> Option<i128> {
    let time: jiff::Timestamp = incident.time.parse().ok()?;
    time.as_nanosecond().checked_sub(incident.start_ns.into())
}

fn title(timeline: &Timeline, track: &Track) -> String {
    match track.kind {
        TrackKind::Goroutine if timeline.summary.goroutine == Some(track.id) => {
            format!("goroutine {} (panicking)", track.id)
        }
        TrackKind::Goroutine => format!("goroutine {}", track.id),
        TrackKind::Thread => format!("thread {}", track.id),
        TrackKind::Cpu => format!("CPU {}", track.id),
        TrackKind::Gc => "GC".to_owned(),
        TrackKind::Process => "process".to_owned(),
    }
}

fn words(state: &State) -> &'static str {
    match state.state {
        Doing::Running => "running",
        Doing::Runnable => "runnable",
        Doing::Waiting => "waiting",
        Doing::Syscall => "syscall",
        Doing::Stopped => "stopped",
        Doing::NotRunning => "not running",
        Doing::Other => "other processes",
        Doing::Marking => "GC mark",
        Doing::Idle => "idle",
        Doing::Ended => "ended",
        Doing::Unknown => "unknown",
    }
}

fn states(builder: &mut Builder, line: Line, timeline: &Timeline, states: &[State]) {
    let mut at = timeline.from_ns;
    for state in states {
        // Documents from other sources may have overlapping states; slices of a track must not overlap.
        let (from, to) = (state.from_ns.max(at), state.to_ns.min(timeline.to_ns));
        if from >= to || matches!(state.state, Doing::NotRunning | Doing::Idle | Doing::Ended) {
            continue;
        }
        at = to;
        let name = match (&state.detail, state.state) {
            (Some(detail), Doing::Syscall | Doing::Waiting | Doing::Other) => detail,
            _ => words(state),
        };
        let number = |name, value: Option<u64>| value.map(|value| (name, Value::Uint(value)));
        let facts = [
            state.detail.clone().map(|detail| ("detail", Value::Text(detail))),
            number("goroutine", state.goroutine),
            number("thread", state.thread.map(u64::from)),
            number("cpu", state.cpu.map(u64::from)),
            state.inferred.then_some(("inferred", Value::Bool(true))),
        ];
        builder.begin(line, from, words(state), name, facts.into_iter().flatten());
        builder.end(line, to);
    }
}

/// Adds child tracks for calls, for each panic with its deferred calls, and for stop-the-world pauses.
fn slices(builder: &mut Builder, parent: Line, timeline: &Timeline, track: &Track) {
    let of = |kinds: &[SliceKind], panic: Option<u32>| -> Vec<&Slice> {
        let own = |slice: &&Slice| kinds.contains(&slice.kind) && panic.is_none_or(|i| slice.depth / 2 == i);
        track.slices.iter().filter(own).collect()
    };
    let calls = of(&[SliceKind::Function], None);
    if !calls.is_empty() {
        let line = builder.track(parent, "calls");
        nested(builder, line, timeline, calls);
    }
    let stops = of(&[SliceKind::StopTheWorld], None);
    if !stops.is_empty() {
        let line = builder.track(parent, "stop-the-world");
        nested(builder, line, timeline, stops);
    }
    const PATH: &[SliceKind] = &[SliceKind::Panic, SliceKind::Defer];
    let mut panics: Vec<u32> = of(PATH, None).iter().map(|slice| slice.depth / 2).collect();
    panics.sort_unstable();
    panics.dedup();
    for i in panics {
        let line = builder.track(parent, &format!("panic {}", u64::from(i) + 1));
        nested(builder, line, timeline, of(PATH, Some(i)));
    }
}

/// Adds the slices of one track; a slice that begins inside another ends with it at the latest.
fn nested(builder: &mut Builder, line: Line, timeline: &Timeline, mut slices: Vec<&Slice>) {
    slices.sort_by_key(|slice| (slice.from_ns, slice.depth));
    let mut open: Vec<u64> = Vec::new();
    for slice in slices {
        while let Some(end) = open.pop_if(|end| *end <= slice.from_ns) {
            builder.end(line, end);
        }
        let to = slice.to_ns.unwrap_or(timeline.to_ns).max(slice.from_ns);
        let file = slice.frame.as_ref().and_then(|frame| frame.file.clone());
        let row = slice.frame.as_ref().and_then(|frame| frame.line);
        let facts = [
            file.map(|file| ("file", Value::Text(file))),
            row.map(|row| ("line", Value::Uint(row.into()))),
            slice.inferred.then_some(("end inferred", Value::Bool(true))),
            slice.to_ns.is_none().then_some(("end not seen", Value::Bool(true))),
        ];
        builder.begin(line, slice.from_ns, "call", &slice.name, facts.into_iter().flatten());
        open.push(open.last().map_or(to, |outer| to.min(*outer)));
    }
    while let Some(end) = open.pop() {
        builder.end(line, end);
    }
}

fn innermost(sample: &Stack) -> String {
    let kernel =
        sample.kernel.first().map(|frame| frame.symbol.clone().unwrap_or_else(|| frame.pc.to_string()));
    let user = || sample.frames.first().map(|frame| frame.function.clone());
    kernel.or_else(user).unwrap_or_else(|| "sample".to_owned())
}

fn facts_of_sample(sample: &Stack) -> Vec<Annotation> {
    let stack: Vec<&str> = sample.frames.iter().map(|frame| frame.function.as_str()).collect();
    vec![
        ("stack", Value::Text(stack.join("\n"))),
        ("cpu", Value::Uint(sample.cpu.into())),
        ("thread", Value::Uint(sample.thread.into())),
    ]
}

/// Adds the events that no state and no slice represents.
fn instants(builder: &mut Builder, process: Line, threads: &[(u32, Line)], timeline: &Timeline) {
    let line_of = |tid: Option<u32>| threads.iter().find(|(id, _)| Some(*id) == tid).map(|(_, line)| *line);
    let mut path = None;
    for (i, event) in timeline.events.iter().enumerate() {
        match event.what {
            What::SwitchIn | What::SwitchOut | What::SyscallEnter | What::SyscallExit => {}
            What::Raise | What::DeferBegin | What::DeferEnd | What::Recover | What::End => {
                let line = *path.get_or_insert_with(|| builder.track(process, "panic path"));
                instant(builder, line, event);
            }
            What::Waking => {
                let Some(woken) = line_of(event.thread) else { continue };
                if let Some(waker) = line_of(event.other_thread) {
                    let name = event.thread.map_or("wakes".to_owned(), |tid| format!("wakes thread {tid}"));
                    builder.instant(waker, event.time_ns, "wake-up", &name, []);
                    builder.flow(i as u64 + 1);
                    instant(builder, woken, event);
                    builder.flow(i as u64 + 1);
                } else {
                    instant(builder, woken, event);
                }
            }
            _ => {
                let line = line_of(event.thread).unwrap_or(process);
                instant(builder, line, event);
            }
        }
    }
}

fn instant(builder: &mut Builder, line: Line, event: &Event) {
    let goroutine = event.goroutine.map(|id| ("goroutine", Value::Uint(id)));
    let cpu = event.cpu.map(|cpu| ("cpu", Value::Uint(cpu.into())));
    let address = event.address.map(|address| ("address", Value::Text(address.to_string())));
    let facts = [goroutine, cpu, address];
    builder.instant(line, event.time_ns, "event", &event.words, facts.into_iter().flatten());
}

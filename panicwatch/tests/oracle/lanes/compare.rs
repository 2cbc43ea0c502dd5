//! Does a time line tell of a goroutine and of the collector what Go's tracer tells? Both see the same run, one from
//! inside and one from outside, and neither is free: so moments may differ a little, and what is shorter than that is
//! compared in sum only.

use std::collections::BTreeMap;

use super::{Range, Span, State, Trace};

/// Between the probe and the tracer's own clock, at each change.
const EACH_CHANGE_NS: u64 = 1_000;

/// More changes than this in a window are too many to be put in order.
const MANY_TURNS: usize = 100;

/// How far the two may be apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Beginning and end of one state.
    pub(crate) edge_ns: u64,
    /// The sum of one state in the window, at least; and of all that the time line does not know.
    pub(crate) sum_ns: u64,
    /// The sum of one state in the window, in parts of a hundred of the window.
    pub(crate) percent: u64,
}

impl Tolerance {
    /// What both accounts can be expected to keep on a machine that is not idle.
    pub(crate) const USUAL: Tolerance = Tolerance { edge_ns: 200_000, sum_ns: 200_000, percent: 5 };

    fn sum(&self, window_ns: u64) -> u64 {
        self.sum_ns.max(window_ns * self.percent / 100)
    }
}

/// What a time line tells, in the words of the trace. A state that it says it does not know is no span.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// From where to where.
    pub(crate) window: (u64, u64),
    /// The goroutine's states.
    pub(crate) spans: Vec<Span>,
    /// What the goroutine did when it was on no thread was recorded too.
    pub(crate) whole: bool,
    /// The world stopped; `None`: not recorded.
    pub(crate) stopped: Option<Vec<Range>>,
    /// Concurrent marking; `None`: not recorded.
    pub(crate) marking: Option<Vec<Range>>,
}

/// The differences; none: they agree.
pub(crate) fn compare(go: &Trace, goroutine: u64, told: &Told, tolerance: Tolerance) -> Vec<String> {
    let mut differences = sound(told);
    let window_ns = told.window.1.saturating_sub(told.window.0);
    let clip = |spans: &[Span]| spans.iter().filter_map(|span| span.within(told.window)).collect::<Vec<_>>();
    let Some(theirs) = go.goroutines.get(&goroutine) else {
        return vec![format!("goroutine {goroutine} is not in Go's trace")];
    };
    let theirs: Vec<Span> = clip(theirs).into_iter().map(|span| words(go, span)).collect();
    let ours =
        clip(&told.spans).into_iter().map(|span| words(go, span)).flat_map(|span| adopted(&theirs, span));
    let ours: Vec<Span> = ours.collect();
    overlap(&theirs, &ours, tolerance.sum(window_ns), told.whole, &mut differences);
    if told.whole {
        let allowed = tolerance.sum(window_ns) + EACH_CHANGE_NS * theirs.len() as u64;
        sums(&theirs, &ours, allowed, &mut differences);
        order(&theirs, &ours, tolerance.edge_ns, &mut differences);
    }
    let stopped = |ranges: &[Range]| within(ranges, told.window);
    if let Some(ours) = &told.stopped {
        ranges("the world stopped", &stopped(&go.stopped), &stopped(ours), tolerance, &mut differences);
    }
    if let Some(ours) = &told.marking {
        ranges("marking", &stopped(&go.marking), &stopped(ours), tolerance, &mut differences);
    }
    differences
}

/// States follow each other, none over another.
fn sound(told: &Told) -> Vec<String> {
    let mut differences = Vec::new();
    for pair in told.spans.windows(2) {
        if pair[0].to_ns > pair[1].from_ns {
            differences.push(format!("{:?} is not over when {:?} begins", pair[0], pair[1]));
        }
    }
    for span in &told.spans {
        if span.from_ns >= span.to_ns {
            differences.push(format!("{span:?} has no length"));
        }
    }
    differences
}

/// A system call is running in a trace that does not tell of its end. Reasons are in the tracer's words, of which each
/// stands for several of the runtime's own; who is runnable has a reason in neither.
fn words(go: &Trace, mut span: Span) -> Span {
    if !go.has_syscalls && span.state == State::Syscall {
        span.state = State::Running;
    }
    span.reason = match span.state {
        State::Waiting => tracers_word(&span.reason).to_owned(),
        _ => String::new(),
    };
    span
}

/// The tracer's word for a wait reason of the runtime.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceruntime.go> (traceBlockReasonStrings), and the calls
/// of gopark in <https://github.com/golang/go/tree/go1.24.11/src/runtime>
pub(crate) fn tracers_word(reason: &str) -> &str {
    match reason {
        "semacquire"
        | "sync.Mutex.Lock"
        | "sync.RWMutex.RLock"
        | "sync.RWMutex.Lock"
        | "sync.WaitGroup.Wait" => "sync",
        "sync.Cond.Wait" => "sync.(*Cond).Wait",
        "IO wait" => "network",
        "GC assist wait" => "GC mark assist wait for work",
        "GC sweep wait" => "GC background sweeper wait",
        "wait for GC cycle" => "wait until GC ends",
        "select (no cases)" | "chan receive (nil chan)" | "chan send (nil chan)" => "forever",
        other => other,
    }
}

/// Where Go says of it what it may also be called, it is that.
fn adopted(theirs: &[Span], span: Span) -> Vec<Span> {
    if span.also.is_empty() {
        return vec![span];
    }
    let (mut parts, mut at) = (Vec::new(), span.from_ns);
    for go in theirs.iter().filter_map(|go| go.within((span.from_ns, span.to_ns))) {
        if span.also.contains(&go.state) {
            parts.extend(span.within((at, go.from_ns)));
            at = go.to_ns;
            parts.push(go);
        }
    }
    parts.extend(span.within((at, span.to_ns)));
    parts
}

fn total(spans: &[Span]) -> BTreeMap<State, u64> {
    let mut all = BTreeMap::new();
    for span in spans {
        *all.entry(span.state).or_default() += span.ns();
    }
    all
}

fn sums(theirs: &[Span], ours: &[Span], allowed: u64, differences: &mut Vec<String>) {
    let (theirs, ours) = (total(theirs), total(ours));
    for state in [State::Running, State::Runnable, State::Waiting, State::Syscall] {
        let (go, us) = (theirs.get(&state).copied().unwrap_or(0), ours.get(&state).copied().unwrap_or(0));
        if go.abs_diff(us) > allowed {
            differences.push(format!("{state:?}: Go says {go} ns, the time line {us} ns"));
        }
    }
}

/// The time in which the two say different things, or, of what was recorded as a whole, only Go says anything. At every
/// change they may be a moment apart, which adds up where a goroutine gives way again and again.
fn overlap(theirs: &[Span], ours: &[Span], allowed: u64, whole: bool, differences: &mut Vec<String>) {
    let mut apart: BTreeMap<(State, Option<State>), u64> = BTreeMap::new();
    for go in theirs {
        let mut untold = go.ns();
        for us in ours.iter().filter_map(|us| us.within((go.from_ns, go.to_ns))) {
            untold = untold.saturating_sub(us.ns());
            if us.state != go.state {
                *apart.entry((go.state, Some(us.state))).or_default() += us.ns();
            }
        }
        if whole {
            *apart.entry((go.state, None)).or_default() += untold;
        }
    }
    let allowed = allowed + EACH_CHANGE_NS * theirs.len() as u64;
    for ((go, us), ns) in apart {
        if ns > allowed {
            let us = us.map_or_else(|| "nothing".to_owned(), |us| format!("{us:?}"));
            differences.push(format!("for {ns} ns Go says {go:?} and the time line {us}"));
        }
    }
}

/// What happened in which order. A state too short for both to see alike is left out of it, and what it interrupted
/// is one.
fn order(theirs: &[Span], ours: &[Span], edge_ns: u64, differences: &mut Vec<String>) {
    // A goroutine that gives way again and again (runtime.GC waits so) has hundreds of turns, each shorter than the
    // tolerance: what is one state and what the next is a matter of that. Sums and moments are compared all the same.
    if theirs.len() > MANY_TURNS {
        return;
    }
    let steps = |spans: &[Span]| spans.iter().map(|s| (s.state, s.reason.clone())).collect::<Vec<_>>();
    let (go, us) = (joined(theirs, edge_ns), joined(ours, edge_ns));
    if steps(&go) == steps(&us) {
        edges(&go, &us, edge_ns, differences);
        return;
    }
    // What lasts about as long as the tolerance may be a little shorter in one and a little longer in the other.
    if steps(&joined(theirs, 2 * edge_ns)) != steps(&joined(ours, 2 * edge_ns)) {
        differences.push(format!("Go says {}; the time line {}", told(&go), told(&us)));
    }
}

fn edges(go: &[Span], us: &[Span], edge_ns: u64, differences: &mut Vec<String>) {
    for (go, us) in go.iter().zip(us) {
        let apart = go.from_ns.abs_diff(us.from_ns).max(go.to_ns.abs_diff(us.to_ns));
        // What was left out before and behind is up to a tolerance long, and both may have it.
        if apart > 2 * edge_ns {
            let (go, us) = (told(std::slice::from_ref(go)), told(std::slice::from_ref(us)));
            differences.push(format!("{go} and {us} are {apart} ns apart"));
        }
    }
}

/// Without what is not longer than `shortest`: first of all what belongs together is joined, then the shortest goes, so
/// that what it interrupted is one before it is judged.
fn joined(spans: &[Span], shortest: u64) -> Vec<Span> {
    [0, shortest / 16, shortest / 4, shortest]
        .iter()
        .fold(spans.to_vec(), |spans, ns| joined_once(&spans, *ns))
}

fn joined_once(spans: &[Span], shortest: u64) -> Vec<Span> {
    let mut all: Vec<Span> = Vec::new();
    for span in spans.iter().filter(|span| span.ns() > shortest) {
        match all.last_mut() {
            Some(last) if (last.state, &last.reason) == (span.state, &span.reason) => last.to_ns = span.to_ns,
            _ => all.push(span.clone()),
        }
    }
    all
}

fn told(spans: &[Span]) -> String {
    let one = |span: &Span| {
        let reason = if span.reason.is_empty() { String::new() } else { format!(" ({})", span.reason) };
        format!("{:?}{reason} {}..{}", span.state, span.from_ns, span.to_ns)
    };
    spans.iter().map(one).collect::<Vec<_>>().join(", then ")
}

fn within(ranges: &[Range], window: (u64, u64)) -> Vec<Range> {
    let inside = |range: &&Range| range.from_ns < window.1 && range.to_ns > window.0;
    let clipped = |range: &Range| Range {
        from_ns: range.from_ns.max(window.0),
        to_ns: range.to_ns.min(window.1),
        name: range.name.clone(),
    };
    ranges.iter().filter(inside).map(clipped).collect()
}

/// Each has its counterpart of the same name at the same time, in order.
fn ranges(what: &str, go: &[Range], us: &[Range], tolerance: Tolerance, differences: &mut Vec<String>) {
    let names = |ranges: &[Range]| ranges.iter().map(|range| range.name.clone()).collect::<Vec<_>>();
    if names(go) != names(us) {
        differences.push(format!("{what}: Go says {go:?}, the time line {us:?}"));
        return;
    }
    for (go, us) in go.iter().zip(us) {
        // The tracer has its end where the world runs again, the probe where that begins: ours may be earlier, by twice as
        // much.
        let end = us.to_ns.saturating_sub(go.to_ns).max(go.to_ns.saturating_sub(us.to_ns) / 2);
        let apart = go.from_ns.abs_diff(us.from_ns).max(end);
        if apart > tolerance.edge_ns {
            differences.push(format!("{what}: {go:?} and {us:?} are {apart} ns apart"));
        }
    }
}

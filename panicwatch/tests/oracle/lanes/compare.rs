//! Compares a goroutine's states and the collector's phases in a timeline with those in Go's execution trace.
//! Both observe the same run, one from inside and one from outside, and neither is free of cost: times may
//! differ slightly, and states shorter than that are compared only in sum.

use std::collections::BTreeMap;

use super::{Range, Span, State, Trace};

/// Time between the probe and the tracer's reading of its clock, at each change.
const EACH_CHANGE_NS: u64 = 1_000;

/// With more changes than this in a window, their order is not compared.
const MANY_TURNS: usize = 100;

/// Allowed differences between the timeline and the trace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tolerance {
    /// Allowed difference at the beginning and end of one state.
    pub(crate) edge_ns: u64,
    /// Minimum of the allowed difference in the sum of one state over the window, and in the time that the
    /// timeline does not know.
    pub(crate) sum_ns: u64,
    /// Allowed difference in the sum of one state, in percent of the window.
    pub(crate) percent: u64,
}

impl Tolerance {
    /// Tolerance that both accounts can be expected to meet on a machine that is not idle.
    pub(crate) const USUAL: Tolerance = Tolerance { edge_ns: 200_000, sum_ns: 200_000, percent: 5 };

    fn sum(&self, window_ns: u64) -> u64 {
        self.sum_ns.max(window_ns * self.percent / 100)
    }
}

/// Content of a timeline in the trace's terms. A state that the timeline marks as unknown is no span.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Beginning and end of the window.
    pub(crate) window: (u64, u64),
    /// States of the goroutine.
    pub(crate) spans: Vec<Span>,
    /// Whether the goroutine's states without a thread were recorded too.
    pub(crate) whole: bool,
    /// Stop-the-world pauses; `None` if not recorded.
    pub(crate) stopped: Option<Vec<Range>>,
    /// Concurrent mark phases; `None` if not recorded.
    pub(crate) marking: Option<Vec<Range>>,
}

/// Returns the differences; empty if timeline and trace agree.
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

/// Checks that the states follow each other without overlap.
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

/// Converts a span to the trace's terms. A trace that does not record the end of system calls has them as
/// running. Each of the tracer's wait reasons stands for several of the runtime's; runnable has a reason in
/// neither.
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

/// Returns the tracer's term for a wait reason of the runtime.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/traceruntime.go> (traceBlockReasonStrings), and
/// the calls of gopark in <https://github.com/golang/go/tree/go1.24.11/src/runtime>
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

/// Splits a span with alternative states: where Go has one of them, the span takes Go's state.
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

/// Sums the time in which the two disagree, or, if everything was recorded, in which only Go has a state. At
/// every change they may be slightly apart, which adds up if a goroutine yields repeatedly.
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

/// Compares the order of the states. A state too short for both to see alike is left out, and the state that
/// it interrupted counts as one.
fn order(theirs: &[Span], ours: &[Span], edge_ns: u64, differences: &mut Vec<String>) {
    // A goroutine that yields repeatedly (runtime.GC waits that way) has hundreds of turns, each shorter than
    // the tolerance, which makes their order arbitrary. Sums and overlaps are compared all the same.
    if theirs.len() > MANY_TURNS {
        return;
    }
    let steps = |spans: &[Span]| spans.iter().map(|s| (s.state, s.reason.clone())).collect::<Vec<_>>();
    let (go, us) = (joined(theirs, edge_ns), joined(ours, edge_ns));
    if steps(&go) == steps(&us) {
        edges(&go, &us, edge_ns, differences);
        return;
    }
    // A state about as long as the tolerance may be slightly shorter in one and slightly longer in the other.
    if steps(&joined(theirs, 2 * edge_ns)) != steps(&joined(ours, 2 * edge_ns)) {
        differences.push(format!("Go says {}; the time line {}", told(&go), told(&us)));
    }
}

fn edges(go: &[Span], us: &[Span], edge_ns: u64, differences: &mut Vec<String>) {
    for (go, us) in go.iter().zip(us) {
        let apart = go.from_ns.abs_diff(us.from_ns).max(go.to_ns.abs_diff(us.to_ns));
        // States left out before and after it are up to one tolerance long, in both.
        if apart > 2 * edge_ns {
            let (go, us) = (told(std::slice::from_ref(go)), told(std::slice::from_ref(us)));
            differences.push(format!("{go} and {us} are {apart} ns apart"));
        }
    }
}

/// Removes states not longer than `shortest`. Equal neighbours are merged first and the shortest states are
/// removed before longer ones, so that an interrupted state is merged before its length is judged.
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

/// Compares ranges in order: each must have a counterpart with the same name at the same time.
fn ranges(what: &str, go: &[Range], us: &[Range], tolerance: Tolerance, differences: &mut Vec<String>) {
    let names = |ranges: &[Range]| ranges.iter().map(|range| range.name.clone()).collect::<Vec<_>>();
    if names(go) != names(us) {
        differences.push(format!("{what}: Go says {go:?}, the time line {us:?}"));
        return;
    }
    for (go, us) in go.iter().zip(us) {
        // The tracer records the end once the world runs again, the probe when the restart begins: ours may
        // be earlier, by twice as much.
        let end = us.to_ns.saturating_sub(go.to_ns).max(go.to_ns.saturating_sub(us.to_ns) / 2);
        let apart = go.from_ns.abs_diff(us.from_ns).max(end);
        if apart > tolerance.edge_ns {
            differences.push(format!("{what}: {go:?} and {us:?} are {apart} ns apart"));
        }
    }
}

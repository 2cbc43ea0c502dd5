//! The timeline of an incident's document in the oracle's terms. Reads the JSON as other tools do.
//!
//! Depends only on the document (docs/timeline.md), not on how it was recorded.

use anyhow::{Context, Result, ensure};
use panicwatch::incident::Incident;
use serde_json::Value;

use crate::lanes::{Range, Span, State, compare::Told};

/// Ranges of a phase; `None` if it was not recorded.
type Phases = Option<Vec<Range>>;

/// The JSON of a timeline.
pub(crate) struct Line(Value);

impl Line {
    /// Returns the timeline of an incident, which must have one.
    pub(crate) fn of(incident: &Incident) -> Result<Line> {
        let line = serde_json::to_value(&incident.timeline)?;
        ensure!(line.is_object(), "no time line: {:?}", incident.missing);
        Ok(Line(line))
    }

    /// Returns a time or another number.
    pub(crate) fn number(&self, name: &str) -> Result<u64> {
        self.0[name].as_u64().with_context(|| format!("no {name} in the time line"))
    }

    /// Returns a number of its summary.
    pub(crate) fn summary(&self, name: &str) -> Result<u64> {
        self.0["summary"][name].as_u64().with_context(|| format!("no {name} in {}", self.0["summary"]))
    }

    /// Returns one of its lists.
    pub(crate) fn list(&self, name: &str) -> Result<&Vec<Value>> {
        self.0[name].as_array().with_context(|| format!("no {name} in the time line"))
    }

    /// Returns the beginning of the window and the time of the raise.
    pub(crate) fn window(&self) -> Result<(u64, u64)> {
        Ok((self.number("from_ns")?, self.number("raise_ns")?))
    }

    fn track(&self, kind: &str, id: Option<u64>) -> Option<&Value> {
        let of = |track: &&Value| track["kind"] == kind && id.is_none_or(|id| track["id"] == id);
        self.0["tracks"].as_array()?.iter().find(of)
    }

    /// Checks what must hold in every timeline.
    pub(crate) fn sound(&self) -> Result<()> {
        let (from, raise) = self.window()?;
        let to = self.number("to_ns")?;
        ensure!(from <= raise && raise <= to, "from {from}, raise {raise}, to {to}");
        let parts = [
            "running_ns",
            "runnable_ns",
            "waiting_ns",
            "syscall_ns",
            "stopped_ns",
            "not_running_ns",
            "ended_ns",
            "unknown_ns",
        ];
        let sum = parts.iter().map(|part| self.summary(part)).sum::<Result<u64>>()?;
        ensure!(
            sum == raise - from,
            "the summary adds up to {sum} ns of {} ns: {}",
            raise - from,
            self.0["summary"]
        );
        for track in self.list("tracks")? {
            let mut at = from;
            for state in track["states"].as_array().context("no states")? {
                let (begin, end) = times(state)?;
                ensure!(
                    begin == at && begin < end,
                    "{state} does not follow {at} in {} {}",
                    track["kind"],
                    track["id"]
                );
                at = end;
            }
            ensure!(at == to, "{} {} ends at {at}, not at {to}", track["kind"], track["id"]);
        }
        let times: Vec<_> = self.list("events")?.iter().filter_map(|e| e["time_ns"].as_u64()).collect();
        ensure!(times.is_sorted(), "events are not in order");
        Ok(())
    }

    /// Returns the goroutine's last state before the raise if it says that the goroutine was running on a
    /// thread other than the one it panicked on: no record can have said so.
    pub(crate) fn ran_elsewhere(&self, goroutine: u64, thread: u32) -> Option<&Value> {
        let raise = self.number("raise_ns").ok()?;
        let states = self.track("goroutine", Some(goroutine))?["states"].as_array()?;
        let last = states.iter().rfind(|state| state["from_ns"].as_u64().is_some_and(|from| from < raise))?;
        let elsewhere = last["state"] == "running" && last["thread"] != thread;
        (elsewhere && last["inferred"] != true).then_some(last)
    }

    /// Returns the states of a goroutine and of the garbage collector. `whole`: the runtime's own events were
    /// recorded.
    pub(crate) fn told(&self, goroutine: u64, whole: bool) -> Result<Told> {
        let track = self.track("goroutine", Some(goroutine));
        let track = track.with_context(|| format!("no track of goroutine {goroutine}"))?;
        let states = track["states"].as_array().context("no states")?;
        // Inferred states are compared only if the runtime's own events were recorded to prove them.
        let claimed = states.iter().filter(|state| whole || state["inferred"] != true);
        let spans = claimed.map(span).collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let (stopped, marking) = self.collector()?;
        Ok(Told { window: self.window()?, spans, whole, stopped, marking })
    }

    /// Returns the stop-the-world pauses and the mark phases.
    fn collector(&self) -> Result<(Phases, Phases)> {
        let Some(track) = self.track("gc", None) else { return Ok((None, None)) };
        let end = self.number("to_ns")?;
        let none = Vec::new();
        let slices = track["slices"].as_array().unwrap_or(&none).iter();
        let stop = |slice: &Value| {
            Some(Range {
                from_ns: slice["from_ns"].as_u64()?,
                to_ns: slice["to_ns"].as_u64().unwrap_or(end),
                name: slice["name"].as_str()?.to_owned(),
            })
        };
        let stops = slices.filter(|slice| slice["kind"] == "stop_the_world").map(stop).collect::<Option<_>>();
        let states = track["states"].as_array().context("no states")?;
        // If nothing is known on the track, nothing is known about marking.
        let known = states.iter().any(|state| state["state"] != "unknown");
        let marking = known.then(|| marking(states)).transpose()?;
        Ok((Some(stops.context("a stop without times")?), marking))
    }
}

/// Returns the mark phases, each from its first marking to its last; stop-the-world pauses may lie within.
fn marking(states: &[Value]) -> Result<Vec<Range>> {
    let mut all: Vec<Range> = Vec::new();
    let mut open = false;
    for state in states {
        let (from_ns, to_ns) = times(state)?;
        let marks = state["state"] == "marking" && state["detail"].is_null();
        match all.last_mut() {
            Some(last) if marks && open => last.to_ns = to_ns,
            _ if marks => all.push(Range { from_ns, to_ns, name: "mark".to_owned() }),
            _ => {}
        }
        open = marks || open && state["state"] == "stopped";
    }
    Ok(all)
}

fn times(state: &Value) -> Result<(u64, u64)> {
    let times = state["from_ns"].as_u64().zip(state["to_ns"].as_u64());
    times.with_context(|| format!("no times in {state}"))
}

/// States in which the kernel and the tracer differ: to Go, a goroutine whose thread has no CPU is running.
const ON_A_THREAD: &[State] = &[State::Running, State::Syscall];

/// Converts a state to the oracle's terms; `None` if the timeline marks it as unknown.
fn span(state: &Value) -> Result<Option<Span>> {
    let (from_ns, to_ns) = times(state)?;
    let detail = state["detail"].as_str().unwrap_or_default();
    let on_thread = !state["thread"].is_null();
    let (is, also): (State, &[State]) = match state["state"].as_str().unwrap_or_default() {
        "running" => (State::Running, &[]),
        "runnable" if on_thread => (State::Running, ON_A_THREAD),
        "runnable" => (State::Runnable, &[]),
        // Blocked in the kernel, by something that was not recorded, such as a system call.
        "waiting" if on_thread => (State::Syscall, ON_A_THREAD),
        "waiting" => (State::Waiting, &[]),
        "syscall" if is_runtimes_own(detail) => (State::Running, ON_A_THREAD),
        "syscall" => (State::Syscall, &[]),
        // Stopped for the collector to scan its stack, or because it could not continue, which Go reports as
        // either state.
        "stopped" if detail == "stack scan" => (State::Waiting, &[State::Waiting, State::Runnable]),
        "stopped" => (State::Runnable, &[State::Runnable, State::Running]),
        "not_running" | "ended" | "unknown" => return Ok(None),
        other => anyhow::bail!("no state of a goroutine: {other:?}"),
    };
    let reason = if is == State::Waiting { detail } else { "" };
    Ok(Some(Span { also, ..Span::new(from_ns, to_ns, is, reason) }))
}

/// System calls that the runtime makes for itself while a goroutine runs, which its tracer does not record.
/// <https://github.com/golang/go/blob/go1.24.11/src/runtime/sys_linux_amd64.s>
fn is_runtimes_own(call: &str) -> bool {
    const OWN: [&str; 10] = [
        "futex",
        "madvise",
        "mmap",
        "munmap",
        "sched_yield",
        "tgkill",
        "rt_sigreturn",
        "rt_sigprocmask",
        "clone",
        "getpid",
    ];
    OWN.contains(&call.split(['(', ' ']).next().unwrap_or_default())
}

//! The trace of an incident: a root span from the first raise to the end, a span for each panic of the chain
//! and each deferred call, and one for the window before the panic with the goroutine's states as events.
//! Does no I/O.

use opentelemetry_proto::tonic::trace::v1::{
    Span, Status,
    span::{Event, SpanKind},
    status::StatusCode,
};

use super::{
    encode::{SAMPLED, code, described, exception},
    wall::{Attributes, MAX_NAME, Wall, cut, span_id, trace_id},
};
use crate::incident::{
    Defer, DeferEnd, Incident, Panic, State, fingerprint,
    timeline::{Timeline, TrackKind},
};

/// Path of the root span.
pub(super) const ROOT: &str = "root";
/// Maximum numbers of panics, of deferred calls per panic, and of states. States left out are counted.
const MAX_PANICS: usize = 64;
const MAX_DEFERS: usize = 128;
const MAX_STATES: usize = 256;

/// Returns all spans, the root first.
pub(super) fn spans(incident: &Incident) -> Vec<Span> {
    let maker = Maker { incident, wall: Wall::of(incident), end_ns: end_ns(incident) };
    let mut spans = vec![maker.root()];
    for (i, panic) in incident.panics.iter().enumerate().take(MAX_PANICS) {
        spans.push(maker.panic(i, panic));
        for (k, defer) in panic.defers.iter().enumerate().take(MAX_DEFERS) {
            spans.push(maker.defer(i, k, defer));
        }
    }
    spans.extend(incident.timeline.as_ref().and_then(|timeline| maker.window(timeline)));
    spans
}

/// Returns the end of the incident; if it is unknown, the time of the last known event.
fn end_ns(incident: &Incident) -> u64 {
    let of_defers = |panic: &Panic| {
        panic.defers.iter().map(|defer| defer.end_ns.unwrap_or(defer.start_ns)).max().unwrap_or(0)
    };
    let known = incident
        .panics
        .iter()
        .map(|panic| of_defers(panic).max(recovered_ns(panic).unwrap_or(panic.raised_ns)));
    incident.end_ns.unwrap_or_else(|| known.max().unwrap_or(0)).max(incident.start_ns)
}

fn recovered_ns(panic: &Panic) -> Option<u64> {
    panic.recover.as_ref().map(|recover| panic.raised_ns.saturating_add(recover.ns_after_raise))
}

struct Maker<'a> {
    incident: &'a Incident,
    wall: Wall,
    end_ns: u64,
}

impl Maker<'_> {
    fn span(&self, path: &str, parent: Option<&str>, name: String, times: (u64, u64)) -> Span {
        Span {
            trace_id: trace_id(self.incident),
            span_id: span_id(self.incident, path),
            parent_span_id: parent.map(|parent| span_id(self.incident, parent)).unwrap_or_default(),
            name,
            kind: SpanKind::Internal as i32,
            start_time_unix_nano: self.wall.at(times.0),
            // Timestamps of different CPUs may disagree: a span must not end before it starts.
            end_time_unix_nano: self.wall.at(times.1.max(times.0)),
            flags: SAMPLED,
            ..Span::default()
        }
    }

    fn event(&self, at_ns: u64, name: &str, attributes: Attributes) -> Event {
        Event {
            time_unix_nano: self.wall.at(at_ns),
            name: name.to_owned(),
            attributes: attributes.0,
            ..Event::default()
        }
    }

    fn failed(&self, message: Option<&str>) -> Option<Status> {
        let message = cut(message.unwrap_or_default(), MAX_NAME).to_owned();
        Some(Status { code: StatusCode::Error as i32, message })
    }

    fn root(&self) -> Span {
        let incident = self.incident;
        // Traces are grouped by span name, so it has the class and never the message.
        let class = fingerprint::class(incident);
        let class = if class == "?" { "of unknown class" } else { cut(&class, MAX_NAME) };
        let name = format!("{} {class}", incident.kind.name());
        let mut span = self.span(ROOT, None, name, (incident.start_ns, self.end_ns));
        let mut attributes = Attributes::default();
        described(incident, &mut attributes);
        span.attributes = attributes.0;
        span.status = self.failed(incident.message.as_deref());
        let mut raised = Attributes::default();
        exception(incident, &mut raised);
        span.events.push(self.event(incident.start_ns, "exception", raised));
        if let Some(end) = incident.end_ns {
            let mut ended = Attributes::default();
            ended.text("panicwatch.outcome", Some(incident.outcome.name()));
            span.events.push(self.event(end, incident.outcome.name(), ended));
        }
        span
    }

    fn panic(&self, i: usize, panic: &Panic) -> Span {
        let end = recovered_ns(panic).unwrap_or(self.end_ns);
        let name =
            format!("panic {}", cut(panic.value.type_name.as_deref().unwrap_or("of unknown type"), MAX_NAME));
        let name = if panic.goexit { "runtime.Goexit".to_owned() } else { name };
        let mut span = self.span(&panic_path(i), Some(ROOT), name, (panic.raised_ns, end));
        let mut attributes = Attributes::default();
        if let Some(site) = &panic.site {
            code(site, &mut attributes);
        }
        attributes.text("panicwatch.panic.state", Some(state(panic.state)));
        attributes.text("panicwatch.panic.check", panic.check.as_deref());
        attributes.text("panicwatch.panic.signal", panic.signal.as_ref().map(|signal| signal.name.as_str()));
        span.attributes = attributes.0;
        let mut raised = Attributes::default();
        raised.text("exception.type", panic.value.type_name.as_deref().map(|name| cut(name, MAX_NAME)));
        let text = panic.value.printed.as_deref().or(panic.value.text.as_deref());
        raised.text("exception.message", text);
        span.events.push(self.event(panic.raised_ns, "exception", raised));
        if let (Some(recover), Some(at)) = (&panic.recover, recovered_ns(panic)) {
            let mut by = Attributes::default();
            recover.by.iter().for_each(|frame| code(frame, &mut by));
            span.events.push(self.event(at, "recover", by));
        }
        span.status = self.failed(text);
        span
    }

    fn defer(&self, i: usize, k: usize, defer: &Defer) -> Span {
        let function = defer.function.as_ref().map_or("?", |frame| frame.function.as_str());
        // A deferred call that panicked ended when the next panic was raised.
        let next = self.incident.panics.get(i + 1).map(|panic| panic.raised_ns);
        let over = next.filter(|at| defer.ended == Some(DeferEnd::Panicked) && *at >= defer.start_ns);
        let end = defer.end_ns.or(over).unwrap_or(self.end_ns);
        let name = format!("defer {}", cut(function, MAX_NAME));
        let path = format!("{}/defer/{k}", panic_path(i));
        let mut span = self.span(&path, Some(&panic_path(i)), name, (defer.start_ns, end));
        let mut attributes = Attributes::default();
        defer.function.iter().for_each(|frame| code(frame, &mut attributes));
        let ended = defer.ended.map_or("running", defer_end);
        attributes.text("panicwatch.defer.ended", Some(ended));
        let by = defer.registered_by.as_ref();
        attributes.text("panicwatch.defer.registered_by", by.map(|frame| cut(&frame.function, MAX_NAME)));
        span.attributes = attributes.0;
        if matches!(defer.ended, Some(DeferEnd::Panicked | DeferEnd::Exited | DeferEnd::Goexit)) {
            span.status = self.failed(Some(ended));
        }
        span
    }

    /// Returns the span of the window before the panic; beyond the maximum, the goroutine's earliest states
    /// are dropped.
    fn window(&self, timeline: &Timeline) -> Option<Span> {
        let goroutine = timeline.summary.goroutine?;
        let track = timeline.tracks.iter().find(|t| t.kind == TrackKind::Goroutine && t.id == goroutine)?;
        let name = "before the panic".to_owned();
        let mut span = self.span("window", Some(ROOT), name, (timeline.from_ns, timeline.raise_ns));
        let before: Vec<_> = track.states.iter().filter(|state| state.from_ns < timeline.raise_ns).collect();
        let left_out = before.len().saturating_sub(MAX_STATES);
        span.dropped_events_count = u32::try_from(left_out).unwrap_or(u32::MAX);
        span.events.extend(before[left_out..].iter().map(|state| {
            let mut attributes = Attributes::default();
            attributes
                .text("panicwatch.state.detail", state.detail.as_deref().map(|text| cut(text, MAX_NAME)));
            let end = state.to_ns.min(timeline.raise_ns);
            attributes.number("panicwatch.state.duration_ns", Some(end.saturating_sub(state.from_ns)));
            attributes.number("thread.id", state.thread);
            attributes.number("cpu.logical_number", state.cpu);
            self.event(state.from_ns, &doing(state.state), attributes)
        }));
        let mut attributes = Attributes::default();
        attributes.number("panicwatch.goroutine.id", Some(goroutine));
        attributes.number("panicwatch.recorder.lost", Some(timeline.lost));
        span.attributes = attributes.0;
        Some(span)
    }
}

fn panic_path(i: usize) -> String {
    format!("panic/{i}")
}

/// Returns the name used in the document.
fn doing(doing: crate::incident::timeline::Doing) -> String {
    serde_json::to_value(doing).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Returns the name used in the document.
fn state(state: State) -> &'static str {
    match state {
        State::Recovered => "recovered",
        State::Repanicked => "repanicked",
        State::Aborted => "aborted",
        State::Fatal => "fatal",
        State::Running => "running",
    }
}

/// Returns the name used in the document.
fn defer_end(end: DeferEnd) -> &'static str {
    match end {
        DeferEnd::Returned => "returned",
        DeferEnd::Recovered => "recovered",
        DeferEnd::Panicked => "panicked",
        DeferEnd::Exited => "exited",
        DeferEnd::Goexit => "goexit",
    }
}

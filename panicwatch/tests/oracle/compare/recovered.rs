//! Compares recovered panics with what the program itself saw of them.
//!
//! The fixtures print one JSON line per recovered panic from the deferred call that recovered it.

use panicwatch::{
    go::release::Release,
    incident::{DeferEnd, Incident, Kind, Outcome, Panic, State},
};
use serde::Deserialize;

use super::{Differences, stack};
use crate::go_text::{self, GoroutineText};

/// What a fixture prints about a panic that it recovered.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Truth {
    /// `%T` of the value.
    #[serde(rename = "type")]
    pub(crate) type_name: String,
    /// Text of the value as the program sees it.
    pub(crate) text: Option<String>,
    /// Whether the text must be known: it can be read without running the program's code.
    #[serde(default)]
    pub(crate) readable: bool,
    /// `debug.Stack()` in the deferred call that recovered.
    pub(crate) stack: String,
    /// Every deferred call that ran for this panic, in order, the recovering one last.
    #[serde(default)]
    pub(crate) defers: Option<Vec<DeferTruth>>,
    /// Function that called recover().
    #[serde(default)]
    pub(crate) recovered_by: Option<String>,
    /// Values of the earlier panics of its chain, each recovered and followed by another.
    #[serde(default)]
    pub(crate) earlier: Vec<String>,
}

/// A deferred call as the fixture prints it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct DeferTruth {
    /// Name of the deferred function.
    pub(crate) function: String,
    /// Function that contains the defer statement.
    pub(crate) registered_by: String,
}

impl DeferTruth {
    /// `defer f(x)` runs a compiler-generated wrapper that calls f: the incident may name either. Go 1.21 and
    /// earlier name the wrapper like a closure.
    fn is(&self, function: &str, registered_by: &str) -> bool {
        let wrapper = function
            .strip_prefix(&self.registered_by)
            .is_some_and(|rest| rest.starts_with(".deferwrap") || rest.starts_with(".func"));
        let closure = self.function.starts_with(&self.registered_by);
        registered_by == self.registered_by && (function == self.function || (wrapper && !closure))
    }
}

impl Truth {
    /// Returns the goroutine that recovered, with the frames below its panic: those of the raise.
    pub(crate) fn raise(&self) -> Option<GoroutineText> {
        let mut goroutine = go_text::parse_stack(&self.stack)?;
        let at = goroutine.frames.iter().position(|f| f.function == "panic")?;
        goroutine.frames.drain(..=at);
        goroutine.elided = goroutine.elided.map(|(after, n)| (after.saturating_sub(at + 1), n));
        Some(goroutine)
    }

    /// Returns the type's name as the incident should have it; `%T` prints nil differently.
    pub(crate) fn type_as_panicwatch_says(&self) -> String {
        if self.type_name == "<nil>" { "nil".to_owned() } else { self.type_name.clone() }
    }

    /// Returns the goid of the goroutine that panicked.
    pub(crate) fn goroutine(&self) -> Option<u64> {
        go_text::parse_stack(&self.stack).map(|g| g.id)
    }
}

/// Compares a recovered incident with what the program saw.
pub(crate) fn compare(truth: &Truth, incident: &Incident, release: Release) -> Vec<String> {
    let mut d = Differences::default();
    d.equal("kind", Kind::Panic, incident.kind);
    d.equal("outcome", Outcome::Recovered, incident.outcome);
    d.equal("length of the chain", truth.earlier.len() + 1, incident.panics.len());
    let Some((last, before)) = incident.panics.split_last() else { return d.0 };
    for (text, panic) in truth.earlier.iter().zip(before) {
        d.equal("earlier panic", Some(text.as_str()), panic.value.text.as_deref());
        d.equal("earlier panic's state", State::Repanicked, panic.state);
    }
    d.equal("state", State::Recovered, last.state);
    value(truth, last, incident, &mut d);
    place(truth, last, incident, release, &mut d);
    ending(truth, last, &mut d);
    d.0
}

fn value(truth: &Truth, panic: &Panic, incident: &Incident, d: &mut Differences) {
    d.equal("value.type", Some(truth.type_as_panicwatch_says()), panic.value.type_name.clone());
    match (&truth.text, &panic.value.text) {
        (Some(text), Some(seen)) => {
            d.equal("value.text", text, seen);
        }
        (Some(text), None) if truth.readable => d.equal("value.text", Some(text), None),
        (_, None) => {
            let told =
                incident.missing.iter().any(|m| m.what.ends_with("value.text") && !m.reason.is_empty());
            d.equal("value.text is null: missing says why", true, told);
        }
        (None, Some(_)) => {}
    }
}

fn place(truth: &Truth, panic: &Panic, incident: &Incident, release: Release, d: &mut Differences) {
    let Some(raise) = truth.raise() else {
        d.add("the fixture's own stack could not be read");
        return;
    };
    d.equal("goroutine.id", Some(raise.id), incident.goroutine.as_ref().map(|g| g.id));
    // debug.Stack counts its own frames among the 50 innermost, so on a deep stack the two gaps differ.
    if raise.elided.is_none() {
        stack::compare(&raise, &incident.stack, incident.stack_elided, release, d);
    }
    // A panic raised by the runtime inside a deferred call has no user frames before the outer panic's.
    match (raise.frames.iter().find(|f| f.function != "panic"), &panic.site) {
        (Some(go), Some(site)) => stack::frame("panic.site", go, site, d),
        (go, site) => d.equal("panic.site", go.is_some(), site.is_some()),
    }
}

fn ending(truth: &Truth, panic: &Panic, d: &mut Differences) {
    if let Some(by) = &truth.recovered_by {
        let seen = panic.recover.as_ref().and_then(|r| r.by.as_ref()).map(|f| f.function.as_str());
        d.equal("recover.by", Some(by.as_str()), seen);
    }
    let Some(defers) = &truth.defers else { return };
    let name =
        |f: &Option<panicwatch::incident::Frame>| f.as_ref().map(|f| f.function.clone()).unwrap_or_default();
    let seen: Vec<_> = panic.defers.iter().map(|x| (name(&x.function), name(&x.registered_by))).collect();
    let same = defers.len() == seen.len()
        && defers.iter().zip(&seen).all(|(go, (function, by))| go.is(function, by));
    if !same {
        d.add(format!(
            "defers (function, registered_by): the program says {defers:?}, the incident {seen:?}"
        ));
    }
    d.equal("last defer ended", Some(DeferEnd::Recovered), panic.defers.last().and_then(|x| x.ended));
    let sorted = panic.defers.windows(2).all(|w| w[0].start_ns <= w[1].start_ns);
    d.equal("defers in the order they ran", true, sorted);
}

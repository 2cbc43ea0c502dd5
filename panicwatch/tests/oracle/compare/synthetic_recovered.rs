//! Like `synthetic`, for recovered panics: the incident that a perfect observer would have written, and its
//! damaged variants.

use panicwatch::{
    go::release::Release,
    incident::{
        Defer, DeferEnd, Frame, Goroutine, Incident, Kind, Missing, Outcome, Panic, Recover, State, Value,
    },
};

use super::{Expect, recovered::Truth, synthetic};
use crate::go_text::Account;

/// Returns the incident of one recovered panic.
pub(crate) fn incident(truth: &Truth, release: Release) -> Incident {
    let exit = panicwatch::incident::Exit { code: None, signal: None };
    let expect = Expect { kind: Kind::Panic, release, nothing_recovered: false, exit };
    let raise = truth.raise().unwrap_or_default();
    let account = Account { goroutines: vec![raise], ..Account::default() };
    let mut incident = synthetic::incident(&account, &expect);
    incident.outcome = Outcome::Recovered;
    incident.exit = None;
    incident.panics = truth.earlier.iter().map(|text| panic(Some(text.clone()), State::Repanicked)).collect();
    incident.panics.push(last(truth, &incident.stack));
    if incident.panics.last().is_some_and(|p| p.value.text.is_none()) {
        let what = format!("panics[{}].value.text", incident.panics.len() - 1);
        incident.missing.push(Missing { what, reason: "only the program could tell".into() });
    }
    incident
}

fn last(truth: &Truth, stack: &[Frame]) -> Panic {
    let mut panic = panic(truth.text.clone(), State::Recovered);
    panic.value.type_name = Some(truth.type_as_panicwatch_says());
    panic.site = stack.iter().find(|f| f.function != "panic").cloned();
    let named = |name: &String| Some(Frame { function: name.clone(), ..Frame::default() });
    panic.recover = Some(Recover { by: truth.recovered_by.as_ref().and_then(named), ns_after_raise: 1 });
    let defers = truth.defers.iter().flatten();
    panic.defers = defers
        .map(|d| Defer {
            nil: false,
            function: named(&d.function),
            registered_by: named(&d.registered_by),
            start_ns: 1,
            end_ns: None,
            ended: Some(DeferEnd::Returned),
        })
        .collect();
    panic.defers.last_mut().into_iter().for_each(|d| d.ended = Some(DeferEnd::Recovered));
    panic
}

fn panic(text: Option<String>, state: State) -> Panic {
    Panic {
        value: Value { text, ..Value::default() },
        runtime_error: false,
        goexit: false,
        state,
        raised_ns: 0,
        site: None,
        signal: None,
        registers: Default::default(),
        instructions: Vec::new(),
        check: None,
        defers: Vec::new(),
        recover: None,
    }
}

/// Returns the incident with one field wrong, for each field that can be wrong.
pub(crate) fn damaged(good: &Incident) -> Vec<(&'static str, Incident)> {
    let mut out = Vec::new();
    let mut damage = |name, change: &dyn Fn(&mut Incident)| {
        let mut bad = good.clone();
        change(&mut bad);
        if bad != *good {
            out.push((name, bad));
        }
    };
    damage("kind", &|i| i.kind = Kind::Throw);
    damage("outcome", &|i| i.outcome = Outcome::Fatal);
    damage("goroutine", &|i| i.goroutine.iter_mut().for_each(|g: &mut Goroutine| g.id += 1));
    damage("chain lost", &|i| i.panics.clear());
    damage("chain longer", &|i| i.panics.extend(i.panics.last().cloned()));
    damage("reason lost", &|i| i.missing.clear());
    let mut on = |name, change: fn(&mut Panic)| {
        damage(name, &|i| i.panics.last_mut().into_iter().for_each(change));
    };
    on("type", |p| p.value.type_name = Some("main.other".into()));
    on("text", |p| p.value.text.iter_mut().for_each(|t| t.push('x')));
    on("text lost", |p| p.value.text = None);
    on("state", |p| p.state = State::Repanicked);
    on("recover lost", |p| p.recover = None);
    on("recover by another", |p| {
        p.recover.iter_mut().filter_map(|r| r.by.as_mut()).for_each(|f| f.function.push('x'));
    });
    on("site lost", |p| p.site = None);
    on("site's line", |p| p.site.iter_mut().for_each(|f| f.line = f.line.map(|l| l + 1)));
    on("defer lost", |p| drop(p.defers.pop()));
    on("first defer lost", |p| drop((!p.defers.is_empty()).then(|| p.defers.remove(0))));
    on("defer's function", |p| {
        p.defers.iter_mut().filter_map(|d| d.function.as_mut()).take(1).for_each(|f| f.function.push('x'));
    });
    on("defer's registrar", |p| {
        p.defers
            .iter_mut()
            .filter_map(|d| d.registered_by.as_mut())
            .take(1)
            .for_each(|f| f.function.push('x'));
    });
    on("defer's end", |p| p.defers.last_mut().into_iter().for_each(|d| d.ended = Some(DeferEnd::Returned)));
    out
}

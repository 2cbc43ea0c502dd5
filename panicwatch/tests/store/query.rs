//! Queries, compared with a naive model.

use panicwatch::{
    incident::{Incident, Kind, Outcome},
    store::{Archive as _, Error, Query, Store},
};
use proptest::{prelude::*, sample::select, test_runner::TestRunner};

use crate::made::{BEGIN, batch, id, incident, open};

const INCIDENTS: u64 = 200;
const GROUPS: u64 = 6;

/// Reports whether `incident` matches `query`, by the naive model.
fn fits(query: &Query, incident: &Incident) -> bool {
    let text = |text: &String| {
        let text = text.to_lowercase();
        let message = incident.message.as_ref().is_some_and(|message| message.to_lowercase().contains(&text));
        let function = incident.stack.iter().any(|frame| frame.function.to_lowercase().contains(&text));
        let names = incident.panics.iter().filter_map(|panic| panic.value.type_name.as_ref());
        message || function || names.into_iter().any(|name| name.to_lowercase().contains(&text))
    };
    // All times have the same format, so they sort as text.
    query.from.as_ref().is_none_or(|from| incident.time >= *from)
        && query.to.as_ref().is_none_or(|to| incident.time < *to)
        && query.pid.is_none_or(|pid| incident.process.pid == pid)
        && query
            .exe
            .as_ref()
            .is_none_or(|exe| incident.process.exe.as_ref().is_some_and(|its| its.contains(exe)))
        && query.fingerprint.as_ref().is_none_or(|fingerprint| incident.fingerprint == *fingerprint)
        && query.kind.is_none_or(|kind| incident.kind == kind)
        && query.outcome.is_none_or(|outcome| incident.outcome == outcome)
        && query.text.as_ref().is_none_or(text)
        && query.before.as_ref().is_none_or(|before| incident.id < *before)
}

fn queries() -> impl Strategy<Value = Query> {
    let time = || {
        prop::option::weighted(0.3, 0..INCIDENTS).prop_map(|n| {
            let time =
                n.map(|n| jiff::Timestamp::from_millisecond((BEGIN + n * 1000) as i64).expect("a time"));
            time.map(|time| format!("{time:.9}"))
        })
    };
    let words = ["MESSAGE 1", "main.", "9", "runtime.Error", "nothing like it"].map(str::to_owned);
    let exes = ["server-3", "/srv/", "shop/server-0", "other"].map(str::to_owned);
    (
        (time(), time(), prop::option::weighted(0.3, 1000..1008_u32)),
        (
            prop::option::weighted(0.3, select(exes.to_vec())),
            prop::option::weighted(0.3, (0..GROUPS + 1).prop_map(|n| format!("{n:016x}"))),
            prop::option::weighted(0.3, select(vec![Kind::Panic, Kind::FatalError, Kind::Throw])),
            prop::option::weighted(0.3, select(vec![Outcome::Recovered, Outcome::Fatal, Outcome::Goexit])),
        ),
        (
            prop::option::weighted(0.3, select(words.to_vec())),
            prop::option::weighted(0.3, (0..INCIDENTS + 1).prop_map(id)),
            prop::option::weighted(0.7, 1..50_usize),
        ),
    )
        .prop_map(|((from, to, pid), (exe, fingerprint, kind, outcome), (text, before, limit))| Query {
            from,
            to,
            pid,
            exe,
            fingerprint,
            kind,
            outcome,
            text,
            before,
            limit,
        })
}

/// Returns the incidents of all pages of a query, in order.
fn all_pages(store: &Store, mut query: Query) -> Vec<Incident> {
    let mut all = Vec::new();
    loop {
        let page = store.incidents(&query).expect("a page");
        assert!(page.incidents.len() <= query.limit.unwrap_or(100));
        all.extend(page.incidents);
        match page.next {
            Some(next) => query.before = Some(next),
            None => return all,
        }
    }
}

#[test]
fn queries_find_what_a_reader_would() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    // Incidents are not stored in the order of their times.
    for start in [100, 0, 150, 50] {
        store.append(&batch(start..start + 50, GROUPS)).expect("written");
    }
    let listed = |n| Incident { timeline: None, ..incident(n, GROUPS) };
    let model: Vec<Incident> = (0..INCIDENTS).rev().map(listed).collect();
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let checked = runner.run(&queries(), |query| {
        let expected: Vec<&str> = model
            .iter()
            .filter(|incident| fits(&query, incident))
            .map(|incident| incident.id.as_str())
            .collect();
        let found = all_pages(&store, query);
        prop_assert_eq!(found.iter().map(|incident| incident.id.as_str()).collect::<Vec<_>>(), expected);
        Ok(())
    });
    checked.unwrap_or_else(|error| panic!("{error}"));
    let all = all_pages(&store, Query::default());
    assert!(all == model, "whole, but for their timelines");
}

#[test]
fn a_time_that_is_none_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = open(dir.path(), &[]).store;
    let query = Query { from: Some("yesterday".to_owned()), ..Query::default() };
    match store.incidents(&query) {
        Err(Error::Query(sentence)) => assert!(sentence.contains("from is not a time"), "{sentence}"),
        other => panic!("{other:?}"),
    }
}

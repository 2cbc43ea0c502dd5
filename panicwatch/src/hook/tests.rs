//! Tests of retries in virtual time.

use std::{cell::Cell, collections::BTreeMap};

use super::*;
use crate::{
    config::{Metrics as Bounds, Span},
    metrics::Metrics,
};

/// Delivers to `answer`, which receives the number of the call; returns the fate, the number of calls, the
/// seconds that passed, and the metrics.
async fn delivered(
    config: &config::Hook,
    answer: impl Fn(u32) -> Result<(), Failure>,
) -> (Fate, u32, u64, String) {
    let metrics = Metrics::new(&Bounds::default(), &BTreeMap::new()).expect("metrics");
    let (_stop, stopping) = watch::channel(false);
    let (calls, begun) = (Cell::new(0), Instant::now());
    let call = || {
        calls.set(calls.get() + 1);
        std::future::ready(answer(calls.get()))
    };
    let fate = deliver(config, "ID", call, &metrics.sink("h"), stopping).await;
    (fate, calls.get(), begun.elapsed().as_secs(), metrics.render())
}

#[tokio::test(start_paused = true)]
async fn an_hour_by_default() {
    let failing = |_| Err(Failure::passing("no"));
    let (fate, calls, seconds, metrics) = delivered(&config::Hook::default(), failing).await;
    // Retries after 1, 2, 4, 8, 16, 32 and then every 60 seconds: the last one is within the hour, the next
    // would not be.
    assert_eq!((fate, calls, seconds), (Fate::GivenUp, 1 + 6 + 58, 63 + 58 * 60));
    assert!(metrics.contains("panicwatch_export_failures_total{sink=\"h\"} 65"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_50_minutes_loses_nothing() {
    let (config, begun) = (config::Hook::default(), Instant::now());
    let up = |_| match begun.elapsed() >= Duration::from_secs(50 * 60) {
        true => Ok(()),
        false => Err(Failure::passing("connection refused")),
    };
    let (fate, _, seconds, _) = delivered(&config, up).await;
    assert_eq!((fate, seconds), (Fate::Sent, 63 + 49 * 60));
}

#[tokio::test(start_paused = true)]
async fn never_when_told_so_or_refused_for_good() {
    let never = config::Hook { retry_for: Span(Duration::ZERO), ..config::Hook::default() };
    let (fate, calls, seconds, _) = delivered(&never, |_| Err(Failure::passing("no"))).await;
    assert_eq!((fate, calls, seconds), (Fate::GivenUp, 1, 0));
    let refused = |_| Err(Failure::lasting("400 Bad Request"));
    let (fate, calls, ..) = delivered(&config::Hook::default(), refused).await;
    assert_eq!((fate, calls), (Fate::GivenUp, 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_asks_for_is_waited_for_and_bounded() {
    let asked = |call| match call {
        1 => Err(Failure { reason: "busy".to_owned(), again: Some(Some(Duration::from_secs(20))) }),
        2 => Err(Failure { reason: "busy".to_owned(), again: Some(Some(Duration::from_secs(86_400))) }),
        _ => Ok(()),
    };
    let (fate, calls, seconds, _) = delivered(&config::Hook::default(), asked).await;
    assert_eq!((fate, calls, seconds), (Fate::Sent, 3, 20 + MAX_ASKED.as_secs()));
}

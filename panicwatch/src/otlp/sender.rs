//! Sends the incidents that wait in the outbox, in batches. Retries after temporary failures, and drops
//! incidents that the collector refuses permanently.
//!
//! An incident leaves the outbox once the collector has accepted or permanently refused each of its signals.
//! This module depends on neither the transport nor the daemon.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use tokio::sync::watch;

use super::{
    exporter::{Accepted, Exporter, Request},
    retry::{Next, Refusal, pause},
};
use crate::{
    config::Otlp,
    escape,
    incident::{Host, Incident},
    metrics::Sink,
    render::otlp::encode,
    store::{self, Outbox},
    watch::host::Facts,
};

/// Maximum number of incidents read from the outbox at once; each document may have some megabytes.
const BATCH: usize = 16;
/// Maximum size of a request in bytes; collectors accept 4 MiB by default.
const MAX_BYTES: usize = 3 << 20;
/// Maximum interval between checks of the outbox, with or without a notification.
const LOOK: Duration = Duration::from_secs(30);
/// Maximum number of characters logged of a collector's message.
const MAX_WORDS: usize = 300;

/// Sends until `stop` is true and everything that can be sent was: from then on, an unresponsive collector
/// delays the end by one request's time-out at most. The number in `stored` increases with new incidents.
pub async fn run(
    outbox: Outbox,
    config: Otlp,
    exporter: Exporter,
    sink: Sink,
    stored: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
) {
    let host = Facts::read().host;
    let mut sender = Sender { outbox, config, sink, stored, stop, exporter, host, failures: 0 };
    sender.serve().await;
}

/// A kind of telemetry data sent for an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    Logs,
    Traces,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Logs => "logs",
            Signal::Traces => "traces",
        }
    }

    /// Returns a request with the first of `incidents` that fit, and their number, which is at least one.
    fn request(self, incidents: &[Arc<Incident>], host: &Host) -> (Request, usize) {
        match self {
            Signal::Logs => {
                let resource_logs = fitting(incidents, |incident| encode::logs(incident, host));
                let n = resource_logs.len();
                (Request::Logs(ExportLogsServiceRequest { resource_logs }), n)
            }
            Signal::Traces => {
                let resource_spans = fitting(incidents, |incident| encode::spans(incident, host));
                let n = resource_spans.len();
                (Request::Traces(ExportTraceServiceRequest { resource_spans }), n)
            }
        }
    }
}

fn fitting<T: prost::Message>(incidents: &[Arc<Incident>], encode: impl Fn(&Incident) -> T) -> Vec<T> {
    let (mut fitting, mut bytes) = (Vec::new(), 0);
    for incident in incidents {
        let one = encode(incident);
        bytes += one.encoded_len();
        if bytes > MAX_BYTES && !fitting.is_empty() {
            break;
        }
        fitting.push(one);
    }
    fitting
}

/// Result of sending one signal of a batch.
#[derive(Debug, Default)]
struct Delivered {
    /// For each incident in order, whether it was accepted rather than permanently refused; shorter than the
    /// batch if the rest was not tried.
    taken: Vec<bool>,
    /// Number of records that the collector accepted in a request but rejected individually.
    rejected: u64,
}

struct Sender {
    outbox: Outbox,
    config: Otlp,
    sink: Sink,
    stored: watch::Receiver<u64>,
    stop: watch::Receiver<bool>,
    exporter: Exporter,
    host: Host,
    /// Number of failures since the last success.
    failures: u32,
}

impl Sender {
    async fn serve(&mut self) {
        let signals: Vec<Signal> = [(self.config.logs, Signal::Logs), (self.config.traces, Signal::Traces)]
            .into_iter()
            .filter_map(|(wanted, signal)| wanted.then_some(signal))
            .collect();
        loop {
            self.stored.mark_unchanged();
            let batch = match self.look().await {
                Ok(batch) => batch,
                Err(error) => {
                    log::error!("cannot read incidents to send by OTLP: {error}");
                    Vec::new()
                }
            };
            if batch.is_empty() {
                if self.stopping() {
                    return;
                }
                self.rest().await;
            } else if !self.deliver(&signals, &batch).await {
                return;
            }
        }
    }

    fn stopping(&self) -> bool {
        // A closed channel also means stop: the daemon's side is gone.
        *self.stop.borrow() || self.stop.has_changed().is_err()
    }

    /// Waits until an incident is stored, a stop is requested, or the maximum interval has passed.
    async fn rest(&mut self) {
        tokio::select! {
            // If the sender is gone, only the timer remains.
            Ok(()) = self.stored.changed() => {}
            _ = self.stop.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }

    /// Returns the oldest waiting incidents, after dropping those beyond the queue's limit.
    async fn look(&mut self) -> Result<Vec<Arc<Incident>>, store::Error> {
        let max = self.config.max_queue;
        let (given_up, waiting, batch) = self
            .on_disk(move |outbox| {
                Ok((outbox.trim(max, |_| false)?, outbox.waiting()?, outbox.pending(0, BATCH)?))
            })
            .await?;
        if given_up > 0 {
            self.sink.dropped(given_up);
            log::warn!(
                "{given_up} incidents were not sent by OTLP: more than {max} were waiting, the oldest were dropped"
            );
        }
        self.sink.waiting(waiting);
        Ok(batch)
    }

    /// Runs `work` on a blocking thread, so that a slow disk does not block the runtime.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Outbox) -> Result<T, store::Error> + Send + 'static,
    ) -> Result<T, store::Error> {
        let outbox = self.outbox.clone();
        match tokio::task::spawn_blocking(move || work(&outbox)).await {
            Ok(result) => result,
            // The task is cancelled only when the runtime, and this task with it, shuts down.
            Err(error) => Err(store::Error::Query(format!("cannot read the outbox: {error}"))),
        }
    }

    /// Sends a batch; returns false when it has to stop before everything was sent.
    async fn deliver(&mut self, signals: &[Signal], batch: &[Arc<Incident>]) -> bool {
        let mut taken = vec![true; batch.len()];
        let (mut tried, mut rejected) = (batch.len(), 0);
        for signal in signals {
            let delivered = self.signal(*signal, batch).await;
            tried = tried.min(delivered.taken.len());
            rejected = rejected.max(delivered.rejected);
            taken.iter_mut().zip(&delivered.taken).for_each(|(all, one)| *all &= *one);
        }
        let ids: Vec<String> = batch[..tried].iter().map(|incident| incident.id.clone()).collect();
        let done = move |outbox: &Outbox| outbox.done(&ids.iter().map(String::as_str).collect::<Vec<_>>());
        if let Err(error) = self.on_disk(done).await {
            log::error!("{error}; incidents that were sent by OTLP will be sent again");
            return self.wait(None).await;
        }
        let sent = taken[..tried].iter().filter(|taken| **taken).count() as u64;
        let rejected = rejected.min(sent);
        self.sink.sent(sent - rejected);
        self.sink.dropped(tried as u64 - sent + rejected);
        tried == batch.len()
    }

    /// Sends one signal of a batch, in as many requests as needed.
    async fn signal(&mut self, signal: Signal, batch: &[Arc<Incident>]) -> Delivered {
        let mut delivered = Delivered::default();
        let mut most = batch.len();
        while delivered.taken.len() < batch.len() {
            let rest = &batch[delivered.taken.len()..];
            let (request, n) = signal.request(&rest[..most.min(rest.len())], &self.host);
            match self.exporter.send(request).await {
                Ok(accepted) => {
                    self.worked();
                    note(signal, &accepted);
                    delivered.rejected += accepted.rejected;
                    delivered.taken.extend(std::iter::repeat_n(true, n));
                    most = batch.len();
                }
                Err(Refusal { next: Next::Retry(asked), reason }) => {
                    self.failed(signal, &reason);
                    if !self.wait(asked).await {
                        return delivered;
                    }
                }
                Err(Refusal { next: Next::Split, .. }) if n > 1 => most = n / 2,
                Err(Refusal { reason, .. }) => {
                    let reason = escape::one_line_max(&reason, MAX_WORDS);
                    let ids: Vec<&str> = rest[..n].iter().map(|incident| incident.id.as_str()).collect();
                    let (name, ids) = (signal.name(), ids.join(", "));
                    log::error!("the OTLP collector rejects {name} permanently ({reason}); not sent: {ids}");
                    delivered.taken.extend(std::iter::repeat_n(false, n));
                    most = batch.len();
                }
            }
        }
        delivered
    }

    fn failed(&mut self, signal: Signal, reason: &str) {
        self.sink.failed();
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            let reason = escape::one_line_max(reason, MAX_WORDS);
            log::warn!("cannot send {} by OTLP ({reason}); they are kept and retried", signal.name());
        }
    }

    fn worked(&mut self) {
        if self.failures > 0 {
            log::info!("the OTLP collector accepts data again, after {} failed attempts", self.failures);
            self.failures = 0;
        }
    }

    /// Waits before the next attempt; returns false when there should be none.
    async fn wait(&mut self, asked: Option<Duration>) -> bool {
        if self.stopping() {
            return false;
        }
        let random = RandomState::new().build_hasher().finish();
        tokio::select! {
            () = tokio::time::sleep(pause(self.failures, asked, random)) => true,
            // Makes one last attempt.
            _ = self.stop.changed() => true,
        }
    }
}

fn note(signal: Signal, accepted: &Accepted) {
    if accepted.rejected > 0 || !accepted.message.is_empty() {
        let words = escape::one_line_max(&accepted.message, MAX_WORDS);
        log::warn!(
            "the OTLP collector rejected {} of the {} sent: {words}",
            accepted.rejected,
            signal.name()
        );
    }
}

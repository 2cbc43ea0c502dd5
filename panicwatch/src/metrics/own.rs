//! Metrics of panicwatch itself.

use panicwatch_common::reason::Reason;
use prometheus::{
    Counter, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::labels::{OTHER, plain};
use crate::status::Status;

/// Maximum number of reasons for refused binaries with a series of their own.
const MAX_REASONS: usize = 30;

pub(super) struct Own {
    build: IntGaugeVec,
    ready: IntGauge,
    processes: IntGaugeVec,
    binaries: IntGauge,
    probes: IntGaugeVec,
    refused: IntGaugeVec,
    events: IntCounter,
    lost: IntCounterVec,
    unread: IntCounterVec,
    queue: IntGaugeVec,
    overhead: GaugeVec,
    hits: GaugeVec,
    recorder_cost: Gauge,
    recorder_host_cost: Gauge,
    record_price: GaugeVec,
    governor_actions: IntCounter,
    execs_held: IntCounter,
    execs_released: IntCounterVec,
    exec_gate_resets: IntCounter,
    shed: IntGaugeVec,
    memory: IntGauge,
    cpu: Counter,
    readers: IntGauge,
    store_bytes: IntGauge,
    store_incidents: IntGauge,
    store_lost: IntCounter,
    gaps: IntCounter,
    gap_seconds: Counter,
    reloads: IntCounterVec,
    sent: IntCounterVec,
    failed: IntCounterVec,
    dropped: IntCounterVec,
    waiting: IntGaugeVec,
}

/// The metrics of one exporter.
#[derive(Clone)]
pub struct Sink {
    sent: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
    waiting: IntGauge,
}

impl Sink {
    /// Counts delivered incidents.
    pub fn sent(&self, incidents: u64) {
        self.sent.inc_by(incidents);
    }

    /// Counts a failed delivery, which will be retried.
    pub fn failed(&self) {
        self.failed.inc();
    }

    /// Counts incidents that will not be delivered.
    pub fn dropped(&self, incidents: u64) {
        self.dropped.inc_by(incidents);
    }

    /// Sets the number of waiting incidents.
    pub fn waiting(&self, incidents: u64) {
        self.waiting.set(int(incidents));
    }
}

/// Increases a counter to a value that was counted elsewhere.
fn raise(counter: &IntCounter, to: u64) {
    counter.inc_by(to.saturating_sub(counter.get()));
}

fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Own {
    pub(super) fn new(registry: &Registry) -> Result<Own, prometheus::Error> {
        macro_rules! make {
            ($type:ident, $name:literal, $help:literal) => {{
                let metric = $type::new(concat!("panicwatch_", $name), $help)?;
                registry.register(Box::new(metric.clone()))?;
                metric
            }};
            ($type:ident, $name:literal, $help:literal, $($label:literal),+) => {{
                let metric = $type::new(Opts::new(concat!("panicwatch_", $name), $help), &[$($label),+])?;
                registry.register(Box::new(metric.clone()))?;
                metric
            }};
        }
        let own = Own {
            build: make!(IntGaugeVec, "build_info", "1, with the version as a label", "version"),
            ready: make!(
                IntGauge,
                "ready",
                "1 if everything that should be watched is, and incidents can be stored, like /readyz"
            ),
            processes: make!(
                IntGaugeVec,
                "processes",
                "Running Go processes, by whether they are watched",
                "watched"
            ),
            binaries: make!(IntGauge, "binaries", "Go binaries with probes"),
            probes: make!(
                IntGaugeVec,
                "probes",
                "Attached probes, by how the kernel executes the probed instruction",
                "price"
            ),
            refused: make!(
                IntGaugeVec,
                "refused_binaries",
                "Go binaries that cannot be watched, by reason",
                "reason"
            ),
            events: make!(IntCounter, "events_total", "Records read from the kernel"),
            unread: make!(
                IntCounterVec,
                "unread_programs_total",
                "Programs that exited before they had probes, by reason",
                "reason"
            ),
            lost: make!(
                IntCounterVec,
                "lost_total",
                "Records that were lost or could not be captured, by reason",
                "reason"
            ),
            queue: make!(
                IntGaugeVec,
                "queue",
                "Queue length: records waiting for the correlator, incidents waiting for the store",
                "queue"
            ),
            overhead: make!(
                GaugeVec,
                "overhead_percent",
                "Cost of the probes to a program, percent of its CPU time",
                "binary"
            ),
            hits: make!(GaugeVec, "probe_hits_per_second", "Hits of a program's probes", "binary"),
            recorder_cost: make!(
                Gauge,
                "recorder_cost_percent",
                "Cost of recording to watched processes, percent of their CPU time"
            ),
            recorder_host_cost: make!(
                Gauge,
                "recorder_host_cost_percent",
                "Cost of recording to all other processes, percent of the machine's CPU capacity"
            ),
            governor_actions: make!(
                IntCounter,
                "governor_actions_total",
                "Times that a source was disabled or re-enabled to keep within the overhead budgets"
            ),
            execs_held: make!(
                IntCounter,
                "execs_held_total",
                "Execs that waited until the daemon knew whether to attach probes to their file"
            ),
            execs_released: make!(
                IntCounterVec,
                "execs_released_total",
                "Execs that the exec gate released before their probes were attached, by reason",
                "reason"
            ),
            exec_gate_resets: make!(
                IntCounter,
                "exec_gate_resets_total",
                "Times that a watchdog removed the exec gate's marks because an exec had waited for more than 100 ms"
            ),
            record_price: make!(
                GaugeVec,
                "record_price_seconds",
                "Measured cost of one run of each source's eBPF programs on this machine",
                "source"
            ),
            shed: make!(
                IntGaugeVec,
                "source_off",
                "1 for each source that is disabled to keep within the overhead budgets",
                "source"
            ),
            memory: make!(IntGauge, "resident_memory_bytes", "Memory of the daemon"),
            cpu: make!(Counter, "cpu_seconds_total", "CPU time of the daemon"),
            readers: make!(IntGauge, "stream_readers", "Subscribers of the live stream"),
            store_bytes: make!(IntGauge, "store_bytes", "Bytes of stored incidents"),
            store_incidents: make!(IntGauge, "store_incidents", "Stored incidents"),
            store_lost: make!(
                IntCounter,
                "store_lost_total",
                "Incidents lost because they could not be stored and the queue was full"
            ),
            gaps: make!(
                IntCounter,
                "gaps_total",
                "Gaps in which nothing was watched, found when the daemon started"
            ),
            gap_seconds: make!(
                Counter,
                "gap_seconds_total",
                "Total length of the gaps in which nothing was watched"
            ),
            reloads: make!(
                IntCounterVec,
                "config_reloads_total",
                "Reloads of the configuration, by result",
                "result"
            ),
            sent: make!(IntCounterVec, "export_sent_total", "Incidents delivered", "sink"),
            failed: make!(
                IntCounterVec,
                "export_failures_total",
                "Deliveries that failed and are retried",
                "sink"
            ),
            dropped: make!(
                IntCounterVec,
                "export_dropped_total",
                "Incidents dropped without delivery",
                "sink"
            ),
            waiting: make!(IntGaugeVec, "export_waiting", "Incidents waiting for delivery", "sink"),
        };
        // Created with 0: the first increase of a series that appears with its first value would go
        // unnoticed.
        for reason in Reason::ALL.into_iter().filter(|reason| *reason != Reason::StackRead) {
            own.lost.with_label_values(&[reason.sentence()]);
        }
        own.build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(own)
    }

    pub(super) fn status(&self, status: &Status) {
        let set = |vec: &IntGaugeVec, label: &str, n: u64| vec.with_label_values(&[label]).set(int(n));
        self.ready.set(i64::from(status.is_ready()));
        let watched = status.processes.iter().filter(|process| process.watched).count();
        set(&self.processes, "yes", watched as u64);
        set(&self.processes, "no", (status.processes.len() - watched) as u64);
        self.binaries.set(int(status.binaries.len() as u64));
        for price in ["emulated", "stepped"] {
            let probes = status.binaries.iter().flat_map(|binary| &binary.probes);
            set(&self.probes, price, probes.filter(|probe| probe.price == price).count() as u64);
        }
        // Removes the series of reasons that no longer apply.
        self.refused.reset();
        let own = &status.own;
        for (i, (reason, n)) in own.refused_binaries.iter().enumerate() {
            let reason = if i < MAX_REASONS { plain(reason) } else { OTHER.to_owned() };
            self.refused.with_label_values(&[reason.as_str()]).add(int(*n));
        }
        for (reason, n) in &own.unread_programs {
            raise(&self.unread.with_label_values(&[reason.as_str()]), *n);
        }
        raise(&self.events, own.events);
        own.lost.iter().for_each(|(reason, n)| raise(&self.lost.with_label_values(&[reason.as_str()]), *n));
        set(&self.queue, "events", own.queue);
        set(&self.queue, "store", own.to_store);
        self.overhead.reset();
        self.hits.reset();
        for binary in &status.binaries {
            let name = plain(crate::incident::base_name(&binary.path).unwrap_or_default());
            // Binaries with the same name share a series, which has the highest overhead.
            let overhead = self.overhead.with_label_values(&[name.as_str()]);
            overhead.set(overhead.get().max(binary.overhead_percent.unwrap_or(0.0)));
            self.hits.with_label_values(&[name.as_str()]).add(binary.hits_per_second);
        }
        self.recorder_cost.set(own.overhead_percent.unwrap_or(f64::NAN));
        self.recorder_host_cost.set(own.host_overhead_percent.unwrap_or(f64::NAN));
        for (source, ns) in &own.prices {
            self.record_price.with_label_values(&[source.as_str()]).set(ns / 1e9);
        }
        raise(&self.governor_actions, own.governor_actions);
        raise(&self.execs_held, own.execs_held);
        for (reason, n) in &own.execs_released {
            raise(&self.execs_released.with_label_values(&[reason.as_str()]), *n);
        }
        raise(&self.exec_gate_resets, own.exec_gate_resets);
        self.shed.reset();
        own.shed.iter().for_each(|source| set(&self.shed, source, 1));
        self.memory.set(int(own.memory_bytes));
        self.cpu.inc_by((own.cpu_seconds - self.cpu.get()).max(0.0));
    }

    pub(super) fn store(&self, bytes: u64, incidents: u64, lost: u64) {
        self.store_bytes.set(int(bytes));
        self.store_incidents.set(int(incidents));
        raise(&self.store_lost, lost);
    }

    pub(super) fn readers(&self, readers: u64) {
        self.readers.set(int(readers));
    }

    pub(super) fn gap(&self, seconds: f64) {
        self.gaps.inc();
        self.gap_seconds.inc_by(seconds.max(0.0));
    }

    pub(super) fn reloaded(&self, ok: bool) {
        self.reloads.with_label_values(&[if ok { "ok" } else { "refused" }]).inc();
    }

    pub(super) fn sink(&self, name: &str) -> Sink {
        Sink {
            sent: self.sent.with_label_values(&[name]),
            failed: self.failed.with_label_values(&[name]),
            dropped: self.dropped.with_label_values(&[name]),
            waiting: self.waiting.with_label_values(&[name]),
        }
    }
}

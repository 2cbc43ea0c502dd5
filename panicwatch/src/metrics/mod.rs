//! The metrics of `/metrics`: panics by kind and origin, and the health of panicwatch itself. docs/metrics.md
//! documents each.
//!
//! This module depends on incidents and the daemon's status, not on how they are made. No label holds a
//! message, a stack, an address or a growing number: whatever the watched programs do, the number of series
//! stays within the configured limit.

mod crash_loop;
mod deaths;
mod labels;
mod own;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::{config, incident::Incident, status::Status, store::Counted};
use crash_loop::CrashLoops;
use deaths::Deaths;
use labels::{Labels, plain};
pub use own::Sink;

/// Prefix of the names of the persistent counters of panics.
const PANICS: &str = "panics:";

/// Buckets in seconds, from 1 µs to 10 s: the range of times until a recover.
const SECONDS: [f64; 8] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];
const DEFERS: [f64; 7] = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0];

/// All metrics of the daemon.
pub struct Metrics {
    registry: Registry,
    max_series: usize,
    series: Mutex<BTreeSet<Labels>>,
    panics: IntCounterVec,
    overflow: IntCounter,
    recovered: Histogram,
    died: Histogram,
    defers: Histogram,
    capture_cost: Histogram,
    capture_delay: Histogram,
    deaths: Deaths,
    crash_loops: IntGaugeVec,
    loops: Mutex<CrashLoops>,
    own: own::Own,
}

impl Metrics {
    /// Registers the metrics and sets the panics and deaths `restored` from the store, so that these counters
    /// survive a restart.
    ///
    /// # Errors
    /// When two metrics have the same name, which is a bug.
    pub fn new(
        bounds: &config::Metrics,
        restored: &BTreeMap<String, u64>,
    ) -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let panics = IntCounterVec::new(
            Opts::new(
                "panicwatch_panics_total",
                "Panics, fatal errors, throws and fatal signals of Go programs",
            ),
            &labels::NAMES,
        )?;
        let overflow = IntCounter::new(
            "panicwatch_metrics_overflow_total",
            "Panics counted under the label \"other\" because there were too many series",
        )?;
        let crash_loops = IntGaugeVec::new(
            Opts::new(
                "panicwatch_crash_loop",
                "Deaths of a program from the same defect in the last ten minutes, exported from three on",
            ),
            &["binary"],
        )?;
        registry.register(Box::new(panics.clone()))?;
        registry.register(Box::new(overflow.clone()))?;
        registry.register(Box::new(crash_loops.clone()))?;
        let metrics = Metrics {
            max_series: bounds.max_series.max(1),
            series: Mutex::default(),
            panics,
            overflow,
            recovered: histogram(
                "panicwatch_recover_seconds",
                "Time from a panic to the recover that caught it",
                &SECONDS,
            )?,
            died: histogram(
                "panicwatch_exit_seconds",
                "Time from a panic to the death of its process",
                &SECONDS,
            )?,
            defers: histogram(
                "panicwatch_deferred_calls",
                "Deferred calls that ran during an incident",
                &DEFERS,
            )?,
            capture_cost: histogram(
                "panicwatch_capture_cost_seconds",
                "Time that the capture of an incident took from the program",
                &SECONDS,
            )?,
            capture_delay: histogram(
                "panicwatch_capture_delay_seconds",
                "Time from a panic to the end of its capture",
                &SECONDS,
            )?,
            deaths: Deaths::new(&registry, bounds.max_series.max(1))?,
            crash_loops,
            loops: Mutex::default(),
            own: own::Own::new(&registry)?,
            registry,
        };
        for (name, count) in restored {
            if let Some(labels) = name.strip_prefix(PANICS).and_then(Labels::of_key) {
                metrics.panics.with_label_values(&labels.values()).inc_by(*count);
                metrics.series().insert(labels);
            }
            metrics.deaths.add(name, *count);
        }
        Ok(metrics)
    }

    fn series(&self) -> MutexGuard<'_, BTreeSet<Labels>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, labels: Labels) -> String {
        let mut series = self.series();
        let room = series.contains(&labels) || series.len() < self.max_series;
        let labels = if room { labels } else { Labels::other() };
        let key = format!("{PANICS}{}", labels.key());
        series.insert(labels);
        key
    }

    /// Returns the increments of the persistent counters for an incident, to be stored with it and then
    /// passed to [`Metrics::add`]. Must be called once per incident: only the first fatal incident of a
    /// process counts as its death.
    pub fn of_incident(&self, incident: &Incident) -> Vec<(String, u64)> {
        let panic = (self.key(Labels::of(incident)), 1);
        std::iter::once(panic).chain(self.deaths.of_incident(incident)).collect()
    }

    /// Returns the increment of the persistent counter for panics that were only counted.
    pub fn of_counted(&self, counted: &Counted) -> (String, u64) {
        (self.key(Labels::of_counted(&counted.binary)), counted.count)
    }

    /// Adds increments that were stored.
    pub fn add(&self, counters: &[(String, u64)]) {
        for (name, more) in counters {
            self.deaths.add(name, *more);
            let Some(labels) = name.strip_prefix(PANICS).and_then(Labels::of_key) else { continue };
            self.panics.with_label_values(&labels.values()).inc_by(*more);
            if labels == Labels::other() {
                self.overflow.inc_by(*more);
            }
        }
    }

    /// Observes the durations and costs of an incident that was stored.
    pub fn observe(&self, incident: &Incident) {
        let seconds = |ns: u64| ns as f64 / 1e9;
        for panic in &incident.panics {
            if let Some(recover) = &panic.recover {
                self.recovered.observe(seconds(recover.ns_after_raise));
            }
        }
        if let Some(end) = incident.end_ns
            && incident.exit.is_some()
        {
            self.died.observe(seconds(end.saturating_sub(incident.start_ns)));
        }
        if !incident.panics.is_empty() {
            self.defers.observe(incident.panics.iter().map(|panic| panic.defers.len()).sum::<usize>() as f64);
        }
        if let Some(cost) = incident.capture.cost_ns {
            self.capture_cost.observe(seconds(cost));
        }
        if let Some(delay) = incident.capture.delay_ns {
            self.capture_delay.observe(seconds(delay));
        }
        self.loops().incident(incident, Instant::now());
    }

    fn loops(&self) -> MutexGuard<'_, CrashLoops> {
        self.loops.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Updates the gauges and counters from the daemon's status.
    pub fn status(&self, status: &Status) {
        self.own.status(status);
        self.crash_loops.reset();
        for (binary, deaths) in self.loops().now(Instant::now()) {
            self.crash_loops
                .with_label_values(&[plain(&binary).as_str()])
                .set(i64::try_from(deaths).unwrap_or(i64::MAX));
        }
    }

    /// Sets the size in bytes and the number of stored incidents, and the number that could not be stored for
    /// lack of room.
    pub fn store(&self, bytes: u64, incidents: u64, lost: u64) {
        self.own.store(bytes, incidents, lost);
    }

    /// Sets the number of subscribers of the live stream.
    pub fn readers(&self, readers: u64) {
        self.own.readers(readers);
    }

    /// Counts a period in which no process was watched, in seconds.
    pub fn gap(&self, seconds: f64) {
        self.own.gap(seconds);
    }

    /// Counts a reload of the configuration.
    pub fn reloaded(&self, ok: bool) {
        self.own.reloaded(ok);
    }

    /// Returns the metrics of an exporter.
    pub fn sink(&self, name: &str) -> Sink {
        self.own.sink(name)
    }

    /// Returns name, type and help text of every metric, to be compared with docs/metrics.md.
    pub fn described(&self) -> Vec<(String, String, String)> {
        let families = self.registry.gather();
        let described = families.iter().map(|family| {
            let kind = format!("{:?}", family.get_field_type()).to_lowercase();
            (family.name().to_owned(), kind, family.help().to_owned())
        });
        described.collect()
    }

    /// Returns the metrics in the text exposition format.
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        // Writing to memory does not fail, and names were checked when they were registered.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

#[cfg(test)]
mod tests;

//! Tests of the metrics with incident documents, and of their limits.

use super::*;
use crate::incident::Outcome;

fn incident() -> Incident {
    serde_json::from_str(include_str!("../../tests/incidents/recovered.json")).expect("a document")
}

fn metrics(max_series: usize, restored: &BTreeMap<String, u64>) -> Metrics {
    Metrics::new(&config::Metrics { max_series }, restored).expect("no name twice")
}

/// Returns the samples of a metric, labels and value as written.
fn samples(metrics: &Metrics, name: &str) -> Vec<String> {
    let text = metrics.render();
    text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).map(str::to_owned).collect()
}

#[test]
fn an_incident_counts_once_and_survives() {
    let first = metrics(10, &BTreeMap::new());
    let counters = first.of_incident(&incident());
    assert!(samples(&first, "panicwatch_panics_total").is_empty(), "not before it is stored");
    first.add(&counters);
    let told = samples(&first, "panicwatch_panics_total");
    assert!(told.len() == 1 && told[0].ends_with(" 1"), "{told:?}");
    assert!(told[0].contains("outcome=\"recovered\"") && told[0].contains("kind=\"panic\""), "{told:?}");
    let again = metrics(10, &counters.iter().cloned().collect());
    assert_eq!(samples(&again, "panicwatch_panics_total"), told);
    again.add(&counters);
    assert!(samples(&again, "panicwatch_panics_total")[0].ends_with(" 2"));
}

#[test]
fn no_more_series_than_allowed() {
    let metrics = metrics(3, &BTreeMap::new());
    for n in 0..10 {
        let mut incident = incident();
        incident.process.exe = Some(format!("/srv/program-{n}"));
        metrics.add(&metrics.of_incident(&incident));
    }
    let told = samples(&metrics, "panicwatch_panics_total");
    assert_eq!(told.len(), 4, "three and the other: {told:?}");
    assert!(told.iter().any(|line| line.contains("binary=\"other\"") && line.ends_with(" 7")), "{told:?}");
    assert!(metrics.render().contains("panicwatch_metrics_overflow_total 7"));
}

#[test]
fn hostile_names_stay_in_their_label() {
    let metrics = metrics(10, &BTreeMap::new());
    let mut incident = incident();
    incident.process.exe = Some("/tmp/a\"} 5\nforged_total{x=\"\\\u{1b}[31m".to_owned() + &"x".repeat(1000));
    metrics.add(&metrics.of_incident(&incident));
    let text = metrics.render();
    assert!(!text.lines().any(|line| line.starts_with("forged_total")), "{text}");
    assert!(text.lines().all(|line| line.len() < 600));
}

#[test]
fn messages_are_no_labels() {
    let metrics = metrics(10, &BTreeMap::new());
    let mut incident = incident();
    incident.message = Some("secret 4711".to_owned());
    for panic in &mut incident.panics {
        panic.runtime_error = false;
        panic.value.type_name = Some("main.myError".to_owned());
        panic.value.text = Some("secret 4711".to_owned());
    }
    metrics.add(&metrics.of_incident(&incident));
    assert!(!metrics.render().contains("secret"));
}

#[test]
fn a_crash_loop_is_three_deaths_by_one_defect() {
    let start = Instant::now();
    let mut loops = CrashLoops::default();
    let mut died = incident();
    loops.incident(&died, start);
    died.outcome = Outcome::Fatal;
    for n in 0..3 {
        assert_eq!(loops.now(start), [], "after {n} deaths");
        died.process.pid = 5000 + n;
        loops.incident(&died, start);
        // Another goroutine of the same process panicked with the same defect.
        loops.incident(&died, start);
    }
    let binary = died.process.binary_name().expect("a name").to_owned();
    assert_eq!(loops.now(start), [(binary, 3)]);
    assert_eq!(loops.now(start + std::time::Duration::from_secs(601)), []);
}

#[test]
fn a_process_dies_once() {
    let deaths = |metrics: &Metrics| samples(metrics, "panicwatch_deaths_total");
    let first = metrics(10, &BTreeMap::new());
    let mut died = incident();
    first.add(&first.of_incident(&died));
    assert!(deaths(&first).is_empty(), "it lives");
    died.outcome = Outcome::Fatal;
    let mut stored = BTreeMap::new();
    let mut count = |died: &Incident| {
        let counters = first.of_incident(died);
        first.add(&counters);
        for (name, more) in counters {
            *stored.entry(name).or_default() += more;
        }
    };
    count(&died);
    let other = Incident { fingerprint: "another defect".to_owned(), ..died.clone() };
    count(&other);
    died.process.start_time = Some("2026-01-01T00:00:00Z".to_owned());
    count(&died);
    let told = deaths(&first);
    assert!(told.len() == 1 && told[0].ends_with("{binary=\"shop\"} 2"), "two processes: {told:?}");
    assert!(samples(&first, "panicwatch_panics_total").iter().any(|line| line.ends_with(" 3")));
    let again = metrics(10, &stored);
    assert_eq!(deaths(&again), told, "it survives the daemon");
    again.add(&again.of_incident(&died));
    assert!(deaths(&again)[0].ends_with(" 3"));
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let mut dead = deaths::Dead::default();
    let mut died = Incident { outcome: Outcome::Fatal, end_ns: Some(1_000), ..incident() };
    died.process.start_time = None;
    assert!(dead.is_new(&died) && !dead.is_new(&died));
    died.end_ns = Some(120_000_000_000);
    assert!(dead.is_new(&died));
}

#[test]
fn deaths_have_no_more_series_than_allowed() {
    let metrics = metrics(3, &BTreeMap::new());
    for n in 0..10 {
        let mut died = Incident { outcome: Outcome::Fatal, ..incident() };
        died.process.pid = n;
        died.process.exe = Some(format!("/srv/program-{n}"));
        metrics.add(&metrics.of_incident(&died));
    }
    let told = samples(&metrics, "panicwatch_deaths_total");
    assert!(told.len() == 4 && told.iter().any(|line| line.ends_with("{binary=\"other\"} 7")), "{told:?}");
}

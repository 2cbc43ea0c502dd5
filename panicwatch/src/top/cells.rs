//! Formats the lists as cells of text that is safe to print. Does not depend on how tables are laid out.

use super::{Rates, Snapshot};
use crate::{escape::one_line_max, title};

/// Maximum number of characters in a cell, more than any screen is wide.
const CELL: usize = 300;

/// A list of `panicwatch top`.
pub(super) struct List {
    pub(super) title: &'static str,
    /// Titles and widths of the columns; the column of width 0 takes the remaining space.
    pub(super) heads: &'static [(&'static str, u16)],
    /// Columns to drop for lack of space, in this order.
    pub(super) spare: &'static [usize],
    pub(super) rows: Vec<Vec<String>>,
}

/// Space between columns, in characters.
pub(super) const GAP: u16 = 2;
/// Minimum useful width of the column that takes the remaining space.
const REST: u16 = 30;

impl List {
    /// Returns the indices of the columns shown in `width` characters.
    pub(super) fn columns(&self, width: u16) -> Vec<usize> {
        let mut columns: Vec<usize> = (0..self.heads.len()).collect();
        let needs = |columns: &[usize]| -> u16 { columns.iter().map(|i| self.heads[*i].1 + GAP).sum() };
        for spare in self.spare {
            if needs(&columns) + REST <= width {
                break;
            }
            columns.retain(|column| column != spare);
        }
        columns
    }
}

fn safe(text: &str) -> String {
    one_line_max(text, CELL)
}

fn base(path: Option<&str>) -> String {
    safe(path.and_then(crate::incident::base_name).unwrap_or("?"))
}

fn percent(value: Option<f64>) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.2} %"))
}

/// Formats a time to the second, UTC as in the API: "2025-07-09 03:12:44".
fn time(text: &str) -> String {
    safe(&text.chars().take(19).collect::<String>().replace('T', " "))
}

pub(super) fn lists(snapshot: &Snapshot, rates: &Rates) -> [List; 3] {
    [groups(snapshot, rates), incidents(snapshot), processes(snapshot)]
}

fn groups(snapshot: &Snapshot, rates: &Rates) -> List {
    let row = |group: &crate::store::Group| {
        let rate = rates.per_minute(&group.fingerprint);
        let outcomes: Vec<_> = group.outcomes.iter().map(|(name, n)| format!("{} {n}", safe(name))).collect();
        vec![
            group.count.to_string(),
            rate.map_or("-".to_owned(), |rate| format!("{rate:.1}")),
            outcomes.join(" "),
            safe(&group.binaries.join(" ")),
            time(&group.last_seen),
            safe(&group.title),
        ]
    };
    let heads =
        &[("COUNT", 8), ("/MIN", 7), ("OUTCOMES", 22), ("PROGRAMS", 16), ("LAST SEEN", 19), ("WHAT", 0)];
    List { title: "Groups", heads, spare: &[4, 3, 1], rows: snapshot.groups.iter().map(row).collect() }
}

fn incidents(snapshot: &Snapshot) -> List {
    let row = |incident: &crate::incident::Incident| {
        vec![
            time(&incident.time),
            incident.kind.name().replace('_', " "),
            incident.outcome.name().to_owned(),
            base(incident.process.exe.as_deref()),
            incident.process.pid.to_string(),
            safe(&incident.id),
            safe(&title::title(incident)),
        ]
    };
    let heads =
        &[("TIME", 19), ("KIND", 11), ("OUTCOME", 9), ("PROGRAM", 16), ("PID", 8), ("ID", 26), ("WHAT", 0)];
    List {
        title: "Incidents",
        heads,
        spare: &[5, 1, 4, 0],
        rows: snapshot.incidents.iter().map(row).collect(),
    }
}

fn processes(snapshot: &Snapshot) -> List {
    let row = |process: &crate::status::Process| {
        let binary = snapshot.binaries.iter().find(|binary| process.binary == Some(binary.row));
        let watched = match (&process.reason, process.watched) {
            (_, true) => "yes".to_owned(),
            (Some(reason), false) => format!("no: {}", safe(reason)),
            (None, false) => "no".to_owned(),
        };
        vec![
            process.pid.to_string(),
            base(process.exe.as_deref()),
            safe(binary.and_then(|binary| binary.go_version.as_deref()).unwrap_or("-")),
            process.incidents.to_string(),
            percent(binary.and_then(|binary| binary.overhead_percent)),
            watched,
        ]
    };
    let heads = &[("PID", 8), ("PROGRAM", 24), ("GO", 12), ("INCIDENTS", 9), ("OVERHEAD", 9), ("WATCHED", 0)];
    List { title: "Processes", heads, spare: &[2, 4], rows: snapshot.processes.iter().map(row).collect() }
}

/// Formats the overhead of recording for watched processes and for all others.
fn recording(target: Option<f64>, host: Option<f64>) -> String {
    let percent = |value: Option<f64>, of: &str| {
        value.map_or("not measured".to_owned(), |value| format!("{value:.2} % of {of}"))
    };
    let (target, host) = (percent(target, "their CPU time"), percent(host, "the machine"));
    format!("cost: watched processes {target}, others {host}")
}

/// Formats the status of the daemon; each problem is on a line of its own.
pub(super) fn health(snapshot: &Snapshot) -> Vec<String> {
    let health = &snapshot.health;
    let own = &health.own;
    let lost: u64 = own.lost.iter().map(|(_, n)| n).sum();
    let mut lines = vec![format!(
        "panicwatch {}: {}; {} of {} Go processes watched; recording {}; memory {} MiB; CPU {:.1} s; events {}, lost {lost}",
        safe(&health.version),
        if health.ready { "ready" } else { "not ready" },
        health.watched,
        health.processes,
        recording(own.overhead_percent, own.host_overhead_percent),
        own.memory_bytes >> 20,
        own.cpu_seconds,
        own.events,
    )];
    lines.extend(health.problems.iter().map(|problem| format!("! {}", safe(problem))));
    lines
}

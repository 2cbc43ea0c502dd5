//! The labels of `panicwatch_panics_total`. Does no I/O.

use crate::{fingerprint, incident::Incident};

/// Names of the labels, in order.
pub(super) const NAMES: [&str; 7] = ["outcome", "kind", "class", "binary", "namespace", "pod", "container"];

/// Maximum length of a value, in characters.
const MAX: usize = 100;
/// Value of all labels beyond the maximum number of series.
pub(super) const OTHER: &str = "other";

/// Values of the labels, in the order of [`NAMES`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels([String; NAMES.len()]);

impl Labels {
    /// Returns the labels of an incident.
    pub(super) fn of(incident: &Incident) -> Labels {
        let process = &incident.process;
        let known = |fact: Option<&str>| plain(fact.unwrap_or_default());
        Labels([
            incident.outcome.name().to_owned(),
            incident.kind.name().to_owned(),
            plain(&fingerprint::class(incident)),
            plain(process.binary_name().unwrap_or_default()),
            known(process.in_pod("namespace")),
            known(process.in_pod("pod")),
            known(process.in_pod("container").or(process.in_container("name"))),
        ])
    }

    /// Returns the labels of panics that were only counted.
    pub(super) fn of_counted(binary: &str) -> Labels {
        let empty = String::new;
        Labels(["counted".to_owned(), "panic".to_owned(), empty(), plain(binary), empty(), empty(), empty()])
    }

    /// Returns the labels of the overflow series.
    pub(super) fn other() -> Labels {
        Labels([OTHER; NAMES.len()].map(str::to_owned))
    }

    pub(super) fn values(&self) -> [&str; NAMES.len()] {
        self.0.each_ref().map(String::as_str)
    }

    /// Encodes the values for the name of a persistent counter.
    pub(super) fn key(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Decodes the values from [`Labels::key`].
    pub(super) fn of_key(key: &str) -> Option<Labels> {
        serde_json::from_str(key).ok().map(Labels)
    }
}

/// Removes control characters and limits the length, so that a label cannot hold a whole text.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX).collect()
}

//! The labels of a panic. Pure.

use crate::{fingerprint, incident::Incident};

/// Their names, in order.
pub(super) const NAMES: [&str; 7] = ["outcome", "kind", "class", "binary", "namespace", "pod", "container"];

/// Longest value, characters.
const MAX: usize = 100;
/// What stands for whatever no series is left for.
pub(super) const OTHER: &str = "other";

/// Their values.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels([String; NAMES.len()]);

impl Labels {
    /// Of an incident.
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

    /// Of panics that were counted only.
    pub(super) fn of_counted(binary: &str) -> Labels {
        let empty = String::new;
        Labels(["counted".to_owned(), "panic".to_owned(), empty(), plain(binary), empty(), empty(), empty()])
    }

    /// Of those for which there is no series left.
    pub(super) fn other() -> Labels {
        Labels([OTHER; NAMES.len()].map(str::to_owned))
    }

    pub(super) fn values(&self) -> [&str; NAMES.len()] {
        self.0.each_ref().map(String::as_str)
    }

    /// For the name of a persistent counter.
    pub(super) fn key(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// Back from [`Labels::key`].
    pub(super) fn of_key(key: &str) -> Option<Labels> {
        serde_json::from_str(key).ok().map(Labels)
    }
}

/// Without what would make a text of it: lines, other controls, great length.
pub(super) fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX).collect()
}

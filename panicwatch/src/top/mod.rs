//! The data of `panicwatch top`: a daemon's groups, incidents, processes and health, from its API.
//!
//! This module depends on the API's documents; times are passed in. It does not depend on sockets, files or
//! the terminal.

mod cells;
mod draw;
mod text;

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use serde::Deserialize;

pub use draw::{Screen, draw};
pub use text::text;

use crate::{
    http::client::{Client, Error},
    incident::Incident,
    status::{Binary, Own, Process},
    store::Group,
};

/// Period over which rates are computed.
const LATELY: Duration = Duration::from_secs(60);
/// Number of incidents to fetch.
const INCIDENTS: usize = 100;

/// The daemon's health, from `/api/v1/status`.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Health {
    /// Version of panicwatch.
    pub version: String,
    /// Whether the daemon is ready: all probes are attached, and no problem exists.
    pub ready: bool,
    /// Current problems, as sentences.
    pub problems: Vec<String>,
    /// Number of Go processes.
    pub processes: usize,
    /// Number of Go processes that are watched.
    pub watched: usize,
    /// Counters and costs of the daemon itself.
    pub own: Own,
}

/// The state of the daemon at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Health of the daemon.
    pub health: Health,
    /// Groups, the most recently seen first.
    pub groups: Vec<Group>,
    /// The latest incidents, newest first.
    pub incidents: Vec<Incident>,
    /// Known Go processes.
    pub processes: Vec<Process>,
    /// Binaries of these processes.
    pub binaries: Vec<Binary>,
}

impl Snapshot {
    /// Fetches a snapshot from a daemon.
    ///
    /// # Errors
    /// When one of the requests fails.
    pub async fn ask(client: &Client) -> Result<Snapshot, Error> {
        #[derive(Deserialize)]
        struct Groups {
            groups: Vec<Group>,
        }
        #[derive(Deserialize)]
        struct Processes {
            processes: Vec<Process>,
        }
        #[derive(Deserialize)]
        struct Probes {
            binaries: Vec<Binary>,
        }
        let page: crate::store::Page = client.json(&format!("/api/v1/incidents?limit={INCIDENTS}")).await?;
        Ok(Snapshot {
            health: client.json("/api/v1/status").await?,
            groups: client.json::<Groups>("/api/v1/groups").await?.groups,
            incidents: page.incidents,
            processes: client.json::<Processes>("/api/v1/processes").await?.processes,
            binaries: client.json::<Probes>("/api/v1/probes").await?.binaries,
        })
    }
}

/// Computes the growth rates of groups.
#[derive(Debug, Default)]
pub struct Rates {
    /// Counts by fingerprint at past times, oldest first.
    seen: VecDeque<(Duration, HashMap<String, u64>)>,
}

impl Rates {
    /// Records the current counts; `now` may be of any monotonic clock.
    pub fn see(&mut self, now: Duration, groups: &[Group]) {
        let counts = groups.iter().map(|group| (group.fingerprint.clone(), group.count)).collect();
        self.seen.push_back((now, counts));
        // Keeps one sample that is old enough to compare with.
        while self.seen.get(1).is_some_and(|(then, _)| now.saturating_sub(*then) >= LATELY) {
            self.seen.pop_front();
        }
    }

    /// Returns the incidents per minute of a group over the last minute; `None` before the second snapshot.
    pub fn per_minute(&self, fingerprint: &str) -> Option<f64> {
        let ((then, before), (now, after)) = (self.seen.front()?, self.seen.back()?);
        let passed = now.saturating_sub(*then).as_secs_f64();
        if passed <= 0.0 {
            return None;
        }
        let count = |counts: &HashMap<String, u64>| counts.get(fingerprint).copied().unwrap_or(0);
        #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
        let more = count(after).saturating_sub(count(before)) as f64;
        Some(more * 60.0 / passed)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::incident::{Kind, Outcome};

    /// Returns a snapshot with texts as a hostile program could choose them.
    pub(crate) fn sample() -> Snapshot {
        let text = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/incidents/nil_dereference.json"
        ));
        let mut incident: Incident = serde_json::from_str(&text.expect("a sample")).expect("an incident");
        incident.message = Some("bad\x1b[2J\u{202e}news\nsecond".into());
        let group = Group {
            fingerprint: incident.fingerprint.clone(),
            title: "bad\x1b[2J\u{202e}news".into(),
            kind: Some(Kind::Panic),
            site: Some("main.handle at main.go:7".into()),
            binaries: vec!["shop".into()],
            last_seen: incident.time.clone(),
            count: 12_345,
            outcomes: [(Outcome::Fatal.name().to_owned(), 12_345)].into(),
            ..Group::default()
        };
        let binary = Binary {
            row: 3,
            path: "/srv/shop".into(),
            go_version: Some("go1.24.11".into()),
            overhead_percent: Some(0.25),
            ..Binary::default()
        };
        let watched = Process {
            pid: 4711,
            exe: Some("/srv/shop".into()),
            binary: Some(3),
            watched: true,
            incidents: 9,
            ..Process::default()
        };
        let not = Process {
            pid: 12,
            exe: Some("/bin/\x1b[31mx".into()),
            reason: Some("it is not selected".into()),
            ..Process::default()
        };
        let own = Own {
            overhead_percent: Some(0.5),
            host_overhead_percent: Some(0.02),
            memory_bytes: 64 << 20,
            ..Own::default()
        };
        let health = Health {
            version: "0.1.0".into(),
            ready: true,
            problems: vec!["the disk is full".into()],
            processes: 2,
            watched: 1,
            own,
        };
        Snapshot {
            health,
            groups: vec![group],
            incidents: vec![incident],
            processes: vec![watched, not],
            binaries: vec![binary],
        }
    }

    #[test]
    fn rates_are_of_the_last_minute() {
        let group = |count| [Group { fingerprint: "f".into(), count, ..Group::default() }];
        let mut rates = Rates::default();
        rates.see(Duration::from_secs(0), &group(100));
        assert_eq!(rates.per_minute("f"), None, "one look is no rate");
        rates.see(Duration::from_secs(30), &group(110));
        assert_eq!(rates.per_minute("f"), Some(20.0));
        rates.see(Duration::from_secs(120), &group(110));
        assert_eq!(rates.per_minute("f"), Some(0.0), "what was before the last minute no longer counts");
        assert_eq!(rates.per_minute("unknown"), Some(0.0));
        rates.see(Duration::from_secs(130), &group(3));
        assert_eq!(rates.per_minute("f"), Some(0.0), "a daemon that began anew");
    }
}

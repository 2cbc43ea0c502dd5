//! Compares an incident with what Go itself printed. Pure: from an account and an incident to a list of
//! differences.
//!
//! Independent of processes, files and scenarios. An empty list means equal; every entry names the field,
//! what Go printed and what the incident has.

pub(crate) mod chain;
pub(crate) mod recovered;
pub(crate) mod runs;
pub(crate) mod sanity;
pub(crate) mod stack;
pub(crate) mod synthetic;
pub(crate) mod synthetic_recovered;

use std::fmt;

use panicwatch::{
    go::release::Release,
    incident::{Exit, Incident, Kind, Outcome, SCHEMA},
};

use crate::go_text::{Account, CreatedBy, GoroutineText, unindent};

/// Parameters of the comparison besides the account and the incident.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expect {
    /// Kind of the death. Go prints the same for a throw and a fatal error, so the scenario has to know it.
    pub(crate) kind: Kind,
    /// Minor version of Go: 19 … 27.
    pub(crate) release: Release,
    /// Nothing was recovered, whatever Go prints: Go 1.25 prints `[recovered, repanicked]` for two panics
    /// with the same value (<https://github.com/golang/go/issues/76099>).
    pub(crate) nothing_recovered: bool,
    /// Exit of the process as its parent saw it.
    pub(crate) exit: Exit,
}

/// Collects the differences between report and account.
#[derive(Debug, Default)]
pub(crate) struct Differences(pub(crate) Vec<String>);

impl Differences {
    /// Adds a difference unless the two values are equal.
    pub(crate) fn equal<T: PartialEq + fmt::Debug>(&mut self, what: &str, go: T, incident: T) {
        if go != incident {
            self.0.push(format!("{what}: Go says {go:?}, the incident {incident:?}"));
        }
    }

    /// Adds a difference.
    pub(crate) fn add(&mut self, difference: impl Into<String>) {
        self.0.push(difference.into());
    }
}

/// Compares a fatal incident with Go's account of the same death.
pub(crate) fn fatal(account: &Account, incident: &Incident, expect: &Expect) -> Vec<String> {
    let mut d = Differences::default();
    d.equal("schema", SCHEMA, incident.schema.as_str());
    d.equal("kind", expect.kind, incident.kind);
    d.equal("outcome", Outcome::Fatal, incident.outcome);
    d.equal("message", message(account, expect.release), incident.message.clone());
    d.equal("exit", Some(expect.exit), incident.exit);
    d.equal(
        "process.go_version minor",
        Some(expect.release),
        incident.process.go_version.as_deref().and_then(release),
    );
    chain::compare(account, incident, expect, &mut d);
    signal(account, incident, &mut d);
    // With GOTRACEBACK=none Go prints no goroutine, so there is nothing to compare with, except for a
    // deadlock, where the incident must have no goroutine.
    let deadlock = account.fatal.as_ref().is_some_and(|f| f.ends_with("deadlock!"));
    if !account.goroutines.is_empty() || deadlock {
        // Go prints a thread without a goroutine as "goroutine 0"; the incident may have null or 0.
        let idle = account.goroutines.first().is_some_and(|g| g.id == 0);
        if !(idle && incident.goroutine.as_ref().is_some_and(|g| g.id == 0)) {
            goroutine(account.subject(), incident, expect, &mut d);
        }
    }
    d.0
}

/// Returns the message that the incident should have, derived from what Go printed.
pub(crate) fn message(account: &Account, release: Release) -> Option<String> {
    let printed = match (&account.death, &account.fatal, account.chain.first()) {
        (Some(death), ..) => return Some(death.line.clone()),
        (None, Some(fatal), _) => fatal,
        (None, None, Some(line)) => &line.printed,
        (None, None, None) => return None,
    };
    Some(if release.indents_messages() { unindent(printed) } else { printed.clone() })
}

/// Returns the minor release: 1.24 for "go1.24.11".
fn release(version: &str) -> Option<Release> {
    let minor = version.strip_prefix("go1.")?.split(|c: char| !c.is_ascii_digit()).next()?;
    minor.parse().ok().map(Release::new)
}

fn goroutine(subject: Option<&GoroutineText>, incident: &Incident, expect: &Expect, d: &mut Differences) {
    let (Some(go), Some(seen)) = (subject, &incident.goroutine) else {
        d.equal("goroutine", subject.map(|g| g.id), incident.goroutine.as_ref().map(|g| g.id));
        return;
    };
    d.equal("goroutine.id", go.id, seen.id);
    d.equal("goroutine.status", Some(go.status.as_str()), seen.status.as_deref());
    if go.locked {
        d.equal("goroutine.locked_to_thread", Some(true), seen.locked_to_thread);
    }
    // Go prints the labels at the time of printing; the incident has those at the raise, which may be more,
    // never fewer.
    for (key, value) in &go.labels {
        d.equal("goroutine.labels", Some(value), seen.labels.get(key));
    }
    created_by(go.created_by.as_ref(), seen, d);
    stack::compare(go, &incident.stack, incident.stack_elided, expect.release, d);
}

fn created_by(go: Option<&CreatedBy>, seen: &panicwatch::incident::Goroutine, d: &mut Differences) {
    match (go, &seen.created_by) {
        (Some(go), Some(frame)) => {
            stack::frame("goroutine.created_by", &go.frame, frame, d);
            d.equal("goroutine.parent_id", go.parent, seen.parent_id);
        }
        (go, frame) => {
            d.equal(
                "goroutine.created_by",
                go.map(|c| c.frame.function.as_str()),
                frame.as_ref().map(|f| f.function.as_str()),
            );
        }
    }
}

fn signal(account: &Account, incident: &Incident, d: &mut Differences) {
    let seen = incident.panics.iter().rev().find_map(|p| p.signal.as_ref());
    let Some(go) = &account.signal else {
        // A fault recovered earlier in the chain prints no line: the recovery clears g.sig.
        if account.death.is_none() && account.chain.len() == 1 && incident.panics.len() == 1 {
            d.equal("panics[0].signal", None, seen.map(|s| s.name.as_str()));
        }
        return;
    };
    if account.chain.is_empty() {
        return;
    }
    let Some(seen) = seen else {
        d.equal("panics[].signal", Some(go.name.as_str()), None);
        return;
    };
    d.equal("panics[].signal.name", go.name.as_str(), seen.name.as_str());
    d.equal("panics[].signal.number", signal_number(&go.name), Some(seen.number));
    d.equal("panics[].signal.code", Some(go.code as i64), seen.code);
    d.equal("panics[].signal.addr", Some(go.addr), seen.addr.map(|a| a.0));
    d.equal("panics[].signal.pc", Some(go.pc), seen.pc.map(|a| a.0));
}

/// Returns the Linux number of a signal that Go turns into a panic.
pub(crate) fn signal_number(name: &str) -> Option<u32> {
    [("SIGBUS", 7), ("SIGFPE", 8), ("SIGSEGV", 11)]
        .iter()
        .find(|(n, _)| *n == name)
        .map(|(_, number)| *number)
}

//! Converts the configuration to the options of the watching session.

use std::{collections::HashMap, sync::Arc};

use crate::{
    config::{self, Selectors, select::Facts},
    go::pattern::Pattern,
    recorder::{Options, Source},
    watch::census::{Candidate, Select},
};

/// Returns the options of the flight recorder.
pub(super) fn recorder(config: &config::Recorder) -> Options {
    Options {
        window: config.window.0,
        level: config.level,
        // Both lists were validated when the configuration was read.
        without: config.without.iter().filter_map(|name| Source::of_name(name)).collect(),
        functions: config.functions.iter().filter_map(|text| Pattern::parse(text).ok()).collect(),
        budget: config.budget,
        host_budget: config.host_budget,
        core_limit: config.core_limit,
        captures_per_second: config.max_captures,
        capture_time: config.max_capture_time.0,
    }
}

/// Returns the function that decides which processes are watched.
///
/// # Errors
/// When a pattern is invalid.
pub(super) fn select(config: &config::Watch) -> Result<Arc<Select>, String> {
    let compile = |selectors| Selectors::compile(selectors).map_err(|problems| problems.join("; "));
    let (include, exclude) = (compile(&config.include)?, compile(&config.exclude)?);
    let users = users();
    Ok(Arc::new(move |candidate: &Candidate<'_>| {
        let command = candidate.process.args.as_ref().map(|args| args.join(" "));
        let user = candidate.uid.and_then(|uid| users.get(&uid).map(String::as_str));
        let labels = candidate.place.labels();
        let facts = Facts {
            exe: candidate.process.exe.as_deref(),
            command: command.as_deref(),
            module: candidate.module,
            cgroup: Some(candidate.place.cgroup.as_str()).filter(|cgroup| !cgroup.is_empty()),
            container: candidate.place.container.as_ref().map(|container| container.id.as_str()),
            namespace: candidate.place.pod.as_ref().and_then(|pod| pod.namespace.as_deref()),
            pod: candidate.place.pod.as_ref().and_then(|pod| pod.pod.as_deref()),
            labels: &labels,
            user,
            uid: candidate.uid,
        };
        decide(&include, &exclude, &facts)
    }))
}

fn decide(include: &Selectors, exclude: &Selectors, facts: &Facts<'_>) -> Result<(), String> {
    if !include.is_empty() && !include.matches(facts) {
        return Err("no selector of [watch] include matches".to_owned());
    }
    if exclude.matches(facts) {
        return Err("a selector of [watch] exclude matches".to_owned());
    }
    Ok(())
}

/// Returns the names of this host's users by UID.
fn users() -> HashMap<u32, String> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entries = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?);
        Some((uid.parse().ok()?, name.to_owned()))
    });
    entries.collect()
}

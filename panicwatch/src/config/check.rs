//! Validates the values of a configuration whose keys and types are already known to be right.

use std::net::ToSocketAddrs as _;

use super::{Config, Selector, Selectors};
use crate::{
    go::pattern::Pattern,
    recorder::{Source, check_capture_time},
};

/// Returns every problem as the path of its key (`hook[1].url`) and a sentence.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut wrong = |key: &str, what: String| found.push((key.to_owned(), what));
    selectors(&config.watch.include, "watch.include", &mut wrong);
    selectors(&config.watch.exclude, "watch.exclude", &mut wrong);
    let recorder = &config.recorder;
    for name in &recorder.without {
        if Source::of_name(name).is_none() {
            let names = Source::ALL.map(Source::name).join(", ");
            wrong("recorder.without", format!("there is no source {name}; use {names}"));
        }
    }
    for function in &recorder.functions {
        if let Err(error) = Pattern::parse(function) {
            wrong("recorder.functions", error.to_string());
        }
    }
    let budgets = [
        ("recorder.budget", recorder.budget, "CPU time of watched processes"),
        ("recorder.host_budget", recorder.host_budget, "the machine's CPU capacity"),
        ("recorder.core_limit", recorder.core_limit, "each core"),
    ];
    for (key, _, of) in budgets.into_iter().filter(|(_, budget, _)| !budget.is_possible()) {
        let what = key.trim_start_matches("recorder.").replace('_', " ");
        wrong(key, format!("the {what} must be a percentage of {of}: more than 0, at most 100, or \"off\""));
    }
    if let Err(reason) = check_capture_time(recorder.max_capture_time.0) {
        wrong("recorder.max_capture_time", reason);
    }
    if recorder.window.0.is_zero() || recorder.window.0.as_secs() > 60 {
        wrong("recorder.window", "a window must be longer than 0 and at most 60 s".to_owned());
    }
    if config.store.path.is_empty() {
        wrong("store.path", "the store needs a directory".to_owned());
    }
    http(config, &mut wrong);
    if !config.otlp.endpoint.is_empty() && !is_url(&config.otlp.endpoint) {
        wrong("otlp.endpoint", "the endpoint must be a URL that begins with http:// or https://".to_owned());
    }
    hooks(config, &mut wrong);
    found
}

fn selectors(selectors: &[Selector], key: &str, wrong: &mut impl FnMut(&str, String)) {
    if let Err(problems) = Selectors::compile(selectors) {
        problems.into_iter().for_each(|problem| wrong(key, problem));
    }
}

fn http(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let http = &config.http;
    for (i, address) in http.listen.iter().enumerate() {
        if address.to_socket_addrs().is_err() {
            wrong(
                &format!("http.listen[{i}]"),
                format!("{address:?} is not an address; write it as 127.0.0.1:9464 or [::1]:9464"),
            );
        }
    }
    let is_base = |url: &str| is_url(url) && !url.contains(['?', '#', '<', '>', '|', '"']);
    if !http.external_url.is_empty() && !is_base(&http.external_url) {
        let what = "the external URL must begin with http:// or https://, without query and fragment";
        wrong("http.external_url", what.to_owned());
    }
    if http.tls.cert.is_empty() != http.tls.key.is_empty() {
        wrong("http.tls", "a certificate needs its key, and a key its certificate".to_owned());
    }
}

fn hooks(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let mut names = Vec::new();
    for (i, hook) in config.hook.iter().enumerate() {
        let of = |key: &str| format!("hook[{i}].{key}");
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if hook.name.is_empty() {
            wrong(
                &format!("hook[{i}]"),
                "a hook needs a name of letters, digits, dots and dashes".to_owned(),
            );
        } else if !hook.name.chars().all(is_name) {
            wrong(&of("name"), "a hook needs a name of letters, digits, dots and dashes".to_owned());
        } else if names.contains(&&hook.name) {
            wrong(&of("name"), format!("there are two hooks with the name {}", hook.name));
        }
        names.push(&hook.name);
        if hook.command.is_empty() == hook.url.is_empty() {
            wrong(&format!("hook[{i}]"), format!("hook {} needs either a command or a url", hook.name));
        }
        if !hook.url.is_empty() && !is_url(&hook.url) {
            wrong(&of("url"), "a url must begin with http:// or https://".to_owned());
        }
        if hook.concurrency == 0 {
            wrong(&of("concurrency"), "concurrency must be at least 1".to_owned());
        }
        let processes = of("processes");
        selectors(&hook.processes, &processes, wrong);
        if hook.processes.iter().any(|selector| !selector.cgroup.is_empty() || !selector.user.is_empty()) {
            let what = "an incident has no cgroup and user, so a hook cannot select by them";
            wrong(&processes, what.to_owned());
        }
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

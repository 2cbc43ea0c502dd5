//! What a configuration that can be read may still have wrong.

use std::net::ToSocketAddrs as _;

use super::{Config, Selector, Selectors};
use crate::{recorder::Source, trace::pattern::Pattern};

/// Key and sentence of all that is wrong.
pub(super) fn problems(config: &Config) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut wrong = |key: &str, what: String| found.push((key.to_owned(), what));
    selectors(&config.watch.include, "include", &mut wrong);
    selectors(&config.watch.exclude, "exclude", &mut wrong);
    let recorder = &config.recorder;
    for name in &recorder.without {
        if Source::of_name(name).is_none() {
            let names = Source::ALL.map(Source::name).join(", ");
            wrong("without", format!("there is no source {name}; there are {names}"));
        }
    }
    for function in &recorder.functions {
        if let Err(error) = Pattern::parse(function) {
            wrong("functions", error.to_string());
        }
    }
    let budgets = [
        ("budget", recorder.budget, "CPU time of watched processes"),
        ("host_budget", recorder.host_budget, "the machine's CPU capacity"),
        ("core_limit", recorder.core_limit, "each core"),
    ];
    for (key, _, of) in budgets.into_iter().filter(|(_, budget, _)| !budget.is_possible()) {
        let what = key.replace('_', " ");
        wrong(key, format!("the {what} is a percentage of {of}: more than 0, at most 100, or \"off\""));
    }
    if recorder.window.0.is_zero() || recorder.window.0.as_secs() > 60 {
        wrong("window", "a window is longer than 0 and at most 60 s".to_owned());
    }
    if config.store.path.is_empty() {
        wrong("path", "the store needs a directory".to_owned());
    }
    http(config, &mut wrong);
    if !config.otlp.endpoint.is_empty() && !is_url(&config.otlp.endpoint) {
        wrong("endpoint", "the endpoint is a URL that begins with http:// or https://".to_owned());
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
    for address in &http.listen {
        if address.to_socket_addrs().is_err() {
            wrong("listen", format!("{address:?} is no address; write it as 127.0.0.1:9464 or [::1]:9464"));
        }
    }
    if http.tls.cert.is_empty() != http.tls.key.is_empty() {
        wrong("tls", "a certificate needs its key, and a key its certificate".to_owned());
    }
}

fn hooks(config: &Config, wrong: &mut impl FnMut(&str, String)) {
    let mut names = Vec::new();
    for hook in &config.hook {
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if hook.name.is_empty() || !hook.name.chars().all(is_name) {
            wrong("hook", "a hook needs a name of letters, digits, dots and dashes".to_owned());
        } else if names.contains(&&hook.name) {
            wrong("hook", format!("there are two hooks of the name {}", hook.name));
        }
        names.push(&hook.name);
        if hook.command.is_empty() == hook.url.is_empty() {
            wrong("hook", format!("hook {} needs either a command or a url", hook.name));
        }
        if !hook.url.is_empty() && !is_url(&hook.url) {
            wrong("url", "a url begins with http:// or https://".to_owned());
        }
        if hook.concurrency == 0 {
            wrong("concurrency", "a hook that may not be called once is of no use".to_owned());
        }
        selectors(&hook.processes, "processes", wrong);
        if hook.processes.iter().any(|selector| !selector.cgroup.is_empty() || !selector.user.is_empty()) {
            wrong(
                "processes",
                "an incident does not tell cgroup and user, so a hook cannot go by them".to_owned(),
            );
        }
    }
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

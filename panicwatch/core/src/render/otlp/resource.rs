//! The OTLP resource, which is the process that panicked, not panicwatch. Does no I/O.
//!
//! <https://opentelemetry.io/docs/specs/semconv/resource/> and, for attributes from the program's
//! environment,
//! <https://opentelemetry.io/docs/specs/otel/resource/sdk/>

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::resource::v1::Resource;
use percent_encoding::percent_decode_str;

use super::wall::{Attributes, MAX_NAME, cut};
use crate::incident::{self, Host, Incident, Process};

/// Maximum number of attributes from the program's environment.
const MAX_OF_ENV: usize = 64;
/// Maximum number of arguments to include, and maximum length of each in bytes.
const MAX_ARGS: usize = 128;
const MAX_ARG: usize = 4 << 10;

/// Returns the resource of an incident. `host` is used when the document, written by an older version, has
/// none.
pub(super) fn of(incident: &Incident, host: &Host) -> Resource {
    let process = &incident.process;
    let host = incident.host.as_ref().unwrap_or(host);
    let mut said = said(process);
    let mut attributes = Attributes::default();
    let name = said.remove("service.name").or_else(|| name(process));
    attributes.text("service.name", Some(name.as_deref().unwrap_or("unknown_service:go")));
    let mut known = Attributes::default();
    known.text("service.version", process.module_version.as_deref().filter(|version| *version != "(devel)"));
    known.text("host.name", host.name.as_deref());
    of_container(process, &mut known);
    // For deployment attributes, the program's environment overrides what was observed; not for attributes of
    // the process.
    known.0.retain(|known| !said.contains_key(&known.key));
    attributes.0.append(&mut known.0);
    of_process(process, &mut attributes);
    let seen: Vec<String> = attributes.0.iter().map(|attribute| attribute.key.clone()).collect();
    for (key, value) in said.iter().filter(|(key, _)| !seen.contains(key) && !key.starts_with("process.")) {
        attributes.text(key, Some(value));
    }
    Resource { attributes: attributes.0, ..Resource::default() }
}

fn of_process(process: &Process, attributes: &mut Attributes) {
    attributes.number("process.pid", Some(process.pid));
    attributes.text("process.executable.path", process.exe.as_deref());
    attributes.text("process.executable.name", process.binary_name());
    if let Some(args) = &process.args {
        attributes.texts("process.command_args", args.iter().take(MAX_ARGS).map(|arg| cut(arg, MAX_ARG)));
    }
    attributes.text("process.creation.time", process.start_time.as_deref());
    attributes.text("process.runtime.name", Some("go"));
    attributes.text("process.runtime.version", process.go_version.as_deref());
}

fn of_container(process: &Process, attributes: &mut Attributes) {
    let container =
        [("id", "container.id"), ("name", "container.name"), ("runtime", "container.runtime.name")];
    for (name, key) in container {
        attributes.text(key, process.in_container(name));
    }
    let pod = [
        ("namespace", "k8s.namespace.name"),
        ("pod", "k8s.pod.name"),
        ("pod_uid", "k8s.pod.uid"),
        ("container", "k8s.container.name"),
    ];
    for (name, key) in pod {
        attributes.text(key, process.in_pod(name));
    }
    for (label, value) in process.labels_of_container() {
        attributes.text(&format!("container.label.{label}"), Some(value));
    }
    for (label, value) in process.labels_of_pod() {
        attributes.text(&format!("k8s.pod.label.{label}"), Some(value));
    }
}

/// Returns the attributes in the program's environment: OTEL_RESOURCE_ATTRIBUTES, overridden by
/// OTEL_SERVICE_NAME.
fn said(process: &Process) -> BTreeMap<String, String> {
    let Some(env) = &process.env else { return BTreeMap::new() };
    let list = env.get("OTEL_RESOURCE_ATTRIBUTES").map(String::as_str).unwrap_or_default();
    let pairs = list.split(',').filter_map(|pair| pair.split_once('=')).take(MAX_OF_ENV);
    let mut said: BTreeMap<String, String> = pairs
        .map(|(key, value)| (decoded(key), decoded(value)))
        .filter(|(key, value)| !key.is_empty() && key.len() <= MAX_NAME && !value.is_empty())
        .collect();
    if let Some(name) = env.get("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        said.insert("service.name".to_owned(), name.clone());
    }
    said
}

fn decoded(text: &str) -> String {
    percent_decode_str(text.trim()).decode_utf8_lossy().into_owned()
}

/// Returns the last element of the main module's path that is not a major version, else the executable's
/// name.
fn name(process: &Process) -> Option<String> {
    let is_major = |part: &str| {
        part.strip_prefix('v').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let module = process.module.as_deref().filter(|module| *module != "command-line-arguments");
    let of_module =
        module.and_then(|module| module.rsplit('/').find(|part| !part.is_empty() && !is_major(part)));
    let of_exe = || process.exe.as_deref().and_then(incident::base_name);
    of_module.or_else(of_exe).map(str::to_owned)
}

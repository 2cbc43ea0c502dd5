//! Finds the container and pod of a process, with their names and labels if the host has them.
//!
//! On a Kubernetes node, the container runtime is queried; if it does not answer, the names come from the
//! kubelet's links to container logs, which contain pod, namespace and container. Docker has a file for each
//! container. All paths are resolved through the root of process 1, so that panicwatch may itself run in a
//! container that shares the host's PID namespace.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{LazyLock, Mutex, PoisonError},
};

use serde::Deserialize as _;

use super::cri::{Answer, Runtimes};
use crate::container::{self, Labels, Place};

/// Most containers whose names are remembered.
const MAX_NAMES: usize = 4096;

/// Names and labels of a container and its pod. Unknown labels are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) container: Option<String>,
    pub(super) labels: Option<Labels>,
    /// Namespace and name of the pod.
    pub(super) pod: Option<(String, String)>,
    pub(super) pod_labels: Option<Labels>,
}

type Strings = HashMap<String, String>;

/// Cache of names by container ID.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<HashMap<String, Name>>,
    runtimes: Runtimes,
}

impl Names {
    /// Returns the place of a process; empty if the process has ended.
    pub(super) fn place(&self, pid: u32) -> Place {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mut place = container::place(&text);
        let Some(container) = &mut place.container else { return place };
        let Some(name) = self.name(&container.id) else { return place };
        (container.name, container.labels) = (name.container.clone(), name.labels);
        if let (Some((namespace, pod)), Some(its)) = (name.pod, &mut place.pod) {
            (its.namespace, its.pod) = (Some(namespace), Some(pod));
            (its.container, its.labels) = (name.container, name.pod_labels);
        }
        place
    }

    fn name(&self, id: &str) -> Option<Name> {
        let lock = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = lock().get(id) {
            return Some(name.clone());
        }
        let name = match self.runtimes.ask(id) {
            Answer::Known(name) => name,
            Answer::Unknown => of_kubelet(id).or_else(|| of_docker(id))?,
            // Not cached: the next process of the container queries again, because the runtime knows more
            // than the link.
            Answer::Silent => return of_kubelet(id),
        };
        let mut names = lock();
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(id.to_owned(), name.clone());
        Some(name)
    }
}

/// Returns a path on the host's file system; on our own if the root of process 1 is not accessible, which is
/// the same unless we are in a container.
pub(super) fn host(path: &str) -> PathBuf {
    static ROOT: LazyLock<&Path> = LazyLock::new(|| {
        let first = Path::new("/proc/1/root/");
        if first.metadata().is_ok() { first } else { Path::new("/") }
    });
    ROOT.join(path.trim_start_matches('/'))
}

fn of_kubelet(id: &str) -> Option<Name> {
    let links = fs::read_dir(host("/var/log/containers")).ok()?;
    links.flatten().find_map(|link| {
        let (pod, namespace, container) = container::log_name(link.file_name().to_str()?, id)?;
        Some(Name { container: Some(container), pod: Some((namespace, pod)), ..Name::default() })
    })
}

/// Reads Docker's file. <https://github.com/moby/moby/blob/v25.0.0/container/container.go> (configFileName)
fn of_docker(id: &str) -> Option<Name> {
    let file = host("/var/lib/docker/containers").join(id).join("config.v2.json");
    let text: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let name = text.get("Name")?.as_str()?.trim_start_matches('/').to_owned();
    let labels = text.pointer("/Config/Labels").and_then(|labels| Strings::deserialize(labels).ok());
    Some(Name { container: Some(name), labels: labels.map(Labels::kept), ..Name::default() })
}

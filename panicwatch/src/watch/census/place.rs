//! The container and pod of a process, with their names where the host's files tell them.
//!
//! The kubelet links each container's log by pod, namespace and container; docker keeps a file of each container. Seen
//! through the root of process 1, so that panicwatch may itself be in a container that shares the host's processes.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::container::{self, Place, Pod};

/// Containers whose names are remembered.
const MAX_NAMES: usize = 4096;

/// Name, and namespace and pod of those that are in one.
#[derive(Debug, Clone, Default)]
struct Name {
    container: String,
    pod: Option<(String, String)>,
}

/// Remembers names by container id.
#[derive(Debug, Default)]
pub(super) struct Names(Mutex<HashMap<String, Name>>);

impl Names {
    /// Where a process is; nowhere if it is gone.
    pub(super) fn place(&self, pid: u32) -> Place {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let mut place = container::place(&text);
        let Some(container) = &mut place.container else { return place };
        let Some(name) = self.name(&container.id) else { return place };
        container.name = Some(name.container.clone());
        if let (Some((namespace, pod)), Some(Pod { namespace: its, pod: name_of, container, .. })) =
            (name.pod, &mut place.pod)
        {
            (*its, *name_of, *container) = (Some(namespace), Some(pod), Some(name.container));
        }
        place
    }

    fn name(&self, id: &str) -> Option<Name> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = lock().get(id) {
            return Some(name.clone());
        }
        let name = of_kubelet(id).or_else(|| of_docker(id))?;
        let mut names = lock();
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(id.to_owned(), name.clone());
        Some(name)
    }
}

/// The host's file system.
fn host(path: &str) -> PathBuf {
    Path::new("/proc/1/root").join(path.trim_start_matches('/'))
}

fn of_kubelet(id: &str) -> Option<Name> {
    let links = fs::read_dir(host("/var/log/containers")).ok()?;
    links.flatten().find_map(|link| {
        let (pod, namespace, container) = container::log_name(link.file_name().to_str()?, id)?;
        Some(Name { container, pod: Some((namespace, pod)) })
    })
}

/// <https://github.com/moby/moby/blob/v25.0.0/container/container.go> (configFileName)
fn of_docker(id: &str) -> Option<Name> {
    let file = host("/var/lib/docker/containers").join(id).join("config.v2.json");
    let text: serde_json::Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let name = text.get("Name")?.as_str()?.trim_start_matches('/').to_owned();
    Some(Name { container: name, pod: None })
}

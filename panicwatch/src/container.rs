//! Parses the container and pod of a process from its cgroup path. Pure: works on text.
//!
//! Container runtimes name the cgroup after the container's ID, and the kubelet names the parent cgroup after
//! the pod's UID:
//! <https://github.com/opencontainers/runc/blob/v1.1.12/docs/systemd.md>,
//! <https://github.com/kubernetes/kubernetes/blob/v1.30.0/pkg/kubelet/cm/cgroup_manager_linux.go>
//! (ToSystemd).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Container that a process runs in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Container {
    /// Container ID, 64 hexadecimal digits.
    pub id: String,
    /// Container runtime: "docker", "containerd", "cri-o", "podman"; `None` if the path does not identify it.
    pub runtime: Option<String>,
    /// Container name, if known.
    #[serde(default)]
    pub name: Option<String>,
    /// Container labels; `None` if they are not known.
    #[serde(default)]
    pub labels: Option<Labels>,
}

/// Kubernetes pod that a process runs in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pod {
    /// UID of the pod.
    pub pod_uid: String,
    /// Namespace of the pod, if known.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Name of the pod, if known.
    #[serde(default)]
    pub pod: Option<String>,
    /// Name of the process's container within the pod, if known.
    #[serde(default)]
    pub container: Option<String>,
    /// Pod labels; `None` if they are not known.
    #[serde(default)]
    pub labels: Option<Labels>,
}

/// Labels of a container or pod; truncated to at most 64 (see [`Labels::kept`]).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

/// Most labels kept per container or pod, and most bytes of a key or value. Kubernetes' own have at most 317
/// and 63 bytes, docker's can be of any length.
/// <https://github.com/kubernetes/kubernetes/blob/v1.30.0/staging/src/k8s.io/apimachinery/pkg/util/validation/validation.go>
const MAX_LABELS: usize = 64;
const MAX_LABEL: usize = 1 << 10;

impl Labels {
    /// Keeps the labels that are not too large. Drops those that the kubelet adds to identify pod and
    /// container, which are known from elsewhere.
    pub fn kept(labels: impl IntoIterator<Item = (String, String)>) -> Labels {
        let labels = labels.into_iter().filter(|(key, value)| {
            !key.starts_with("io.kubernetes.") && key.len() <= MAX_LABEL && value.len() <= MAX_LABEL
        });
        // Sorted, so that the same labels are kept every time.
        let labels: BTreeMap<String, String> = labels.collect();
        Labels(labels.into_iter().take(MAX_LABELS).collect())
    }
}

/// Identity of a process's cgroup: its path, and the container and pod it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place {
    /// Path of the cgroup; on cgroup v1, its path in the hierarchy that names the container.
    pub cgroup: String,
    /// Innermost container in the path.
    pub container: Option<Container>,
    /// Pod that encloses the container.
    pub pod: Option<Pod>,
}

impl Place {
    /// Returns the labels of container and pod as "key=value".
    pub fn labels(&self) -> Vec<String> {
        let of_container = self.container.as_ref().and_then(|container| container.labels.as_ref());
        let of_pod = self.pod.as_ref().and_then(|pod| pod.labels.as_ref());
        let all = of_container.into_iter().chain(of_pod).flat_map(|labels| &labels.0);
        all.map(|(key, value)| format!("{key}={value}")).collect()
    }
}

/// Prefixes of container scopes, and the container runtime that uses each.
const SCOPES: [(&str, &str); 5] = [
    ("docker-", "docker"),
    ("cri-containerd-", "containerd"),
    ("crio-", "cri-o"),
    ("libpod-", "podman"),
    ("nerdctl-", "containerd"),
];

/// Parent directories of containers without systemd, and the container runtime that uses each.
const PARENTS: [(&str, &str); 3] = [("docker", "docker"), ("libpod_parent", "podman"), ("crio", "cri-o")];

/// Parses `/proc/PID/cgroup`. With several hierarchies (cgroup v1), the one that identifies most wins.
pub fn place(text: &str) -> Place {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let mut best: Option<Place> = None;
    for path in paths {
        let here = Place { cgroup: path.to_owned(), container: container(path), pod: pod(path) };
        let tells = |place: &Place| u8::from(place.container.is_some()) + u8::from(place.pod.is_some());
        if best.as_ref().is_none_or(|best| tells(&here) > tells(best)) {
            best = Some(here);
        }
    }
    best.unwrap_or_default()
}

fn container(path: &str) -> Option<Container> {
    let parts: Vec<&str> = path.split('/').collect();
    for (i, part) in parts.iter().enumerate().rev() {
        let scope = part.strip_suffix(".scope");
        for (prefix, runtime) in SCOPES {
            // `is_id` rejects "libpod-conmon-ID.scope", the scope of the container's monitor process.
            if let Some(id) = scope.unwrap_or(part).strip_prefix(prefix).filter(|id| is_id(id)) {
                return Some(Container {
                    id: id.to_owned(),
                    runtime: Some(runtime.to_owned()),
                    name: None,
                    labels: None,
                });
            }
        }
        if !is_id(part) {
            continue;
        }
        let parent = i.checked_sub(1).and_then(|i| parts.get(i)).copied().unwrap_or_default();
        let runtime =
            PARENTS.iter().find(|(name, _)| *name == parent).map(|(_, runtime)| (*runtime).to_owned());
        return Some(Container { id: (*part).to_owned(), runtime, name: None, labels: None });
    }
    None
}

/// Reports whether `text` is a container ID: 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Parses the pod's UID: "…/kubepods-burstable-podUID.slice/…" with underscores for dashes, or
/// "…/kubepods/burstable/podUID/…".
fn pod(path: &str) -> Option<Pod> {
    if !path.contains("kubepods") {
        return None;
    }
    path.split('/').rev().find_map(|part| {
        let part = part.strip_suffix(".slice").unwrap_or(part);
        let (_, uid) =
            part.rsplit_once("pod").filter(|(before, _)| before.is_empty() || before.ends_with('-'))?;
        let uid = uid.replace('_', "-");
        let fits = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        fits.then(|| Pod { pod_uid: uid, ..Pod::default() })
    })
}

/// Parses the name of a symlink in /var/log/containers, `POD_NAMESPACE_CONTAINER-ID.log`, for the container
/// `id`. Returns the pod's name, its namespace and the container's name.
/// <https://github.com/kubernetes/kubernetes/blob/v1.30.0/pkg/kubelet/kuberuntime/legacy.go>
pub fn log_name(file: &str, id: &str) -> Option<(String, String, String)> {
    let rest = file.strip_suffix(".log")?.strip_suffix(id)?.strip_suffix('-')?;
    let mut parts = rest.splitn(3, '_');
    let (pod, namespace, container) = (parts.next()?, parts.next()?, parts.next()?);
    Some((pod.to_owned(), namespace.to_owned(), container.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    const UID: &str = "2f9b2f67-3b5a-4b9e-9b0a-0f4a2f0f7c11";

    #[test]
    fn paths_of_container_runtimes() {
        let underscored = UID.replace('-', "_");
        let table = [
            (format!("/system.slice/docker-{ID}.scope"), Some("docker"), false),
            (format!("/docker/{ID}"), Some("docker"), false),
            (format!("/machine.slice/libpod-{ID}.scope/container"), Some("podman"), false),
            (
                format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{underscored}.slice/cri-containerd-{ID}.scope"
                ),
                Some("containerd"),
                true,
            ),
            (format!("/kubepods.slice/kubepods-pod{underscored}.slice/crio-{ID}.scope"), Some("cri-o"), true),
            (format!("/kubepods/besteffort/pod{UID}/{ID}"), None, true),
        ];
        for (path, runtime, in_pod) in table {
            let place = place(&format!("0::{path}\n"));
            let container = place.container.expect("a container");
            assert_eq!((container.id.as_str(), container.runtime.as_deref()), (ID, runtime), "{path}");
            assert_eq!(place.pod.map(|pod| pod.pod_uid), in_pod.then(|| UID.to_owned()), "{path}");
            assert_eq!(place.cgroup, path);
        }
    }

    #[test]
    fn no_container() {
        for path in ["/", "/user.slice/user-0.slice/session-1.scope", "/system.slice/podman.service", ""] {
            let place = place(&format!("0::{path}\n"));
            assert_eq!((place.container, place.pod), (None, None), "{path}");
        }
        assert_eq!(place(&format!("0::/libpod-conmon-{ID}.scope")).container, None);
        assert_eq!(place("garbage\n\n::"), Place::default());
    }

    #[test]
    fn version_one_takes_the_hierarchy_that_tells() {
        let place = place(&format!("12:rdma:/\n11:memory:/docker/{ID}\n0::/\n"));
        assert_eq!(place.container.map(|c| c.id), Some(ID.to_owned()));
        assert_eq!(place.cgroup, format!("/docker/{ID}"));
    }

    #[test]
    fn names_in_the_logs() {
        let name = format!("web-7d9_shop_server-{ID}.log");
        assert_eq!(log_name(&name, ID), Some(("web-7d9".into(), "shop".into(), "server".into())));
        assert_eq!(log_name(&name, "other"), None);
        assert_eq!(log_name(&format!("x-{ID}.log"), ID), None);
    }
}

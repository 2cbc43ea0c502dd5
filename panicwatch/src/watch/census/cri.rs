//! Queries the container runtime for the names and labels of a pod's container, by the interface that the
//! kubelet uses (CRI).
//!
//! Uses the two list calls only, so it never changes anything. Knows nothing of processes or selectors.
//! <https://github.com/kubernetes/cri-api/blob/v0.30.0/pkg/apis/runtime/v1/api.proto>

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, runtime::Runtime};
use tonic::{
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::place::{Name, host};
use crate::container::Labels;

/// Sockets of containerd and CRI-O, and those of containerd as started by k3s, k0s and MicroK8s.
const SOCKETS: [&str; 5] = [
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/k0s/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
];
/// Time limit of a query, including the connection: a query delays the discovery of other processes.
const TIMEOUT: Duration = Duration::from_millis(250);
/// Time for which a runtime that did not answer is not queried again.
const REST: Duration = Duration::from_secs(10);

/// Result of a query.
#[derive(Debug)]
pub(super) enum Answer {
    /// The runtime knows the container.
    Known(Name),
    /// No container runtime is running here, or none knows the container.
    Unknown,
    /// A container runtime is running here, but does not answer now.
    Silent,
}

/// Clients of the container runtimes of this host.
#[derive(Debug)]
pub(super) struct Runtimes(Vec<Client>);

impl Default for Runtimes {
    fn default() -> Runtimes {
        Runtimes::at(SOCKETS.iter().map(|path| host(path)).collect())
    }
}

impl Runtimes {
    fn at(sockets: Vec<PathBuf>) -> Runtimes {
        Runtimes(sockets.into_iter().map(|socket| Client { socket, state: Mutex::default() }).collect())
    }

    /// Queries the runtimes for the container with this ID.
    pub(super) fn ask(&self, id: &str) -> Answer {
        let mut silent = false;
        for client in self.0.iter().filter(|client| client.socket.exists()) {
            match client.ask(id) {
                Answer::Known(name) => return Answer::Known(name),
                Answer::Unknown => {}
                Answer::Silent => silent = true,
            }
        }
        if silent { Answer::Silent } else { Answer::Unknown }
    }
}

#[derive(Debug)]
struct Client {
    socket: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connection: Option<(Runtime, Channel)>,
    rests_until: Option<Instant>,
}

impl Client {
    fn ask(&self, id: &str) -> Answer {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.rests_until.is_some_and(|until| Instant::now() < until) {
            return Answer::Silent;
        }
        match self.try_ask(&mut state, id) {
            Ok(Some(name)) => Answer::Known(name),
            Ok(None) => Answer::Unknown,
            Err(reason) => {
                log::debug!("{} cannot describe container {id}: {reason}", self.socket.display());
                *state = State { connection: None, rests_until: Some(Instant::now() + REST) };
                Answer::Silent
            }
        }
    }

    fn try_ask(&self, state: &mut State, id: &str) -> Result<Option<Name>, String> {
        let (runtime, channel) = match &mut state.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.socket)?),
        };
        let asking = async { tokio::time::timeout(TIMEOUT, name_of(channel.clone(), id)).await };
        match runtime.block_on(asking) {
            Ok(answer) => answer.map_err(|status| status.to_string()),
            Err(_) => Err(format!("no answer within {} ms", TIMEOUT.as_millis())),
        }
    }
}

/// Creates a connection, which sends nothing yet; it makes progress only while the runtime is driven.
fn connect(socket: &Path) -> Result<(Runtime, Channel), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the I/O runtime: {error}"))?;
    let socket = socket.to_owned();
    // Required by the API but not used: a Unix socket has no address of this kind.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(TIMEOUT);
    let inside = runtime.enter();
    let channel = endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    }));
    drop(inside);
    Ok((runtime, channel))
}

async fn name_of(channel: Channel, id: &str) -> Result<Option<Name>, tonic::Status> {
    let request = message::ListRequest { filter: Some(message::Filter { id: id.to_owned() }) };
    let containers: message::Containers = call(channel.clone(), "ListContainers", request).await?;
    let container = containers.containers.into_iter().find(|container| container.id == id);
    // A pod's sandbox process, which only holds its namespaces, is in a container that has the pod sandbox's
    // ID.
    let sandbox = container.as_ref().map_or(id, |container| &container.pod_sandbox_id).to_owned();
    let request = message::ListRequest { filter: Some(message::Filter { id: sandbox.clone() }) };
    let pods: message::Sandboxes = call(channel, "ListPodSandbox", request).await?;
    let Some(pod) = pods.items.into_iter().find(|pod| pod.id == sandbox) else { return Ok(None) };
    let of_pod = pod.metadata.unwrap_or_default();
    Ok(Some(Name {
        container: container.as_ref().and_then(|c| c.metadata.as_ref()).map(|it| it.name.clone()),
        labels: container.map(|container| Labels::kept(container.labels)),
        pod: Some((of_pod.namespace, of_pod.name)),
        pod_labels: Some(Labels::kept(pod.labels)),
    }))
}

async fn call<Q, A>(channel: Channel, name: &'static str, request: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{name}"))
        .map_err(|error| tonic::Status::internal(error.to_string()))?;
    let answer = client.unary(tonic::Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
    Ok(answer.into_inner())
}

/// The fields of CRI messages that are used.
mod message {
    use std::collections::HashMap;

    /// ListContainersRequest and ListPodSandboxRequest, whose used fields are the same.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ListRequest {
        #[prost(message, optional, tag = "1")]
        pub(super) filter: Option<Filter>,
    }

    /// ContainerFilter and PodSandboxFilter, whose used fields are the same.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Filter {
        #[prost(string, tag = "1")]
        pub(super) id: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Containers {
        #[prost(message, repeated, tag = "1")]
        pub(super) containers: Vec<Container>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Container {
        #[prost(string, tag = "1")]
        pub(super) id: String,
        #[prost(string, tag = "2")]
        pub(super) pod_sandbox_id: String,
        #[prost(message, optional, tag = "3")]
        pub(super) metadata: Option<ContainerMetadata>,
        #[prost(map = "string, string", tag = "8")]
        pub(super) labels: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ContainerMetadata {
        #[prost(string, tag = "1")]
        pub(super) name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sandboxes {
        #[prost(message, repeated, tag = "1")]
        pub(super) items: Vec<Sandbox>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Sandbox {
        #[prost(string, tag = "1")]
        pub(super) id: String,
        #[prost(message, optional, tag = "2")]
        pub(super) metadata: Option<SandboxMetadata>,
        #[prost(map = "string, string", tag = "5")]
        pub(super) labels: HashMap<String, String>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct SandboxMetadata {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "3")]
        pub(super) namespace: String,
    }
}

#[cfg(test)]
#[path = "cri/tests.rs"]
mod tests;

//! Tests with responses of containerd 1.6.20 for a pod with the labels `app=shop` and `tier=web`.

use std::{
    convert::Infallible,
    os::unix::net::UnixListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    HeaderMap, Request, Response,
    body::{Bytes, Frame, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::TokioExecutor;
use prost::Message as _;

use super::*;

const CONTAINERS: &[u8] = include_bytes!("containers.bin");
const SANDBOXES: &[u8] = include_bytes!("sandboxes.bin");
const CONTAINER: &str = "2bac79791e6186b860ecf0a62bb5da037739ce8bccfdf35407211a1ae6104a22";
const SANDBOX: &str = "91e280eeca25ebe379bfc72a432041f88f148b3a187910ead4ad588975308fa2";

/// Starts a fake runtime with one pod that has one container. `calls` counts the calls; with `answers` false
/// it never answers.
fn runtime(socket: &Path, calls: Arc<AtomicUsize>, answers: bool) {
    let listener = UnixListener::bind(socket).expect("a socket");
    listener.set_nonblocking(true).expect("non-blocking");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async move {
            let listener = tokio::net::UnixListener::from_std(listener).expect("listener");
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let calls = calls.clone();
                let service = service_fn(move |request| answer(request, calls.clone(), answers));
                let serving =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serving);
            }
        });
    });
}

async fn answer(
    request: Request<Incoming>,
    calls: Arc<AtomicUsize>,
    answers: bool,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    calls.fetch_add(1, Ordering::Relaxed);
    if !answers {
        std::future::pending::<()>().await;
    }
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.expect("a request").to_bytes();
    let asked = message::ListRequest::decode(&body[5..]).expect("a list").filter.expect("a filter").id;
    let message: &[u8] = match (path.as_str(), asked.as_str()) {
        ("/runtime.v1.RuntimeService/ListContainers", CONTAINER) => CONTAINERS,
        ("/runtime.v1.RuntimeService/ListPodSandbox", SANDBOX) => SANDBOXES,
        _ => &[],
    };
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let data = Bytes::from([&[0], length.as_slice(), message].concat());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let frames = [Frame::data(data), Frame::trailers(trailers)].map(Ok);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Ok(Response::builder().header("content-type", "application/grpc").body(body).expect("an answer"))
}

fn known(answer: Answer) -> Name {
    match answer {
        Answer::Known(name) => name,
        other => panic!("{other:?}"),
    }
}

#[test]
fn name_and_labels_are_what_the_runtime_says() {
    let dir = tempfile::tempdir().expect("a directory");
    let (absent, socket) = (dir.path().join("absent.sock"), dir.path().join("cri.sock"));
    let calls = Arc::new(AtomicUsize::new(0));
    runtime(&socket, calls.clone(), true);
    let runtimes = Runtimes::at(vec![absent, socket]);
    let name = known(runtimes.ask(CONTAINER));
    assert_eq!(name.container.as_deref(), Some("server"));
    assert_eq!(name.pod, Some(("store".to_owned(), "shop-1".to_owned())));
    let labels: Vec<String> =
        name.pod_labels.expect("labels").0.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["app=shop", "tier=web"], "without those of Kubernetes' own");
    let holder = known(runtimes.ask(SANDBOX));
    assert_eq!((holder.container, holder.pod), (None, name.pod), "who holds the pod's namespaces");
    assert_eq!(holder.labels, None, "nobody says what the holder's own are");
    assert!(matches!(runtimes.ask(&"0".repeat(64)), Answer::Unknown));
    assert_eq!(calls.load(Ordering::Relaxed), 6, "all by one client");
}

#[test]
fn a_silent_runtime_is_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("cri.sock");
    let calls = Arc::new(AtomicUsize::new(0));
    runtime(&socket, calls.clone(), false);
    let runtimes = Runtimes::at(vec![socket.clone()]);
    for _ in 0..3 {
        assert!(matches!(runtimes.ask(CONTAINER), Answer::Silent));
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert!(matches!(Runtimes::at(vec![dir.path().join("none")]).ask(CONTAINER), Answer::Unknown));
    std::fs::remove_file(&socket).expect("removed");
    drop(UnixListener::bind(&socket).expect("a socket nobody listens at"));
    assert!(matches!(Runtimes::at(vec![socket]).ask(CONTAINER), Answer::Silent));
}

//! Serves one connection: passes its requests to the router, and keeps its entry in the pool up to date.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderValue, Request, Response, StatusCode, header},
};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::Watcher,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Duration,
};
use tower::ServiceExt as _;

use super::{guard, pool::Member, reply};

/// Time limit for receiving the head of a request, and for the pause between two requests.
pub(super) const HEAD: Duration = Duration::from_secs(5);
/// Maximum size of a request's head in bytes.
const HEAD_BYTES: usize = 16 << 10;
/// Value of `Retry-After` in seconds for a rejected client.
const RETRY: &str = "1";

/// Marks an endless response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Endless;

/// Serves one connection until its client, the pool or `watcher` ends it.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    member: &Arc<Member>,
    watcher: Watcher,
) {
    let of_service = member.clone();
    let service = service_fn(move |request| answer(router.clone(), of_service.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Tracked { inner: stream, member: member.clone() }), service);
    // An error is caused by the client, and its connection is gone, so there is nowhere to report it.
    let _ = watcher.watch(connection).await;
}

async fn answer(
    router: Router,
    member: Arc<Member>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    // Health and metrics must stay available however many other requests are in progress.
    let limited = !matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    let response = match member.begin(limited) {
        true => router.oneshot(request.map(Body::new)).await?,
        false => busy("too many requests are in progress; try again in a second"),
    };
    if response.extensions().get::<Endless>().is_some() {
        member.stream();
        return Ok(response.map(|body| Body::new(TrackedBody { body, member })));
    }
    let size = hyper::body::Body::size_hint(response.body()).exact();
    let response = match member.respond(size) {
        true => response,
        false => busy("too many response bytes are waiting for other clients; try again in a second"),
    };
    Ok(response.map(|body| Body::new(TrackedBody { body, member })))
}

/// Returns a 503 response that closes the connection.
fn busy(sentence: &str) -> Response<Body> {
    let mut response = reply::error(StatusCode::SERVICE_UNAVAILABLE, sentence);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    guard::protect(headers);
    response
}

/// A stream that notifies the pool of flushes.
struct Tracked<S> {
    inner: S,
    member: Arc<Member>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Tracked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Tracked<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    /// hyper flushes the stream once its own buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.member.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// A response body that notifies the pool of its end.
struct TrackedBody {
    body: Body,
    member: Arc<Member>,
}

impl hyper::body::Body for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.member.body_ended();
    }
}

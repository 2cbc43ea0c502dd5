//! Listening: TCP, TLS and a Unix socket; bounds on what a caller may take.

use std::{
    fs,
    io::{self, BufReader},
    net::{SocketAddr, TcpListener as StdListener},
    os::unix::{fs::PermissionsExt, net::UnixListener as StdUnixListener, net::UnixStream as StdUnixStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{Semaphore, watch},
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::{Site, Way, router};
use crate::config;

/// Connections at once; the next one waits.
const CONNECTIONS: usize = 512;
/// Whoever has not sent a request's head by then is sent away.
const HEAD: Duration = Duration::from_secs(10);
/// Likewise the beginning of TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Whoever takes nothing of an answer for so long is sent away.
const STALL: Duration = Duration::from_secs(30);
/// Answers under way are given so much time at the end.
const LAST: Duration = Duration::from_secs(2);
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// Why nothing can be listened on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address.
    #[error("cannot listen on {address}: {source}; [http] listen in the configuration says where")]
    Listen {
        /// It.
        address: String,
        /// errno.
        source: io::Error,
    },
    /// A file.
    #[error("{path} {what}")]
    File {
        /// It.
        path: String,
        /// What is wrong with it.
        what: String,
    },
}

/// What is listened on.
pub struct Listeners {
    tcp: Vec<(StdListener, Way)>,
    unix: Option<(StdUnixListener, PathBuf)>,
    tls: Option<TlsAcceptor>,
}

impl Listeners {
    /// Begins to listen; answers come with [`Listeners::serve`].
    ///
    /// # Errors
    /// When an address is taken, or the certificate cannot be used.
    pub fn bind(config: &config::Http) -> Result<Listeners, Error> {
        let tls = tls(&config.tls)?;
        let mut tcp = Vec::new();
        for address in &config.listen {
            let failed = |source| Error::Listen { address: address.clone(), source };
            let listener = StdListener::bind(address).map_err(failed)?;
            listener.set_nonblocking(true).map_err(failed)?;
            let loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
            tcp.push((listener, if loopback { Way::Loopback } else { Way::Network }));
        }
        let unix = match config.unix_socket.as_str() {
            "" => None,
            path => Some((unix(Path::new(path))?, PathBuf::from(path))),
        };
        Ok(Listeners { tcp, unix, tls })
    }

    /// What is wrong with the files of the certificate and the token, by the path of the key.
    pub fn check(config: &config::Http) -> Vec<(&'static str, Error)> {
        let certificate = tls(&config.tls).err().map(|error| ("http.tls", error));
        let token = token(&config.token_file).err().map(|error| ("http.token_file", error));
        certificate.into_iter().chain(token).collect()
    }

    /// The TCP addresses: with port 0 the system has chosen one.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// Anybody on the network may ask.
    pub fn is_open_to_network(&self) -> bool {
        self.tcp.iter().any(|(_, way)| *way == Way::Network)
    }

    /// Answers until `stop` becomes true.
    ///
    /// # Errors
    /// When the runtime refuses a listener.
    pub async fn serve(self, site: Arc<Site>, stop: watch::Receiver<bool>) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut accepting = tokio::task::JoinSet::new();
        for (listener, way) in self.tcp {
            let listener = TcpListener::from_std(listener)?;
            let (router, room, stop, tls) =
                (router(site.clone(), way), room.clone(), stop.clone(), self.tls.clone());
            accepting.spawn(serve(router, room, stop, tls, async move || {
                let (stream, _) = listener.accept().await?;
                // Small answers go at once.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }));
        }
        if let Some((listener, path)) = self.unix {
            let listener = UnixListener::from_std(listener)?;
            let (router, room, stop) = (router(site, Way::Unix), room, stop);
            accepting.spawn(async move {
                serve(router, room, stop, None, async move || Ok(listener.accept().await?.0)).await;
                // Somebody may have put another there.
                let _ = fs::remove_file(path);
            });
        }
        while accepting.join_next().await.is_some() {}
        Ok(())
    }
}

/// Accepts and serves connections until `stop` is true, then lets those under way end.
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    router: Router,
    room: Arc<Semaphore>,
    mut stop: watch::Receiver<bool>,
    tls: Option<TlsAcceptor>,
    mut accept: impl AsyncFnMut() -> io::Result<S>,
) {
    let graceful = GracefulShutdown::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            stream = accept() => stream,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let stream = stream.map(|stream| {
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(STALL));
            Box::pin(stream)
        });
        let Ok(stream) = stream else {
            // Out of descriptors, as a rule: the next try would fail as well.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (router, watcher, tls) = (router.clone(), graceful.watcher(), tls.clone());
        tokio::spawn(async move {
            let _permit = permit;
            match tls {
                None => connection(stream, router, watcher).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                        connection(stream, router, watcher).await;
                    }
                }
            }
        });
    }
    let _ = timeout(LAST, graceful.shutdown()).await;
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // How a caller goes is its own business.
    let _ = watcher.watch(connection).await;
}

fn tls(config: &config::Tls) -> Result<Option<TlsAcceptor>, Error> {
    if config.cert.is_empty() {
        return Ok(None);
    }
    let wrong = |path: &str, what: String| Error::File { path: path.to_owned(), what };
    let open = |path: &str| {
        fs::File::open(path)
            .map(BufReader::new)
            .map_err(|error| wrong(path, format!("cannot be read: {error}")))
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(open(&config.cert)?).collect();
    let certificates =
        certificates.map_err(|error| wrong(&config.cert, format!("has no certificate: {error}")))?;
    let key = PrivateKeyDer::from_pem_reader(open(&config.key)?)
        .map_err(|error| wrong(&config.key, format!("has no private key: {error}")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(certificates, key))
        .map_err(|error| wrong(&config.cert, format!("cannot be used: {error}")))?;
    Ok(Some(TlsAcceptor::from(Arc::new(server))))
}

/// A socket that was left behind is replaced, one that somebody listens on is not.
fn unix(path: &Path) -> Result<StdUnixListener, Error> {
    let failed = |source| Error::Listen { address: path.display().to_string(), source };
    if path.exists()
        && StdUnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path).map_err(failed)?;
    }
    let listener = StdUnixListener::bind(path).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed)?;
    Ok(listener)
}

/// Reads a token file.
///
/// # Errors
/// When it cannot be read or is empty.
pub fn token(path: &str) -> Result<Option<String>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    let wrong = |what: String| Error::File { path: path.to_owned(), what };
    let text = fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(wrong("is empty: it shall hold the token".to_owned())),
        token => Ok(Some(token.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_is_sent_away() {
        let router = Router::new().route("/", get(|| async { vec![0u8; 1 << 20] }));
        let room = Arc::new(Semaphore::new(2));
        let (stop, stopping) = watch::channel(false);
        let (mut caller, stream) = tokio::io::duplex(4096);
        let mut streams = vec![stream];
        let of_task = room.clone();
        let serving =
            tokio::spawn(serve(router, of_task, stopping, None, async move || match streams.pop() {
                Some(stream) => Ok(stream),
                None => std::future::pending().await,
            }));
        caller.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
        tokio::time::sleep(STALL / 2).await;
        // One place is kept for the next caller already.
        assert_eq!(room.available_permits(), 0, "it is waited for");
        tokio::time::sleep(STALL).await;
        assert_eq!(room.available_permits(), 1, "its place is free");
        stop.send(true).expect("it listens");
        serving.await.expect("it ended");
        drop(caller);
    }
}

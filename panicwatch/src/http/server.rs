//! Listens on TCP, TLS and a Unix socket, and enforces time limits on clients.

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
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::watch,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::{
    Site, Way, connection,
    pool::{Member, Pool},
    router,
};
use crate::config;

/// Time limit of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// A client that reads nothing of a response for this long is disconnected.
const STALL: Duration = Duration::from_secs(10);
/// Time for responses in progress to complete when the server stops.
const LAST: Duration = Duration::from_secs(1);

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address cannot be used.
    #[error("cannot listen on {address}: {source}; set another address with [http] listen")]
    Listen {
        /// The configured address.
        address: String,
        /// Error of the system call.
        source: io::Error,
    },
    /// A certificate, key or token file cannot be used.
    #[error("{path} {what}")]
    File {
        /// Path of the file.
        path: String,
        /// The problem with the file.
        what: String,
    },
}

/// The open listening sockets.
pub struct Listeners {
    tcp: Vec<(StdListener, Way)>,
    unix: Option<(StdUnixListener, PathBuf)>,
    tls: Option<TlsAcceptor>,
}

impl Listeners {
    /// Starts to listen; requests are answered by [`Listeners::serve`].
    ///
    /// # Errors
    /// When an address is in use, or the certificate cannot be used.
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

    /// Returns problems with the certificate and token files, each with the path of its key.
    pub fn check(config: &config::Http) -> Vec<(&'static str, Error)> {
        let certificate = tls(&config.tls).err().map(|error| ("http.tls", error));
        let token = token(&config.token_file).err().map(|error| ("http.token_file", error));
        certificate.into_iter().chain(token).collect()
    }

    /// Returns the TCP addresses, with the actual port where port 0 was configured.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|(listener, _)| listener.local_addr().ok()).collect()
    }

    /// Reports whether other hosts can connect.
    pub fn is_open_to_network(&self) -> bool {
        self.tcp.iter().any(|(_, way)| *way == Way::Network)
    }

    /// Serves requests until `stop` becomes true.
    ///
    /// # Errors
    /// When the runtime refuses a listener.
    pub async fn serve(self, site: Arc<Site>, stop: watch::Receiver<bool>) -> io::Result<()> {
        let pool = Pool::new();
        let mut accepting = tokio::task::JoinSet::new();
        for (listener, way) in self.tcp {
            let listener = TcpListener::from_std(listener)?;
            let (router, pool, stop, tls) =
                (router(site.clone(), way), pool.clone(), stop.clone(), self.tls.clone());
            accepting.spawn(serve(router, pool, stop, tls, async move || {
                let (stream, _) = listener.accept().await?;
                // Sends small responses without delay.
                let _ = stream.set_nodelay(true);
                Ok(stream)
            }));
        }
        if let Some((listener, path)) = self.unix {
            let listener = UnixListener::from_std(listener)?;
            let (router, stop) = (router(site, Way::Unix), stop);
            accepting.spawn(async move {
                serve(router, pool, stop, None, async move || Ok(listener.accept().await?.0)).await;
                // Errors are ignored: another process may have replaced or removed the file.
                let _ = fs::remove_file(path);
            });
        }
        while accepting.join_next().await.is_some() {}
        Ok(())
    }
}

/// Accepts and serves connections until `stop` is true. Then closes those without a request immediately, and
/// the others after [`LAST`].
async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    router: Router,
    pool: Arc<Pool>,
    mut stop: watch::Receiver<bool>,
    tls: Option<TlsAcceptor>,
    mut accept: impl AsyncFnMut() -> io::Result<S>,
) {
    let graceful = GracefulShutdown::new();
    loop {
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
            // Usually out of descriptors: an immediate retry would fail as well.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (router, watcher, tls, entry) = (router.clone(), graceful.watcher(), tls.clone(), pool.enter());
        tokio::spawn(async move {
            tokio::select! {
                () = entry.member.closed() => {}
                () = handshake_and_serve(stream, router, tls, &entry.member, watcher) => {}
            }
        });
    }
    pool.close_idle();
    if timeout(LAST, graceful.shutdown()).await.is_err() {
        pool.close_all();
    }
}

async fn handshake_and_serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    router: Router,
    tls: Option<TlsAcceptor>,
    member: &Arc<Member>,
    watcher: Watcher,
) {
    match tls {
        None => connection::serve(stream, router, member, watcher).await,
        Some(tls) => {
            if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                connection::serve(stream, router, member, watcher).await;
            }
        }
    }
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

/// Listens on a Unix socket. A stale socket is replaced; one with a listener is not.
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

/// Reads a token file; `None` if `path` is empty.
///
/// # Errors
/// When the file cannot be read or is empty.
pub fn token(path: &str) -> Result<Option<String>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    let wrong = |what: String| Error::File { path: path.to_owned(), what };
    let text = fs::read_to_string(path).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    match text.trim() {
        "" => Err(wrong("is empty; write the token into it".to_owned())),
        token => Ok(Some(token.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        task::JoinHandle,
        time::Instant,
    };

    use super::*;
    use crate::http::{connection::HEAD, pool::CONNECTIONS};

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";

    struct Served {
        pool: Arc<Pool>,
        stop: watch::Sender<bool>,
        serving: JoinHandle<()>,
        clients: Vec<DuplexStream>,
    }

    /// Serves a megabyte at `/` to `n` clients, and returns when all are accepted.
    async fn served(n: usize) -> Served {
        let router = Router::new().route("/", get(|| async { vec![0u8; 1 << 20] }));
        let pool = Pool::new();
        let (stop, stopping) = watch::channel(false);
        let (clients, mut streams): (Vec<_>, Vec<_>) = (0..n).map(|_| tokio::io::duplex(4096)).unzip();
        let of_task = pool.clone();
        let serving =
            tokio::spawn(serve(router, of_task, stopping, None, async move || match streams.pop() {
                Some(stream) => Ok(stream),
                None => std::future::pending().await,
            }));
        while pool.len() < n {
            tokio::task::yield_now().await;
        }
        Served { pool, stop, serving, clients }
    }

    /// Waits until `pool` has `n` connections, and returns how long that took.
    async fn until(pool: &Pool, n: usize) -> Duration {
        let begun = Instant::now();
        while pool.len() != n {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} connections stay", pool.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_nothing_is_disconnected() {
        let mut served = served(1).await;
        served.clients[0].write_all(REQUEST).await.expect("written");
        tokio::time::sleep(STALL / 2).await;
        assert_eq!(served.pool.len(), 1, "the server waits for it");
        assert!(until(&served.pool, 0).await <= STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_trickles_is_disconnected() {
        let mut served = served(2).await;
        let mut first = served.clients.remove(0);
        let trickling = tokio::spawn(async move {
            // A byte per second is progress, but not a request.
            for byte in REQUEST {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if first.write_all(&[*byte]).await.is_err() {
                    return true;
                }
            }
            false
        });
        let took = until(&served.pool, 0).await;
        assert!(took <= HEAD + Duration::from_secs(1), "{took:?}");
        assert!(trickling.await.expect("it ends"), "it was disconnected before its request was complete");
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_was_read_leaves_the_connection_idle() {
        let mut served = served(1).await;
        for _ in 0..3 {
            served.clients[0].write_all(REQUEST).await.expect("written");
            let mut bytes = vec![0; 1 << 20];
            served.clients[0].read_exact(&mut bytes).await.expect("a response");
            assert!(bytes.starts_with(b"HTTP/1.1 200"));
            // Reads the rest, which has the length of the head.
            while let Ok(Ok(n)) = timeout(Duration::from_millis(10), served.clients[0].read(&mut bytes)).await
            {
                assert!(n > 0, "it stays open");
            }
        }
        served.pool.close_idle();
        assert!(until(&served.pool, 0).await < HEAD, "it counted as idle");
    }

    #[tokio::test(start_paused = true)]
    async fn stopping_waits_for_requests_only() {
        let mut idle = served(CONNECTIONS).await;
        for client in &mut idle.clients {
            client.write_all(b"GET / HT").await.expect("written");
        }
        let begun = Instant::now();
        idle.stop.send(true).expect("it listens");
        idle.serving.await.expect("it ended");
        assert_eq!(begun.elapsed(), Duration::ZERO, "with all connections in use");

        let mut busy = served(2).await;
        for client in &mut busy.clients {
            client.write_all(REQUEST).await.expect("written");
        }
        let mut read = busy.clients.remove(0);
        let reading = tokio::spawn(async move {
            tokio::time::sleep(LAST / 2).await;
            let mut bytes = Vec::new();
            read.read_to_end(&mut bytes).await.expect("a response");
            bytes.len()
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        let begun = Instant::now();
        busy.stop.send(true).expect("it listens");
        busy.serving.await.expect("it ended");
        assert_eq!(begun.elapsed().as_secs(), LAST.as_secs(), "one reads nothing");
        assert!(reading.await.expect("it ends") > 1 << 20, "the other got its response whole");
        until(&busy.pool, 0).await;
    }
}

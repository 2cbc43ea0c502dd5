//! TLS in front of a server that does not speak it: a certificate trusted only by clients that are given it,
//! and a proxy that uses it.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

/// A certificate for localhost and 127.0.0.1 and its key, in a temporary directory.
pub(crate) struct Certificate(tempfile::TempDir);

impl Certificate {
    /// Creates the certificate; without openssl, prints a skip and returns `None`.
    pub(crate) fn make() -> Option<Certificate> {
        let certificate = Certificate(tempfile::tempdir().expect("a folder"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            // Self-signed, and not a CA for other certificates.
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(certificate.key())
            .arg("-out")
            .arg(certificate.cert())
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            #[expect(clippy::print_stdout, reason = "a skip is said aloud")]
            {
                println!("SKIPPED: there is no openssl; cargo xtask setup installs it");
            }
            return None;
        }
        Some(certificate)
    }

    pub(crate) fn cert(&self) -> String {
        self.path("cert.pem")
    }

    pub(crate) fn key(&self) -> String {
        self.path("key.pem")
    }

    fn path(&self, name: &str) -> String {
        let path: PathBuf = self.0.path().join(name);
        path.display().to_string()
    }

    /// Terminates TLS on a port of its own, forwards connections to `server`, and returns its address. Runs
    /// until the test process ends.
    pub(crate) fn in_front_of(&self, server: SocketAddr) -> SocketAddr {
        let certificates: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(self.cert()).expect("a file").collect();
        let key = PrivateKeyDer::from_pem_file(self.key()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(certificates.expect("certificates"), key)
            .expect("a pair");
        // gRPC requires HTTP/2 to be negotiated; a client that offers only HTTP/1.1 gets that.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                while let Ok((stream, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        // Fails if the client does not trust the certificate.
                        let Ok(mut outer) = acceptor.accept(stream).await else { return };
                        let mut inner = TcpStream::connect(server).await.expect("the server listens");
                        let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                    });
                }
            });
        });
        address
    }
}

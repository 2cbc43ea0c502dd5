//! Access control of the HTTP server, its transports, and its limits: no client can block the others. The
//! store is a real one.

#[path = "tls/front.rs"]
#[expect(dead_code, reason = "the server here speaks TLS itself")]
mod front;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use front::Certificate;
use panicwatch::{
    config,
    http::{
        Site,
        server::{Listeners, token},
    },
    incident::Incident,
    status::{
        Board,
        feed::{Feed, News},
    },
    store::{Batch, Store},
};
use tempfile::TempDir;
use tokio::sync::watch;

struct Served {
    dir: TempDir,
    address: SocketAddr,
    feed: Feed,
    stop: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Starts a server with one incident that listens on loopback and a Unix socket.
fn serve(with: impl FnOnce(&Path, &mut config::Http)) -> Served {
    let dir = TempDir::new().expect("a folder");
    let store = Store::open(&dir.path().join("state"), &[]).expect("a store").store;
    let incident: Incident =
        serde_json::from_str(include_str!("incidents/recovered.json")).expect("a document");
    let incidents = vec![(Arc::new(incident), true)];
    store.append(&Batch { id: 1, incidents, ..Batch::default() }).expect("it is written");
    let mut config = config::Http {
        listen: vec!["127.0.0.1:0".to_owned()],
        unix_socket: dir.path().join("socket").display().to_string(),
        ..config::Http::default()
    };
    with(dir.path(), &mut config);
    let listeners = Listeners::bind(&config).expect("free addresses");
    let address = listeners.addresses()[0];
    let (stop, stopping) = watch::channel(false);
    let render = Box::new(|| "a_metric 1\n".to_owned());
    let feed = Feed::new(4);
    let site = Site::new(Arc::new(store), Board::default(), feed.clone(), render, stopping.clone());
    site.set_token(token(&config.token_file).expect("a token"));
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(listeners.serve(Arc::new(site), stopping)).expect("it serves");
    });
    Served { dir, address, feed, stop, thread: Some(thread) }
}

impl Served {
    /// Stops the server and waits until it has ended.
    fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends `request` and returns status, head and body of the response.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> (u16, String, String) {
    stream.write_all(request).expect("it is sent");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("it is answered");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (status, head.to_lowercase(), body.to_owned())
}

fn request(line: &str, headers: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n").into_bytes()
}

impl Served {
    fn get(&self, path: &str, headers: &str) -> (u16, String, String) {
        let stream = TcpStream::connect(self.address).expect("it listens");
        exchange(stream, &request(&format!("GET {path}"), headers))
    }

    fn by_socket(&self, path: &str) -> (u16, String, String) {
        let stream = UnixStream::connect(self.dir.path().join("socket")).expect("it listens");
        exchange(stream, &request(&format!("GET {path}"), ""))
    }
}

const LIST: &str = "/api/v1/incidents";

#[test]
fn a_token_is_asked_for_by_network_only() {
    let served = serve(|dir, config| {
        fs::write(dir.join("token"), "open sesame\n").expect("it is written");
        config.token_file = dir.join("token").display().to_string();
    });
    for (headers, status) in [
        ("", 401),
        ("Authorization: Bearer open\r\n", 401),
        ("Authorization: open sesame\r\n", 401),
        ("Authorization: Bearer open sesame\r\n", 200),
    ] {
        for path in [LIST, "/metrics", "/api/v1/groups", "/api/v1/stream"] {
            if path.ends_with("stream") && status == 200 {
                continue; // The stream never ends.
            }
            assert_eq!(served.get(path, headers).0, status, "{path} {headers}");
        }
    }
    for path in ["/healthz", "/", "/page/app.js"] {
        assert_eq!(served.get(path, "").0, 200, "{path}");
    }
    assert_eq!(served.by_socket(LIST).0, 200, "the socket's permissions have decided");
}

#[test]
fn a_page_from_elsewhere_reads_nothing() {
    let served = serve(|_, _| {});
    let stream = TcpStream::connect(served.address).expect("it listens");
    let rebound = b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(exchange(stream, rebound).0, 403);
    let (status, head, _) = served.get("/", "");
    assert_eq!(status, 200);
    for header in ["default-src 'none'", "frame-ancestors 'none'", "nosniff", "no-referrer"] {
        assert!(head.contains(header), "{header}: {head}");
    }
    assert!(!head.contains("access-control"), "{head}");
}

#[test]
fn what_is_unchanged_is_not_sent_again() {
    let served = serve(|_, _| {});
    let (status, head, body) = served.get(LIST, "");
    assert!(status == 200 && body.contains("\"incidents\""), "{head} {body}");
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a tag").to_owned();
    let (status, _, body) = served.get(LIST, &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((status, body.as_str()), (304, ""));
    assert_eq!(served.get(LIST, "If-None-Match: \"other\"\r\n").0, 200);
    let stream = TcpStream::connect(served.address).expect("it listens");
    let (status, head, body) = exchange(stream, &request(&format!("HEAD {LIST}"), ""));
    assert_eq!((status, body.as_str()), (200, ""), "{head}");
}

#[test]
fn questions_that_make_no_sense_are_answered_with_a_sentence() {
    let served = serve(|_, _| {});
    for (line, status) in [
        ("GET /nowhere", 404),
        ("GET /page/../../etc/passwd", 404),
        ("GET /api/v1/incidents/01ARZ3NDEKTSV4RRFFQ69G5FAV", 404),
        ("GET /api/v1/incidents?colour=red", 400),
        ("GET /api/v1/incidents?from=yesterday", 400),
        ("GET /api/v1/incidents?limit=-1", 400),
        ("GET /api/v1/incidents?kind=%ff", 400),
        ("POST /api/v1/incidents", 405),
        ("DELETE /api/v1/groups", 405),
    ] {
        let stream = TcpStream::connect(served.address).expect("it listens");
        let (got, _, body) = exchange(stream, &request(line, "Content-Length: 0\r\n"));
        assert_eq!(got, status, "{line}: {body}");
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert!(body["error"].as_str().is_some_and(|sentence| sentence.len() > 10), "{line}: {body}");
    }
}

#[test]
fn no_bytes_stop_it() {
    let served = serve(|_, _| {});
    let mut state = 7_u64;
    for n in 0..200 {
        let mut stream = TcpStream::connect(served.address).expect("it listens");
        let mut bytes = match n % 4 {
            0 => b"GET /api/v1/incidents?".to_vec(),
            1 => b"GET / HTTP/1.1\r\nHost: ".to_vec(),
            2 => b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            _ => Vec::new(),
        };
        for _ in 0..n * 5 {
            // Knuth's generator: the same numbers in every run.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.push((state >> 33) as u8);
        }
        // The server may have closed the connection already.
        let _ = stream.write_all(&bytes);
    }
    // Clients that send nothing do not use up the connections of others.
    let silent: Vec<_> = (0..100).filter_map(|_| TcpStream::connect(served.address).ok()).collect();
    assert_eq!(served.get(LIST, "").0, 200);
    drop(silent);
}

#[test]
fn a_request_head_has_at_most_16_kib() {
    let served = serve(|_, _| {});
    let header = |bytes: usize| format!("X-Long: {}\r\n", "a".repeat(bytes));
    assert_eq!(served.get(LIST, &header(15 << 10)).0, 200);
    let mut head = request(&format!("GET {LIST}"), &header(16 << 10));
    // No longer than the server reads: closing a connection with unread bytes would discard the response.
    head.truncate(16 << 10);
    let stream = TcpStream::connect(served.address).expect("it listens");
    assert_eq!(exchange(stream, &head).0, 431);
}

/// Opens `n` connections and sends `bytes` on each. Small receive buffers limit how much is in flight.
fn connections(address: SocketAddr, n: usize, bytes: &[u8]) -> Vec<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let connect = async || {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a size");
        let mut stream = socket.connect(address).await.expect("it listens").into_std().expect("a socket");
        // The kernel may accept only a part.
        let _ = stream.write(bytes);
        stream
    };
    (0..n).map(|_| runtime.block_on(connect())).collect()
}

/// Reports whether the server has closed `stream`.
fn is_closed(mut stream: &TcpStream) -> bool {
    !matches!(stream.read(&mut [0; 512]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Waits until `condition` returns true.
fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

impl Served {
    /// Checks that health and metrics requests are answered, each on a connection of its own, while other
    /// clients hold connections.
    fn assert_healthy(&self) {
        for path in ["/healthz", "/readyz", "/metrics"] {
            let stream = TcpStream::connect(self.address).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
            let (status, _, body) = exchange(stream, &request(&format!("GET {path}"), ""));
            // Nothing is watched here, so not ready is the right answer.
            let expected = if path == "/readyz" { 503 } else { 200 };
            assert_eq!(status, expected, "{path}: {body}");
        }
    }
}

#[test]
fn slow_clients_do_not_block_health() {
    let mut served = serve(|_, _| {});
    // More connections than the limit; each is opened again as soon as it is closed.
    let mut slow = connections(served.address, 600, b"GET /metrics HTTP/1.1\r\nHo");
    served.assert_healthy();
    let closed = slow.iter().filter(|stream| is_closed(stream)).count();
    // The connections that waited longest were closed, one for each new one; no timeout closed any.
    assert!((600 - 512..600 - 512 + 50).contains(&closed), "{closed} are disconnected");
    for _ in 0..5 {
        let closed = slow.iter().filter(|stream| is_closed(stream)).count();
        slow.retain(|stream| !is_closed(stream));
        slow.extend(connections(served.address, closed, b"GET /metr"));
        served.assert_healthy();
        assert_eq!(served.get(LIST, "").0, 200, "requests are answered as well");
    }
    served.stop();
    assert!(slow.iter().all(is_closed), "none holds up the end");
}

#[test]
fn streams_have_their_own_limit() {
    let mut served = serve(|_, _| {});
    let streams = connections(served.address, 600, &request("GET /api/v1/stream", ""));
    let mut answers = vec![String::new(); streams.len()];
    wait_for("each gets an answer", || {
        for (mut stream, answer) in streams.iter().zip(&mut answers) {
            let mut bytes = [0; 2048];
            if let Ok(n) = stream.read(&mut bytes) {
                answer.push_str(&String::from_utf8_lossy(&bytes[..n]));
            }
        }
        answers.iter().all(|answer| answer.contains("\r\n\r\n"))
    });
    let accepted = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200")).count();
    assert_eq!(accepted, 128);
    for answer in answers.iter().filter(|answer| !answer.starts_with("HTTP/1.1 200")) {
        let lower = answer.to_lowercase();
        assert!(answer.starts_with("HTTP/1.1 503") && lower.contains("retry-after: 10"), "{answer}");
        assert!(answer.contains("128 subscribers"), "{answer}");
    }
    served.assert_healthy();
    assert_eq!(served.get(LIST, "").0, 200);
    served.stop();
    assert!(streams.iter().all(is_closed), "none holds up the end");
}

#[test]
fn clients_that_read_nothing_do_not_block_others() {
    let mut served = serve(|_, _| {});
    // The kernel's buffers cannot hold this many responses: the connection stays in the middle of one.
    let page = b"GET /page/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    let streams = connections(served.address, 80, &page);
    wait_for("too many requests are in progress", || {
        let (status, head, body) = served.get(LIST, "");
        assert!(status == 200 || status == 503, "{status}: {body}");
        assert!(status == 200 || (head.contains("retry-after: 1") && body.contains("too many")), "{head}");
        status == 503
    });
    served.assert_healthy();
    wait_for("the slowest make room", || served.get(LIST, "").0 == 200);
    // The same with metrics, which have no limit on requests, only on connections.
    let metrics = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(20_000);
    let more = connections(served.address, 600, &metrics);
    served.assert_healthy();
    served.stop();
    drop((streams, more));
}

#[test]
fn a_socket_that_was_left_behind_is_replaced() {
    let served = serve(|dir, _| {
        // A socket left behind by a killed daemon.
        drop(std::os::unix::net::UnixListener::bind(dir.join("socket")).expect("a socket"));
    });
    assert_eq!(served.by_socket(LIST).0, 200);
    let again = config::Http {
        listen: Vec::new(),
        unix_socket: served.dir.path().join("socket").display().to_string(),
        ..config::Http::default()
    };
    assert!(Listeners::bind(&again).is_err(), "one that is in use is not");
    assert_eq!(served.by_socket(LIST).0, 200);
}

#[test]
fn tls() {
    let Some(certificate) = Certificate::make() else { return };
    let served = serve(|_, config| {
        config.tls = config::Tls { cert: certificate.cert(), key: certificate.key() };
    });
    let mut client = Command::new("openssl")
        .args(["s_client", "-quiet", "-verify_return_error", "-servername", "localhost", "-CAfile"])
        .arg(certificate.cert())
        .arg("-connect")
        .arg(served.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl starts");
    let mut stdin = client.stdin.take().expect("a pipe");
    stdin.write_all(&request(&format!("GET {LIST}"), "")).expect("it is sent");
    let mut answer = String::new();
    client.stdout.take().expect("a pipe").read_to_string(&mut answer).expect("it is answered");
    drop(stdin);
    client.wait().expect("it ends");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"incidents\""), "{answer}");
    // A client that does not speak TLS gets no response and does not block others.
    let mut plain = TcpStream::connect(served.address).expect("it listens");
    plain.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    plain.write_all(&request(&format!("GET {LIST}"), "")).expect("it is sent");
    let mut bytes = Vec::new();
    let _ = plain.read_to_end(&mut bytes);
    assert!(!String::from_utf8_lossy(&bytes).contains("incidents"), "{bytes:?}");
}

/// IDs are in the order of the raises, and incidents are stored when they end: one with a lower ID than those
/// replayed from the store may come later, and a reader that reconnected receives it. What was replayed is
/// not sent twice.
#[test]
fn a_reader_that_reconnects_misses_no_incident_that_began_earlier() {
    let served = serve(|_, _| {});
    let replayed: Incident =
        serde_json::from_str(include_str!("incidents/recovered.json")).expect("a document");
    let mut stream = TcpStream::connect(served.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    let headers = "Last-Event-ID: 00000000000000000000000000\r\n";
    stream.write_all(&request("GET /api/v1/stream", headers)).expect("it is sent");
    let mut read = Vec::new();
    let mut until = |text: &str| {
        let mut bytes = [0; 4096];
        while !String::from_utf8_lossy(&read).contains(text) {
            let n = stream.read(&mut bytes).expect("the stream goes on");
            assert!(n > 0, "the stream ended before {text}");
            read.extend_from_slice(&bytes[..n]);
        }
        String::from_utf8_lossy(&read).matches(text).count()
    };
    let id = |id: &str| format!("id: {id}\n");
    assert_eq!(until(&id(&replayed.id)), 1);
    let mut earlier = replayed.clone();
    earlier.id = "00000000000000000000000001".to_owned();
    let mut later = replayed.clone();
    later.id = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ".to_owned();
    for incident in [&replayed, &earlier, &later] {
        served.feed.send(News::Incident(Arc::new(incident.clone()))).expect("the reader is subscribed");
    }
    assert_eq!(until(&id(&later.id)), 1);
    assert_eq!(until(&id(&earlier.id)), 1);
    assert_eq!(until(&id(&replayed.id)), 1);
}

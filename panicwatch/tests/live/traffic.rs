//! Clients of servers on 127.0.0.1, bounded in number and time. They return only what is the same in every
//! run.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

/// Requests in a round of traffic.
const ROUNDS: usize = 500;

/// Returns a port that was free a moment ago and that this process has not handed out before: tests run in
/// parallel.
pub(crate) fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the kernel's ephemeral ports, and different from those of another run.
    let first = 20_000 + (process::id() % 100 * 100) as u16;
    (0..100)
        .map(|_| first + NEXT.fetch_add(1, Ordering::Relaxed) % 100)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .context("none of 100 ports is free")
}

pub(crate) fn connect(port: u16) -> Result<TcpStream> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

/// Publishes messages to itself and returns what comes back, in the line protocol that the NATS documentation
/// calls "client protocol".
pub(crate) fn nats(port: u16) -> Result<String> {
    let mut stream = connect(port)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.starts_with("INFO "), "not a greeting: {line:?}");
    stream.write_all(b"CONNECT {\"verbose\":false}\r\nSUB numbers.* 1\r\n")?;
    let mut answers = String::new();
    for n in 0..ROUNDS {
        let publish = format!("PUB numbers.{n} {}\r\n{n}\r\n", n.to_string().len());
        stream.write_all(publish.as_bytes())?;
        let mut awaited = 2; // a header and the message itself
        while awaited > 0 {
            line.clear();
            ensure!(reader.read_line(&mut line)? > 0, "closed after {n} messages");
            if line == "PING\r\n" {
                // The server sends it at any time.
                stream.write_all(b"PONG\r\n")?;
                continue;
            }
            answers.push_str(&line);
            awaited -= 1;
        }
    }
    Ok(answers)
}

/// Writes and reads keys through etcd's JSON gateway; returns the values read.
pub(crate) fn etcd(port: u16) -> Result<String> {
    let mut answers = String::new();
    for n in 0..ROUNDS / 10 {
        // Keys and values are base64: four characters encode three bytes.
        let (key, value) = (format!("key{n:05}"), format!("value{n:07}"));
        let put = post(port, "/v3/kv/put", &format!(r#"{{"key":"{key}","value":"{value}"}}"#))
            .with_context(|| format!("put {n}"))?;
        ensure!(put.contains("\"revision\""), "put {n}: {put}");
        let got = post(port, "/v3/kv/range", &format!(r#"{{"key":"{key}"}}"#))?;
        let from = got.find("\"value\"").with_context(|| format!("range {n}: {got}"))?;
        answers.push_str(&got[from..]);
    }
    Ok(answers)
}

fn post(port: u16, path: &str, body: &str) -> Result<String> {
    http(port, &format!("POST {path} HTTP/1.0\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// Fetches a file of 10 000 lines, and one that does not exist.
pub(crate) fn files(port: u16) -> Result<String> {
    let mut last = String::new();
    for n in 0..ROUNDS {
        let body = http(port, "GET /numbers.txt HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        ensure!(n == 0 || body == last, "request {n} was answered otherwise");
        last = body;
    }
    ensure!(last.lines().count() == 1 + 10_000, "{} lines", last.lines().count());
    Ok(last + &http(port, "GET /nothing HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?)
}

/// Returns the status line and the body; headers contain the time.
fn http(port: u16, request: &str) -> Result<String> {
    let mut stream = connect(port)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no body: {answer:?}"))?;
    Ok(format!("{}\n{body}", head.lines().next().unwrap_or_default()))
}

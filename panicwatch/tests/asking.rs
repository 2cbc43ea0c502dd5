//! Commands that query a daemon, run as users run them against a real server: `top --once`, `show ID`.

#[path = "tls/front.rs"]
mod front;

#[path = "browser/site.rs"]
#[expect(dead_code, reason = "the browser's tests use the rest")]
mod site;

use std::{
    fs,
    process::{Command, Output},
};

use front::Certificate;
use panicwatch::{http::client::Client, incident::Incident};
use site::{Served, numbered, sample};

fn panicwatch(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_panicwatch")).args(args).output().expect("panicwatch starts")
}

fn told(args: &[&str]) -> String {
    let out = panicwatch(args);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).expect("text")
}

fn refused(args: &[&str]) -> String {
    let out = panicwatch(args);
    assert_eq!(out.status.code(), Some(1), "{args:?}");
    assert!(out.stdout.is_empty(), "{args:?}");
    String::from_utf8(out.stderr).expect("text")
}

#[test]
fn top_prints_one_picture() {
    let served = Served::start(vec![numbered(&sample("recovered"), 1), numbered(&sample("hostile"), 2)]);
    for args in [&["top", "--once", "--daemon", &served.base][..], &["top", "--daemon", &served.base]] {
        let text = told(args);
        for part in [
            "1 of 2 Go processes watched",
            "Groups (",
            "Incidents (2)",
            "Processes (2)",
            "no: it is not selected",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\0']), "{text:?}");
    }
}

#[test]
fn show_by_id_is_show_of_the_document() {
    let incident = numbered(&sample("slow_read"), 7);
    let served = Served::start(vec![incident.clone()]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("incident.json");
    fs::write(&file, serde_json::to_vec(&incident).expect("JSON")).expect("writes");
    for format in ["text", "json", "folded", "html"] {
        let asked = told(&["show", &incident.id, "--daemon", &served.base, "--format", format]);
        assert_eq!(asked, told(&["show", file.to_str().expect("a path"), "--format", format]), "{format}");
    }
    let unknown = numbered(&incident, 8).id;
    let text = refused(&["show", &unknown, "--daemon", &served.base]);
    assert!(
        text.contains("no incident with this ID") && text.contains("there is no such incident"),
        "{text}"
    );
}

#[test]
fn a_token_is_shown() {
    let served = Served::start(vec![numbered(&sample("recovered"), 1)]);
    served.site.set_token(Some("right".into()));
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("writes");
        path.to_str().expect("a path").to_owned()
    };
    let ask = ["top", "--once", "--daemon", &served.base];
    assert!(refused(&ask).contains("name its file with --token-file"));
    let wrong = file("wrong", "left\n");
    let id = numbered(&sample("recovered"), 1).id;
    let show = ["show", &id, "--daemon", &served.base];
    for ask in [&ask[..], &show] {
        let text = refused(&[ask, &["--token-file", &wrong]].concat());
        assert!(text.contains("the daemon rejects the token"), "{text}");
        for other in ["cannot reach", "no incident with this ID", "there is no file", "requires a token"] {
            assert!(!text.contains(other), "{text}");
        }
    }
    let text = refused(&show);
    assert!(text.contains("requires a token") && !text.contains("there is no file"), "{text}");
    let right = file("right", "right\n");
    assert!(told(&[&ask[..], &["--token-file", &right]].concat()).contains("Incidents (1)"));
}

#[test]
fn tls_is_spoken_with_whom_is_trusted() {
    let (Some(certificate), Some(other)) = (Certificate::make(), Certificate::make()) else { return };
    let served = Served::start(vec![numbered(&sample("recovered"), 1)]);
    let plain = served.base.strip_prefix("http://").expect("an address").parse().expect("an address");
    let front = format!("https://{}", certificate.in_front_of(plain));
    let ask = ["top", "--once", "--daemon", &front, "--ca-file"];
    assert!(told(&[&ask[..], &[&certificate.cert()]].concat()).contains("Incidents (1)"));
    assert!(refused(&[&ask[..], &[&other.cert()]].concat()).contains("certificate"));
}

#[test]
fn who_is_not_there_is_said() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let gone = format!("http://{port}");
    assert!(refused(&["top", "--once", "--daemon", &gone]).contains("set its address with --daemon"));
    assert!(
        refused(&["top", "--once", "--daemon", "/no/such.sock"])
            .contains("cannot reach the daemon at /no/such.sock")
    );
    assert!(
        refused(&["show", &numbered(&sample("recovered"), 1).id, "--daemon", &gone]).contains("cannot reach")
    );
}

#[test]
fn every_question_of_the_documentation_has_an_answer() {
    let of_doc = Incident { timeline: sample("slow_read").timeline, ..numbered(&sample("recovered"), 1) };
    let served = Served::start(vec![of_doc]);
    let doc = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/http-api.md"))
        .expect("the documentation");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let client = Client::new(&served.base, "", None).expect("an address");
    let mut asked = 0;
    for line in doc.lines().filter(|line| line.starts_with("curl ") && !line.contains("-N")) {
        let path = line.split("127.0.0.1:9464").nth(1).expect("a URL").trim_end_matches('\'');
        let answer = runtime.block_on(client.bytes(path)).unwrap_or_else(|error| panic!("{line}: {error}"));
        let is_text = path.ends_with("format=text");
        assert!(is_text || serde_json::from_slice::<serde_json::Value>(&answer).is_ok(), "{line}");
        asked += 1;
    }
    assert!(asked >= 8, "the documentation has its examples");
    // Every path in the documentation's table is known to the server.
    for path in doc.lines().filter_map(|line| line.strip_prefix("| `/")?.split('`').next()) {
        if path.contains(char::is_uppercase) || path.ends_with("stream") {
            continue;
        }
        let answer = runtime.block_on(client.bytes(&format!("/{path}")));
        assert!(answer.is_ok(), "/{path}: {answer:?}");
    }
    for key in
        ["from=2025-01-01T00:00:00Z", "pid=1", "exe=a", "kind=throw", "outcome=goexit", "text=x", "before=0"]
    {
        assert!(doc.contains(&format!("`{}`", key.split('=').next().expect("a key"))), "{key}");
        assert!(runtime.block_on(client.bytes(&format!("/api/v1/incidents?{key}"))).is_ok(), "{key}");
    }
    assert!(runtime.block_on(client.bytes("/api/v1/incidents?colour=red")).is_err());
}

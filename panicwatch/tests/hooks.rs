//! Hooks: commands and webhooks that are called for the selected incidents until a call succeeds or is given
//! up.

#[path = "tls/front.rs"]
mod front;
#[path = "store/made.rs"]
mod made;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use panicwatch::{
    config::{self, Selector, Span, Template},
    hook::{self, Hook},
    incident::{Host, Incident, Kind},
    metrics::Metrics,
    store::{Batch, Outbox, Store},
};
use tokio::sync::watch;

use front::Certificate;
use made::{batch, id, incident, open};

/// Value of `retry_for` that disables retries.
const NEVER: Span = Span(Duration::ZERO);

/// A store with incidents that wait for a hook, and the hook's metrics.
struct Bench {
    dir: tempfile::TempDir,
    store: Arc<Store>,
    metrics: Metrics,
    external_url: String,
}

impl Bench {
    fn new(incidents: u64) -> Bench {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Arc::new(open(&dir.path().join("store"), &["hook:h"]).store);
        store.append(&batch(0..incidents, 3)).expect("written");
        let metrics = Metrics::new(&config::Metrics::default(), &BTreeMap::new()).expect("metrics");
        Bench { dir, store, metrics, external_url: String::new() }
    }

    fn script(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("script");
        fs::write(&path, format!("#!/bin/sh\ncd {}\n{text}\n", self.dir.path().display())).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
        path
    }

    fn hook(&self, script: &str) -> config::Hook {
        let command = vec![self.script(script).display().to_string(), "$HOME; `id`".to_owned()];
        config::Hook { name: "h".to_owned(), command, retry_for: NEVER, ..config::Hook::default() }
    }

    fn outbox(&self) -> Outbox {
        Outbox::new(self.store.clone(), "hook:h")
    }

    fn waiting(&self) -> u64 {
        self.outbox().waiting().expect("a number")
    }

    /// Runs the hook until no incident waits (or `enough` returns true), then stops it as a daemon does.
    fn run(&self, config: &config::Hook, enough: impl Fn() -> bool) {
        self.run_until(config, || self.waiting() == 0 || enough());
    }

    /// Runs the hook until `enough` returns true, then stops it as a daemon does.
    fn run_until(&self, config: &config::Hook, enough: impl Fn() -> bool) {
        let hook = Hook::new(config).expect("a hook").linking_to(&self.external_url);
        let (_stored, of_task) = watch::channel(0);
        let (stop, stopping) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let task =
                tokio::spawn(hook::run(self.outbox(), hook, self.metrics.sink("h"), of_task, stopping));
            for _ in 0..3000 {
                if enough() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            stop.send(true).expect("it listens");
            task.await.expect("it ended");
        });
    }

    fn until_done(&self, config: &config::Hook) {
        self.run(config, || false);
        assert_eq!(self.waiting(), 0);
    }

    fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("panicwatch_export_{name}{{sink=\"h\"}} ")));
        line.expect("the metric").parse().expect("a number")
    }

    fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_command_gets_the_incident_and_a_clean_environment() {
    let bench = Bench::new(1);
    let hook = bench.hook("cat > document; env | sort > env; printf '%s\\n' \"$@\" > args");
    bench.until_done(&hook);
    let document = fs::read(bench.dir.path().join("document")).expect("it ran");
    assert_eq!(serde_json::from_slice::<Incident>(&document).expect("whole"), incident(0, 3));
    assert_eq!(bench.lines("args"), ["$HOME; `id`"], "no shell");
    let env = bench.lines("env");
    let expected = [
        "PANICWATCH_FINGERPRINT",
        "PANICWATCH_GROUP_COUNT",
        "PANICWATCH_ID",
        "PANICWATCH_KIND",
        "PANICWATCH_NEW",
        "PANICWATCH_OUTCOME",
    ];
    let others = ["PATH", "HOME", "LANG", "PWD", "OLDPWD", "_", "SHLVL"];
    for line in &env {
        let name = line.split('=').next().expect("a name");
        assert!(expected.contains(&name) || others.contains(&name), "{line}");
    }
    for line in [
        format!("PANICWATCH_ID={}", id(0)),
        "PANICWATCH_KIND=panic".to_owned(),
        "PANICWATCH_OUTCOME=recovered".to_owned(),
        "PANICWATCH_GROUP_COUNT=1".to_owned(),
        "PANICWATCH_NEW=true".to_owned(),
    ] {
        assert!(env.contains(&line), "{env:?}");
    }
    assert_eq!((bench.metric("sent_total"), bench.metric("dropped_total")), (1, 0));
}

/// Host and link are set if they are known; the JSON on standard input contains the notification too.
#[test]
fn a_command_is_told_the_host_and_the_link() {
    let mut bench = Bench::new(0);
    bench.external_url = "https://box/pw/".to_owned();
    for n in 0..2 {
        let mut incident = incident(n * 3, 3);
        incident.host = Some(Host { name: Some("web-3".to_owned()), boot_id: None });
        let incidents = vec![(Arc::new(incident), true)];
        let batch = Batch { id: n + 1, incidents, ..Batch::default() };
        bench.store.append(&batch).expect("written");
    }
    let hook =
        config::Hook { concurrency: 1, ..bench.hook("cat >> documents; echo >> documents; env >> env") };
    bench.until_done(&hook);
    let env = bench.lines("env");
    for n in [0, 3] {
        assert!(env.contains(&format!("PANICWATCH_URL=https://box/pw/#/incidents/{}", id(n))), "{env:?}");
    }
    assert_eq!(env.iter().filter(|line| *line == "PANICWATCH_HOST=web-3").count(), 2);
    assert!(
        env.contains(&"PANICWATCH_NEW=true".to_owned()) && env.contains(&"PANICWATCH_NEW=false".to_owned())
    );
    let documents = bench.lines("documents");
    let told: Vec<serde_json::Value> =
        documents.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |n: usize| &told[n]["notification"];
    assert_eq!(
        (&of(0)["new"], &of(1)["new"], &of(1)["group_count"]),
        (&true.into(), &false.into(), &2.into())
    );
    assert_eq!(told[0]["host"]["name"], "web-3");
    assert!(of(0)["url"].as_str().is_some_and(|url| url.ends_with(&id(0))), "{}", told[0]);
}

#[test]
fn a_command_that_reads_nothing_holds_up_nobody() {
    let bench = Bench::new(3);
    bench.until_done(&bench.hook("exec <&-; echo x >> ran"));
    assert_eq!(bench.lines("ran").len(), 3);
}

#[test]
fn a_command_that_leaves_a_child_with_its_output_has_ended() {
    let bench = Bench::new(2);
    let hook = config::Hook {
        timeout: Span(Duration::from_secs(60)),
        ..bench.hook("sleep 300 & echo $! >> children")
    };
    bench.until_done(&hook);
    assert_eq!(bench.metric("sent_total"), 2);
    for pid in bench.lines("children") {
        // SAFETY: a system call without pointers, for a process that the test's script started.
        unsafe { libc::kill(pid.parse().expect("a number"), libc::SIGKILL) };
    }
}

#[test]
fn one_that_takes_too_long_is_killed_with_all_it_started() {
    let bench = Bench::new(1);
    let timeout = Span(Duration::from_millis(500));
    let hook = config::Hook { timeout, ..bench.hook("sleep 300 & echo $! > child; echo begun; sleep 300") };
    bench.until_done(&hook);
    let child: u32 = bench.lines("child")[0].parse().expect("a number");
    let is_gone = || {
        let status = fs::read_to_string(format!("/proc/{child}/stat"));
        // A zombie waits for the process that adopted it.
        status.map_or(true, |status| status.contains(") Z "))
    };
    for _ in 0..1000 {
        if is_gone() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(is_gone(), "its child runs on");
    assert_eq!(
        (bench.metric("sent_total"), bench.metric("failures_total"), bench.metric("dropped_total")),
        (0, 1, 1)
    );
}

#[test]
fn one_that_fails_is_tried_again() {
    let bench = Bench::new(1);
    let hook = bench.hook("echo x >> tries; head -c 1000000 /dev/zero; test $(wc -l < tries) -ge 2");
    bench.until_done(&config::Hook { retry_for: config::Hook::default().retry_for, ..hook });
    assert_eq!(bench.lines("tries").len(), 2);
    assert_eq!((bench.metric("sent_total"), bench.metric("failures_total")), (1, 1));
}

#[test]
fn what_fails_waits_for_the_next_daemon() {
    let bench = Bench::new(5);
    let failing = config::Hook {
        retry_for: config::Hook::default().retry_for,
        ..bench.hook("echo x >> tries; exit 1")
    };
    bench.run(&failing, || bench.lines("tries").len() >= 2);
    assert_eq!((bench.waiting(), bench.metric("dropped_total")), (5, 0), "none is lost");
    bench.until_done(&bench.hook("echo $PANICWATCH_ID >> ids"));
    let mut ids = bench.lines("ids");
    ids.sort();
    assert_eq!(ids, (0..5).map(id).collect::<Vec<_>>());
}

/// An incident whose call always fails does not block the incidents behind it.
#[test]
fn one_that_always_fails_blocks_none_behind_it() {
    let bench = Bench::new(40);
    let hook = bench.hook(&format!("echo $PANICWATCH_ID >> ids; test $PANICWATCH_ID != {}", id(0)));
    let hook = config::Hook { retry_for: config::Hook::default().retry_for, concurrency: 1, ..hook };
    bench.run(&hook, || bench.metric("sent_total") == 39);
    assert_eq!((bench.waiting(), bench.metric("dropped_total")), (1, 0));
}

/// When too many incidents wait, the oldest are dropped, even while all calls wait for their next try.
#[test]
fn a_hook_that_is_down_has_a_bounded_queue() {
    const MAX: u64 = 10_000;
    let bench = Bench::new(0);
    let small: Incident = serde_json::from_str(include_str!("incidents/deadlock.json")).expect("a document");
    let add = |numbers: std::ops::Range<u64>| {
        let one = |n| (Arc::new(made::numbered(small.clone(), n, 3)), true);
        let batch =
            Batch { id: numbers.start + 1, incidents: numbers.map(one).collect(), ..Batch::default() };
        bench.store.append(&batch).expect("written");
    };
    add(0..MAX + 5);
    let down = config::Hook { retry_for: config::Hook::default().retry_for, ..bench.hook("exit 1") };
    let tried = || bench.metric("failures_total") >= 32;
    bench.run_until(&down, tried);
    assert_eq!((bench.waiting(), bench.metric("dropped_total")), (MAX, 5));
    assert_eq!(bench.outbox().pending(0, 1).expect("read")[0].id, id(5), "the oldest went");
    add(MAX + 5..MAX + 8);
    bench.run_until(&down, || bench.metric("dropped_total") == 8);
    assert_eq!((bench.waiting(), bench.metric("dropped_total")), (MAX, 8));
}

#[test]
fn rules() {
    let all = |hook: &dyn Fn(config::Hook) -> config::Hook| {
        let bench = Bench::new(12);
        bench.until_done(&hook(bench.hook("echo $PANICWATCH_ID >> ids")));
        let mut ids = bench.lines("ids");
        ids.sort();
        ids
    };
    let those = |fits: &dyn Fn(&Incident) -> bool| {
        (0..12).map(|n| incident(n, 3)).filter(fits).map(|incident| incident.id).collect::<Vec<_>>()
    };
    let by_kind = all(&|hook| config::Hook { kind: vec![Kind::Throw, Kind::Signal], ..hook });
    assert_eq!(by_kind, those(&|i| matches!(i.kind, Kind::Throw | Kind::Signal)));
    let exe = Selector { exe: vec!["*/server-[12]".to_owned()], ..Selector::default() };
    let by_process = all(&|hook| config::Hook { processes: vec![exe.clone()], ..hook });
    assert_eq!(by_process, those(&|i| i.process.exe.as_ref().is_some_and(|exe| exe.ends_with(['1', '2']))));
    assert_eq!(all(&|hook| config::Hook { first_seen: true, ..hook }), [id(0), id(1), id(2)]);
}

#[test]
fn no_more_at_once_than_allowed() {
    let bench = Bench::new(12);
    let script = "mkdir running.$$; ls -d running.* | wc -l >> at_once; sleep 0.1; rmdir running.$$";
    bench.until_done(&config::Hook { concurrency: 3, ..bench.hook(script) });
    let at_once: Vec<u32> =
        bench.lines("at_once").iter().map(|n| n.trim().parse().expect("a number")).collect();
    assert_eq!(at_once.len(), 12);
    assert!(at_once.iter().all(|n| (1..=3).contains(n)), "{at_once:?}");
}

/// A request as the server received it.
#[derive(Debug, Clone)]
struct Request {
    head: String,
    body: Vec<u8>,
}

/// Starts a server that sends `answers` in turn and repeats the last one; returns its URL and the requests it
/// received.
fn server(answers: &'static [&'static str]) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook?secret=1", listener.local_addr().expect("an address"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let of_thread = seen.clone();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a connection");
            let mut reader = BufReader::new(stream.try_clone().expect("a second handle"));
            let mut head = String::new();
            while reader.read_line(&mut head).is_ok_and(|n| n > 2) {}
            let length = head
                .lines()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let mut body = vec![0; length.unwrap_or(0)];
            reader.read_exact(&mut body).expect("a body");
            of_thread.lock().expect("not poisoned").push(Request { head, body });
            let answer = answers[n.min(answers.len() - 1)];
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno");
            stream.write_all(answer.as_bytes()).expect("sent");
        }
    });
    (url, seen)
}

fn webhook(url: String) -> config::Hook {
    let headers = [("Authorization".to_owned(), "Bearer token".to_owned())].into();
    config::Hook { name: "h".to_owned(), url, headers, ..config::Hook::default() }
}

#[test]
fn a_webhook_gets_the_document() {
    let (url, seen) = server(&["200 OK"]);
    let bench = Bench::new(2);
    bench.until_done(&config::Hook { concurrency: 1, ..webhook(url) });
    let seen = seen.lock().expect("not poisoned");
    assert_eq!(seen.len(), 2);
    let head = seen[0].head.to_ascii_lowercase();
    assert!(head.starts_with("post /hook?secret=1 http/1.1"), "{head}");
    assert!(
        head.contains("authorization: bearer token") && head.contains("content-type: application/json"),
        "{head}"
    );
    assert_eq!(serde_json::from_slice::<Incident>(&seen[0].body).expect("whole"), incident(0, 3));
}

#[test]
fn a_webhook_trusts_the_authority_it_is_told() {
    let (Some(certificate), Some(other)) = (Certificate::make(), Certificate::make()) else { return };
    let (url, seen) = server(&["200 OK"]);
    let address = url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).expect("an address");
    let front = certificate.in_front_of(address.parse().expect("an address"));
    let hook = |ca_file: String| config::Hook { ca_file, ..webhook(format!("https://{front}/hook")) };
    let bench = Bench::new(1);
    bench.run(&hook(other.cert()), || bench.metric("failures_total") > 0);
    assert_eq!((bench.waiting(), seen.lock().expect("not poisoned").len()), (1, 0));
    bench.until_done(&hook(certificate.cert()));
    assert_eq!(seen.lock().expect("not poisoned").len(), 1);
    assert!(Hook::new(&hook("/nowhere.pem".to_owned())).is_err_and(|sentence| sentence.contains("ca_file")));
}

#[test]
fn a_slack_message_is_an_object_with_a_text() {
    let (url, seen) = server(&["200 OK"]);
    Bench::new(1).until_done(&config::Hook { template: Template::Slack, ..webhook(url) });
    let message: serde_json::Value =
        serde_json::from_slice(&seen.lock().expect("not poisoned")[0].body).expect("JSON");
    assert!(message["text"].as_str().is_some_and(|text| text.contains("message 0")), "{message}");
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let (url, seen) = server(&["503 Busy\r\nRetry-After: 0", "429 Slow\r\nRetry-After: 0", "200 OK"]);
    let bench = Bench::new(1);
    bench.until_done(&webhook(url));
    assert_eq!(seen.lock().expect("not poisoned").len(), 3);
    assert_eq!((bench.metric("sent_total"), bench.metric("failures_total")), (1, 2));
}

#[test]
fn a_server_that_refuses_is_not() {
    for answer in [&["400 Bad"], &["302 Found\r\nLocation: http://127.0.0.1:1/"]] {
        let (url, seen) = server(answer);
        let bench = Bench::new(1);
        bench.until_done(&webhook(url));
        assert_eq!(seen.lock().expect("not poisoned").len(), 1, "{answer:?}");
        assert_eq!((bench.metric("sent_total"), bench.metric("dropped_total")), (0, 1));
    }
}

#[test]
fn without_a_server_incidents_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let bench = Bench::new(3);
    bench.run(&webhook(format!("http://{address}/")), || bench.metric("failures_total") > 0);
    assert_eq!((bench.waiting(), bench.metric("dropped_total")), (3, 0));
}

#[test]
fn without_authorities_only_https_is_refused() {
    const CHILD: &str = "PANICWATCH_TEST_NO_AUTHORITIES";
    if std::env::var_os(CHILD).is_none() {
        let status = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "without_authorities_only_https_is_refused"])
            .env(CHILD, "1")
            .envs([("SSL_CERT_FILE", "/dev/null"), ("SSL_CERT_DIR", "/nonexistent")])
            .status()
            .expect("a child");
        return assert!(status.success());
    }
    assert!(Hook::new(&webhook("http://127.0.0.1:1/".to_owned())).is_ok());
    let refused = Hook::new(&webhook("https://127.0.0.1:1/".to_owned()));
    assert!(refused.is_err_and(|sentence| sentence.contains("install ca-certificates")));
}

#[test]
fn a_hook_with_a_header_that_is_none_is_refused() {
    let mut hook = webhook("http://127.0.0.1:1/".to_owned());
    hook.headers.insert("X".to_owned(), "a\r\nForged: b".to_owned());
    assert!(Hook::new(&hook).is_err_and(|sentence| sentence.contains('X')));
}

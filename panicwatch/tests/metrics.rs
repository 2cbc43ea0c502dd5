//! The metrics, their documentation, the alert rules and the dashboard, checked with Prometheus itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use panicwatch::{
    config,
    incident::{Incident, Outcome},
    metrics::Metrics,
    status::{Binary, Own, Probe, Process, Status},
    store::Counted,
};

/// Base of the runbook URLs.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns metrics of which each has a value: metrics without a value are not exported.
fn metrics() -> Metrics {
    let metrics = Metrics::new(&config::Metrics::default(), &BTreeMap::new()).expect("metrics");
    let incident = |text: &str| -> Incident { serde_json::from_str(text).expect("a document") };
    let mut hostile = incident(include_str!("incidents/hostile.json"));
    hostile.process.exe = Some("/tmp/a\"} 5\nforged_total{x=\"\\\u{1b}[31m\u{202e}é".to_owned());
    let mut fatal = incident(include_str!("incidents/nil_dereference.json"));
    fatal.outcome = Outcome::Fatal;
    let recovered = incident(include_str!("incidents/recovered.json"));
    let deaths = [1, 2, 3].map(|pid| {
        let mut death = fatal.clone();
        death.process.pid = pid;
        death
    });
    for incident in [&recovered, &hostile].into_iter().chain(&deaths) {
        metrics.add(&metrics.of_incident(incident));
        metrics.observe(incident);
    }
    let counted = Counted { binary: "shop".to_owned(), function: None, count: 7 };
    metrics.add(&[metrics.of_counted(&counted)]);
    let probe = Probe { price: "emulated".to_owned(), ..Probe::default() };
    let binary = Binary {
        path: "/srv/shop".to_owned(),
        probes: vec![probe],
        overhead_percent: Some(0.5),
        ..Binary::default()
    };
    let some = |text: &str| vec![(text.to_owned(), 3)];
    let own = Own {
        events: 12,
        lost: some("ring full"),
        execs_released: some("deadline"),
        unread_programs: some("its path is not known"),
        refused_binaries: some("no symbols \"\\\n"),
        shed: vec!["samples".to_owned()],
        prices: vec![("samples".to_owned(), 4000.0)],
        overhead_percent: Some(0.1),
        cpu_seconds: 1.5,
        ..Own::default()
    };
    let process = Process { watched: true, ..Process::default() };
    metrics.status(&Status { processes: vec![process], binaries: vec![binary], own, ..Status::default() });
    metrics.store(1000, 5, 1);
    metrics.readers(2);
    metrics.gap(2.5);
    metrics.reloaded(true);
    let sink = metrics.sink("otlp");
    sink.sent(4);
    sink.failed();
    sink.dropped(1);
    sink.waiting(2);
    metrics
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns a program of Debian's prometheus package, unpacked by setup or installed; otherwise prints a skip
/// and returns `None`.
#[expect(clippy::print_stdout, reason = "a skip is said aloud")]
fn prometheus(program: &str) -> Option<PathBuf> {
    let home = std::env::var_os("PANICWATCH_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/panicwatch")));
    let unpacked = home.map(|home| home.join("debian/prometheus/usr/bin").join(program));
    let installed = Some(Path::new("/usr/bin").join(program));
    let found = [unpacked, installed].into_iter().flatten().find(|path| path.is_file());
    if found.is_none() {
        println!("skipped: there is no {program}; cargo xtask setup fetches it");
    }
    found
}

fn promtool(args: &[&str], dir: &Path, input: &str) -> Option<String> {
    let mut child = Command::new(prometheus("promtool")?)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let out = child.wait_with_output().expect("it ends");
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "promtool {args:?}: {text}");
    Some(text)
}

#[test]
fn the_document_tells_of_all_metrics() {
    let metrics = metrics();
    let text = metrics.render();
    let mut table = String::from("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for (name, kind, help) in metrics.described() {
        let sample = text.lines().find(|line| {
            let rest = line.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']) || rest.starts_with("_sum"))
        });
        let sample = sample.unwrap_or_else(|| panic!("{name} has no value"));
        // Label values of the first sample contain no quotes.
        let labels =
            sample.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(inner, _)| inner);
        let names: Vec<String> = labels
            .split("\",")
            .filter_map(|pair| pair.split_once("=\""))
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        table += &format!("| `{name}` | {kind} | {} | {help} |\n", names.join(", "));
    }
    let path = root().join("docs/metrics.md");
    let document = fs::read_to_string(&path).expect("the document");
    if document.contains(&table) {
        return;
    }
    let begin = document.find("| metric |").expect("a table");
    let end = begin + document[begin..].find("\n\n").expect("its end") + 1;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, format!("{}{table}{}", &document[..begin], &document[end..]))
            .expect("it is written");
        return;
    }
    panic!("docs/metrics.md differs; it should have:\n{table}\nand has:\n{}", &document[begin..end]);
}

#[test]
fn promtool_accepts_the_exposition() {
    promtool(&["check", "metrics"], &root(), &metrics().render());
}

#[test]
fn promtool_accepts_the_rules_and_their_tests() {
    let dir = root().join("deploy/prometheus");
    promtool(&["check", "rules", "panicwatch.rules.yml"], &dir, "");
    promtool(&["test", "rules", "panicwatch.test.yml"], &dir, "");
}

/// Returns the names of metrics in an expression.
fn names(expr: &str) -> BTreeSet<String> {
    let words = expr.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
    words.filter(|word| word.contains("panicwatch_")).map(str::to_owned).collect()
}

/// Fails if one of the names is neither a metric nor a recording rule.
fn assert_known(used: &BTreeSet<String>, whose: &str) {
    let described = metrics().described();
    let rules = fs::read_to_string(root().join("deploy/prometheus/panicwatch.rules.yml")).expect("the rules");
    for name in used {
        let of = |(metric, kind, _): &(String, String, String)| {
            let part = name.strip_prefix(metric.as_str());
            part == Some("") || kind == "histogram" && matches!(part, Some("_bucket" | "_sum" | "_count"))
        };
        let recorded = rules.contains(&format!("record: {name}\n"));
        assert!(described.iter().any(of) || recorded, "{whose} asks for {name}, which there is not");
    }
}

#[test]
fn the_rules_ask_for_metrics_that_there_are_and_are_explained() {
    let rules = fs::read_to_string(root().join("deploy/prometheus/panicwatch.rules.yml")).expect("the rules");
    let code: String = rules.lines().filter(|line| !line.trim_start().starts_with(['#', 's', 'd'])).fold(
        String::new(),
        |text, line| if line.contains("name: panicwatch-") { text } else { text + line + "\n" },
    );
    let used = names(&code);
    assert!(used.len() > 8, "{used:?}");
    assert_known(&used, "the rules");
    let document = fs::read_to_string(root().join("docs/metrics.md")).expect("the document");
    let tests = fs::read_to_string(root().join("deploy/prometheus/panicwatch.test.yml")).expect("the tests");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 11, "{alerts:?}");
    for alert in alerts {
        assert!(document.contains(&format!("### {alert}\n")), "docs/metrics.md does not explain {alert}");
        let runbook =
            format!("runbook_url: {REPOSITORY}/blob/main/docs/metrics.md#{}\n", alert.to_lowercase());
        assert!(rules.contains(&runbook), "{alert} has no absolute runbook URL");
        let fires = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels:");
        assert!(tests.contains(&fires), "no test has {alert} fire");
        let rests = format!("alertname: {alert}\n        exp_alerts: []\n");
        let (values, absent) = tests.split_once("- name: series that are absent\n").expect("that test");
        assert!(values.contains(&rests), "no test has {alert} not fire");
        assert!(absent.contains(&rests), "no test has {alert} not fire without series");
    }
}

#[test]
fn the_dashboards_queries_are_queries_for_metrics_that_there_are() {
    let text = fs::read_to_string(root().join("deploy/grafana/panicwatch.json")).expect("the dashboard");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().expect("a query")).collect();
    assert!(queries.len() > 15);
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (i, query) in queries.iter().enumerate() {
        let query = query.replace("$__rate_interval", "5m");
        rules += &format!("  - record: dashboard:q{i}\n    expr: {}\n", serde_json::json!(query));
        assert_known(&names(&query), "the dashboard");
    }
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("dashboard.yml"), rules).expect("it is written");
    promtool(&["check", "rules", "dashboard.yml"], dir.path(), "");
}

/// A child process that is killed when the value is dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves the metrics over HTTP and returns the port.
fn serve(metrics: Arc<Metrics>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let body = metrics.render();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        }
    });
    port
}

/// Queries Prometheus; returns `None` while there is no answer.
fn ask(port: u16, path: &str) -> Option<serde_json::Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "Prometheus does not show {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn prometheus_scrapes_the_numbers_and_evaluates_the_alerts() {
    let Some(program) = prometheus("prometheus") else { return };
    let metrics = Arc::new(metrics());
    let target = serve(metrics);
    let dir = tempfile::tempdir().expect("a folder");
    let rules = fs::canonicalize(root().join("deploy/prometheus/panicwatch.rules.yml")).expect("the rules");
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
         - job_name: panicwatch\n  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n",
        rules.display()
    );
    fs::write(dir.path().join("prometheus.yml"), config).expect("it is written");
    let free =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let log = fs::File::create(dir.path().join("log")).expect("a file");
    let child = Command::new(program)
        .current_dir(dir.path())
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address=127.0.0.1:{free}"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("Prometheus starts");
    let _server = Server(child);
    let value = |query: &str| {
        until(query, || {
            let answer = ask(free, &format!("/api/v1/query?query={query}"))?;
            Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
        })
    };
    assert_eq!(value("sum(panicwatch_panics_total)"), "12");
    assert_eq!(value("sum(panicwatch_panics_total%7Boutcome=%22counted%22%7D)"), "7");
    assert_eq!(value("count(%7Bjob=%22panicwatch%22,__name__=~%22forged.*%22%7D)%20or%20vector(0)"), "0");
    assert_eq!(value("panicwatch_exit_seconds_count"), "4");
    let states = until("the alerts' states", || {
        let answer = ask(free, "/api/v1/rules?type=alert")?;
        let groups = answer["data"]["groups"].as_array()?.clone();
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let states: BTreeMap<String, (String, String)> = rules
            .map(|rule| {
                let text = |key: &str| rule[key].as_str().unwrap_or_default().to_owned();
                (text("name"), (text("health"), text("state")))
            })
            .collect();
        let known = states.values().all(|(health, _)| health != "unknown");
        let begun = states.get("PanicwatchNotReady").is_some_and(|(_, state)| state == "pending");
        (known && begun && states.get("GoCrashLoop")?.1 == "firing").then_some(states)
    });
    for (name, (health, _)) in &states {
        assert_eq!(health, "ok", "{name}");
    }
    assert_eq!(states["PanicwatchExportDrops"].1, "inactive", "nothing was dropped since");
}

//! Everything together: a Go service that crashes, Prometheus that scrapes and evaluates the alert rules, a
//! collector, and a browser on the page; each shows the same incident.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use panicwatch::incident::Outcome;

use super::{
    collector::Collector,
    host::{Host, until},
};
use crate::{chromium::Chromium, run, toolchain};

/// A Prometheus server that scrapes a daemon.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(dir: &Path, daemon: &str) -> Result<Option<Prometheus>> {
        let unpacked = toolchain::home().join("debian/prometheus/usr/bin/prometheus");
        let installed = PathBuf::from("/usr/bin/prometheus");
        let Some(program) = [unpacked, installed].into_iter().find(|program| program.is_file()) else {
            skipped("Prometheus is not there; cargo xtask setup unpacks it");
            return Ok(None);
        };
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/panicwatch.rules.yml");
        let rules = fs::canonicalize(rules)?;
        let config = format!(
            "global:\n  scrape_interval: 1s\n  evaluation_interval: 1s\nrule_files: [{}]\nscrape_configs:\n- job_name: panicwatch\n  static_configs:\n  - targets: ['{daemon}']\n",
            rules.display()
        );
        fs::write(dir.join("prometheus.yml"), config)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(program)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("prometheus.log"))?)
            .spawn()?;
        Ok(Some(Prometheus { child, port }))
    }

    /// Sends a query to its API; returns `None` while it does not respond.
    fn ask(&self, path: &str) -> Option<serde_json::Value> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn skipped(why: &str) {
    #[expect(clippy::print_stdout, reason = "a skip is said aloud")]
    {
        println!("SKIPPED in the test of all together: {why}");
    }
}

pub(super) fn all(built: &Path) -> Result<()> {
    let mut host = Host::new("")?;
    let dir = host.dir.path().to_owned();
    let collector = Collector::start()?;
    let otlp =
        collector.as_ref().map_or(String::new(), |it| format!("[otlp]\nendpoint = \"{}\"\n", it.url()));
    let (jsonl, hooked) = (dir.join("all.jsonl"), dir.join("hooked"));
    let hook = format!(
        "[[hook]]\nname = \"file\"\ncommand = [\"/usr/bin/tee\", \"{}\"]\noutcome = [\"fatal\"]\n",
        hooked.display()
    );
    host.configure(&format!("{otlp}[jsonl]\npath = \"{}\"\n{hook}", jsonl.display()))?;
    let program = host.program("service", built)?;
    let mut daemon = host.start()?;
    let prometheus = Prometheus::start(&dir, daemon.address())?;
    if let Some(prometheus) = &prometheus {
        until("Prometheus to have scraped", || {
            let up = prometheus.ask("/api/v1/query?query=up%7Bjob%3D%22panicwatch%22%7D");
            Ok(up.filter(|up| up["data"]["result"][0]["value"][1] == "1"))
        })?;
    }
    let mut browser = Chromium::start();
    match &mut browser {
        Some(browser) => browser.open(&format!("http://{}/", daemon.address())),
        None => skipped("there is no Chromium; cargo xtask setup installs chromium-headless-shell"),
    }
    let service = host.run(&program, &["5", "10ms", "die"])?;
    let pid = service.child.id();
    ensure!(service.finish()?.0 == 2, "the service dies as it would alone");
    let death = until("its death", || {
        let all = daemon.incidents()?;
        Ok(all.into_iter().find(|it| it.process.pid == pid && it.outcome == Outcome::Fatal))
    })?;
    if let Some(browser) = &mut browser {
        // The open page shows the incident without a reload.
        browser.until("document.body.innerText.includes('closed for good')");
        browser.open(&format!("http://{}/#/incidents/{}", daemon.address(), death.id));
        browser.until("document.querySelector('h1')?.textContent.includes('closed for good')");
        browser.until(&format!("document.body.innerText.includes('{}')", death.id));
        browser.until("document.querySelector('canvas') !== null");
        let problems = browser.problems(&format!("http://{}", daemon.address()));
        ensure!(problems.is_empty(), "{problems:?}");
    }
    if let Some(collector) = &collector {
        collector.has_each(&BTreeSet::from([death.id.as_str()]))?;
    }
    let line =
        until("its line", || Ok(run::incidents(&jsonl)?.into_iter().find(|line| line.id == death.id)))?;
    ensure!(line.message == death.message && line.stack == death.stack, "the line tells the same");
    let told = until("the hook", || Ok(fs::read_to_string(&hooked).ok().filter(|text| !text.is_empty())))?;
    let told: serde_json::Value = serde_json::from_str(&told).context("the hook gets a document")?;
    ensure!(told["id"] == death.id.as_str(), "{}", told["id"]);
    if let Some(prometheus) = &prometheus {
        let query =
            "/api/v1/query?query=panicwatch_panics_total%7Boutcome%3D%22fatal%22%2Cbinary%3D%22service%22%7D";
        until("Prometheus to have the number", || {
            let answer = prometheus.ask(query);
            Ok(answer.filter(|answer| answer["data"]["result"][0]["value"][1] == "1"))
        })?;
        // A single death is an alert once Prometheus has scraped the daemon for five minutes; a crash loop is
        // one at once.
        for _ in 0..2 {
            ensure!(
                host.run(&program, &["0", "0s", "die"])?.finish()?.0 == 2,
                "the service dies as it would alone"
            );
        }
        until("the alert", || {
            let alerts = prometheus.ask("/api/v1/alerts");
            let named = |alerts: &serde_json::Value| {
                let all = alerts["data"]["alerts"].as_array().cloned().unwrap_or_default();
                let is_it = |alert: &serde_json::Value| {
                    alert["labels"]["alertname"] == "GoCrashLoop" && alert["labels"]["binary"] == "service"
                };
                all.iter().any(|alert| is_it(alert) && alert["state"] == "firing")
            };
            Ok(alerts.filter(named))
        })?;
    }
    daemon.stop()
}

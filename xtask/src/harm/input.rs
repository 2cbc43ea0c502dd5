//! Damaged binaries, hostile values and hostile HTTP clients.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Context, End, Scenario,
    daemon::Daemon,
    programs::{self, PATIENCE},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario { name: "damaged binaries", run: damaged },
    Scenario { name: "damaged binaries under the daemon", run: damaged_under_daemon },
    Scenario { name: "hostile values", run: hostile_values },
    Scenario { name: "http clients", run: http_clients },
];

/// Time limit for `inspect` of a damaged file, which must end with a result or an error.
const INSPECT_LIMIT: Duration = Duration::from_secs(60);

/// Command line prefix that runs a damaged program, which may do anything, unprivileged and for at most 10 s.
const CONFINED: [&str; 9] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "timeout",
    "-s",
    "KILL",
    "10",
];

/// Returns a copy of `original` with 1 to 64 bytes changed: near its start, near its end, or anywhere; one
/// copy in ten is truncated.
fn damage(original: &[u8], random: &mut super::Random) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let length = bytes.len() as u64;
    // Ranges from which positions are drawn: ELF and program headers, section headers, the whole file.
    let ranges = [0..4096.min(length), length.saturating_sub(4096)..length, 0..length];
    let range = &ranges[random.below(3) as usize];
    for _ in 0..=random.below(64) {
        let at = range.start + random.below(range.end - range.start);
        bytes[at as usize] = random.next() as u8;
    }
    if random.below(10) == 0 {
        bytes.truncate(random.below(length) as usize);
    }
    bytes
}

/// Writes an executable file.
fn executable(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn damaged(context: &Context) -> Result<End> {
    let original = fs::read(programs::book(context)?)?;
    let mut random = context.random("damaged");
    let path = context.scratch.join("damaged");
    let (rounds, run_every) = context.size((100_u64, 10), (1000, 10));
    let (mut read, mut refused, mut ran) = (0, 0, 0);
    for round in 0..rounds {
        let bytes = damage(&original, &mut random);
        let _ = fs::remove_file(&path);
        executable(&path, &bytes)?;
        let keep = |what: &str| -> Result<End> {
            let kept = std::env::temp_dir().join(format!("damaged-{}-{round}", context.seed));
            fs::copy(&path, &kept)?;
            bail!("{what}; the file is kept as {}", kept.display())
        };
        let mut inspect = Command::new(&context.panicwatch);
        let inspected =
            programs::run(context, inspect.args(["inspect", "--format", "json"]).arg(&path), INSPECT_LIMIT)?;
        match inspected.status {
            0 => read += 1,
            1..=3 => refused += 1,
            status => return keep(&format!("inspect ended with {status}: {}", inspected.stderr)),
        }
        if round % run_every == 0 {
            let mut line = Command::new(CONFINED[0]);
            line.args(&CONFINED[1..]).arg(&path).current_dir("/proc");
            let alone = programs::run(context, &mut line, PATIENCE)?;
            let mut watched = Command::new(&context.panicwatch);
            watched.args(["run", "-o", "/dev/null", "--"]).args(CONFINED).arg(&path).current_dir("/proc");
            let watched = programs::run(context, &mut watched, PATIENCE)?;
            // Damaged code can behave differently from run to run: it is a failure only if no run without
            // panicwatch behaves the same.
            let is_equal =
                |alone: &programs::Ended| (alone.status, &alone.stdout) == (watched.status, &watched.stdout);
            let mut runs = (0..5).map(|_| programs::run(context, &mut line, PATIENCE));
            if !is_equal(&alone) && !runs.any(|run| run.is_ok_and(|run| is_equal(&run))) {
                return keep(&format!(
                    "status {} became {}: {}",
                    alone.status, watched.status, watched.stderr
                ));
            }
            ran += 1;
        }
    }
    Ok(End::Passed(format!(
        "{rounds} files: {read} read, {refused} refused with an error; {ran} run with equal results"
    )))
}

fn damaged_under_daemon(context: &Context) -> Result<End> {
    let original = fs::read(programs::book(context)?)?;
    let mut random = context.random("damaged under the daemon");
    let daemon = Daemon::start(context)?;
    let rounds = context.size(50, 1000);
    for round in 0..rounds {
        let path = context.scratch.join(format!("damaged-{round}"));
        executable(&path, &damage(&original, &mut random))?;
        let mut line = Command::new(CONFINED[0]);
        line.args(&CONFINED[1..]).arg(&path).arg("-panics=3").current_dir("/proc");
        drop(programs::run(context, &mut line, PATIENCE)?);
        fs::remove_file(&path)?;
    }
    let ended =
        programs::run(context, Command::new(programs::book(context)?).args(["-begin", "2s"]), PATIENCE)?;
    ensure!(ended.status == 7, "the program ended with {}", ended.status);
    let health = daemon.get("/healthz")?;
    ensure!(health.starts_with("HTTP/1.1 200"), "not healthy: {health}");
    daemon.stop()?;
    Ok(End::Passed(format!("{rounds} files executed; the daemon is healthy and stops in order")))
}

/// Checks every output format with incidents whose texts try to control a terminal or a browser.
fn hostile_values(context: &Context) -> Result<End> {
    let program = programs::build(context, "xtask/harm/hostile", "hostile", &[])?;
    let file = context.scratch.join("hostile.jsonl");
    let _ = fs::remove_file(&file);
    let mut run = Command::new(&context.panicwatch);
    let ended = programs::run(context, run.args(["run", "-o"]).arg(&file).arg("--").arg(&program), PATIENCE)?;
    ensure!(ended.status == 2, "status {}: {}", ended.status, ended.stderr);
    let text = fs::read_to_string(&file)?;
    let incidents: Vec<&str> = text.lines().collect();
    let expected: usize = ended.stdout.trim().parse().context("the program prints its number of panics")?;
    ensure!(incidents.len() == expected, "{} incidents of {expected}: {}", incidents.len(), ended.stderr);
    let mut outputs = 0;
    for (at, incident) in incidents.iter().enumerate() {
        let one: PathBuf = context.scratch.join(format!("hostile-{at}.json"));
        fs::write(&one, incident)?;
        for format in ["text", "json", "html", "perfetto", "folded", "perf-script", "otlp"] {
            let mut show = Command::new(&context.panicwatch);
            let output = show.args(["show", "--format", format]).arg(&one).output()?;
            let status = output.status;
            let words = String::from_utf8_lossy(&output.stderr);
            if status.code() == Some(1) && words.contains("nothing to") {
                // The profile formats need samples, which a short run may lack.
                continue;
            }
            ensure!(
                status.success(),
                "show --format {format}: {status} {}",
                String::from_utf8_lossy(&output.stderr)
            );
            if !matches!(format, "perfetto" | "otlp") {
                let text = harmless(&output.stdout).with_context(|| format!("incident {at} as {format}"))?;
                ensure!(
                    format != "html" || !text.contains("<script>alert"),
                    "incident {at}: markup of the program"
                );
            }
            outputs += 1;
        }
    }
    Ok(End::Passed(format!(
        "{expected} values in 7 formats: {outputs} outputs, none with a control character or markup of the program"
    )))
}

/// Checks that the output has no control characters except line feeds and tabs.
fn harmless(output: &[u8]) -> Result<&str> {
    let text = std::str::from_utf8(output).context("not UTF-8")?;
    let control = text.char_indices().find(|(_, c)| c.is_control() && !matches!(c, '\n' | '\t'));
    if let Some((at, control)) = control {
        bail!("control character {control:?} at byte {at}");
    }
    Ok(text)
}

/// Opens slow, numerous and malformed connections: health and metrics must always respond, and the daemon
/// must stop cleanly.
fn http_clients(context: &Context) -> Result<End> {
    let daemon = Daemon::start(context)?;
    let mut random = context.random("http clients");
    let many = context.size(700, 3000);
    let mut open = Vec::new();
    let mut slowest = Duration::ZERO;
    for number in 0..many {
        if let Ok(mut stream) = TcpStream::connect(&daemon.address) {
            let request = match random.below(4) {
                0 => "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
                1 => "GET /api/v1/incidents HTTP/1.1\r\nHost: loc".to_owned(),
                2 => format!(
                    "GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n",
                    "a".repeat(random.below(100_000) as usize)
                ),
                _ => String::from_utf8_lossy(&random.next().to_le_bytes()).into_owned(),
            };
            // The server is right to close such a connection early.
            drop(stream.set_write_timeout(Some(Duration::from_secs(1))));
            drop(stream.write_all(request.as_bytes()));
            open.push(stream);
        }
        if number % 50 == 49 {
            for path in ["/healthz", "/metrics"] {
                let began = Instant::now();
                let answer =
                    daemon.get(path).with_context(|| format!("{path} beside {} clients", open.len()))?;
                ensure!(
                    answer.starts_with("HTTP/1.1 200"),
                    "{path} beside {} clients: {answer:.200}",
                    open.len()
                );
                slowest = slowest.max(began.elapsed());
            }
        }
    }
    daemon.stop()?;
    Ok(End::Passed(format!(
        "{many} clients; health and metrics answered within {} ms; orderly stop",
        slowest.as_millis()
    )))
}

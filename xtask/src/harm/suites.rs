//! Runs the standard library's own tests with and without panicwatch: the results must be the same, and
//! panicwatch must report as many panics as the kernel counts.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{
    Context, End, Scenario,
    programs::{self, PATIENCE, Reported},
};
use crate::{paths, setup, shell};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario { name: "standard library", run: standard_library }];

/// Go releases of the full run, oldest, middle and newest; the quick set uses the last one.
const RELEASES: [&str; 3] = {
    let all = setup::GO_VERSIONS;
    [all[0], all[all.len() / 2], all[all.len() - 1]]
};
const QUICK: &[&str] = &["errors", "fmt", "sort", "text/template"];
const WHOLE: &[&str] = &[
    "archive/tar",
    "bufio",
    "bytes",
    "compress/flate",
    "container/list",
    "context",
    "database/sql",
    "encoding/binary",
    "encoding/gob",
    "encoding/json",
    "encoding/xml",
    "errors",
    "expvar",
    "fmt",
    "go/parser",
    "go/printer",
    "html/template",
    "image/png",
    "io",
    "log/slog",
    "math/big",
    "net/http/httptest",
    "net/textproto",
    "reflect",
    "regexp",
    "sort",
    "strconv",
    "strings",
    "sync",
    "text/template",
    "time",
];

fn standard_library(context: &Context) -> Result<End> {
    let releases = context.size(&RELEASES[2..], &RELEASES[..]);
    let packages = context.size(QUICK, WHOLE);
    let (mut suites, mut tests, mut panics) = (0, 0, 0);
    for release in releases {
        for package in packages {
            let (results, raised) =
                one(context, release, package).with_context(|| format!("{package} of Go {release}"))?;
            suites += 1;
            tests += results;
            panics += raised;
        }
    }
    Ok(End::Passed(format!(
        "{suites} suites of {} releases, {tests} results equal; {panics} panics reported, {panics} counted by the kernel",
        releases.len()
    )))
}

/// Runs one suite; returns its number of results and of panics.
fn one(context: &Context, release: &str, package: &str) -> Result<(usize, u64)> {
    let source = setup::go_root(&paths::cache()?, release).join("src").join(package);
    let program = context.scratch.join(format!("{}-{release}.test", package.replace('/', "-")));
    let mut go = programs::go_command(release)?;
    shell::capture(go.current_dir(&source).args(["test", "-c", "-o"]).arg(&program).arg("."))?;
    let suite = |command: &mut Command| -> Result<programs::Ended> {
        command.args(["-test.v", "-test.short", "-test.count=1"]).current_dir(&source);
        command.env("GOROOT", setup::go_root(&paths::cache()?, release));
        programs::run(context, command, PATIENCE)
    };
    let alone = suite(&mut Command::new(&program))?;
    let counter = Counter::start(context, &program)?;
    let file = context.scratch.join("suite.jsonl");
    drop(std::fs::remove_file(&file));
    let mut run = Command::new(&context.panicwatch);
    run.args(["run", "--level", "full", "--max-captures", "0", "-o"]).arg(&file).arg("--").arg(&program);
    let watched = suite(&mut run)?;
    let counted = counter.stop()?;
    let (before, after) = (results(&alone.stdout), results(&watched.stdout));
    ensure!(!before.is_empty(), "the suite has no results: {}", alone.stdout);
    if before != after || alone.status != watched.status {
        let differences: Vec<_> = before.symmetric_difference(&after).collect();
        bail!("status {} became {}; {differences:?}; {}", alone.status, watched.status, watched.stderr);
    }
    let reported = Reported::read(&file)?.panics;
    ensure!(
        reported == counted,
        "{reported} panics reported, {counted} counted by the kernel; {}",
        watched.stderr
    );
    drop(std::fs::remove_file(&program));
    Ok((before.len(), reported))
}

/// Returns the results of a suite's tests, without what differs from run to run: durations, and addresses in
/// names.
fn results(stdout: &str) -> BTreeSet<String> {
    let lines = stdout.lines().map(str::trim_start).filter(|line| line.starts_with("--- "));
    lines.map(|line| without_addresses(line.split(" (").next().unwrap_or(line))).collect()
}

fn without_addresses(name: &str) -> String {
    let mut parts = name.split("0x");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "0x" + part.trim_start_matches(|c: char| c.is_ascii_hexdigit()))
}

/// A separate kernel counter (tracefs) at the instruction of `runtime.gopanic` that panicwatch probes.
struct Counter {
    tracefs: PathBuf,
    event: String,
}

impl Counter {
    fn start(context: &Context, program: &Path) -> Result<Counter> {
        let offset = gopanic(context, program)?;
        // A separate mount: panicwatch must work whether or not the host has one.
        let tracefs = context.scratch.join("tracefs");
        std::fs::create_dir_all(&tracefs)?;
        shell::capture(Command::new("mount").args(["-t", "tracefs", "none"]).arg(&tracefs))?;
        let counter = Counter { tracefs, event: format!("harm_{}/gopanic", std::process::id()) };
        counter.write("uprobe_events", &format!("p:{} {}:{offset}", counter.event, program.display()))?;
        counter.write(&format!("events/{}/enable", counter.event), "1")?;
        Ok(counter)
    }

    /// Returns the number of hits.
    fn stop(self) -> Result<u64> {
        // uprobe_profile: file, event, hits.
        let profile = std::fs::read_to_string(self.tracefs.join("uprobe_profile"))?;
        let mut fields = profile.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let line = fields.find(|line| line.get(1) == Some(&"gopanic")).context("no such event")?;
        Ok(line.get(2).context("no hits")?.parse()?)
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.tracefs.join(file);
        let mut open = std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        std::io::Write::write_all(&mut open, text.as_bytes())
            .with_context(|| format!("{text} > {}", path.display()))
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        drop(self.write(&format!("events/{}/enable", self.event), "0"));
        drop(self.write("uprobe_events", &format!("-:{}", self.event)));
        drop(shell::capture(Command::new("umount").arg(&self.tracefs)));
    }
}

/// Returns the file offset of the instruction of runtime.gopanic that panicwatch probes, from
/// `panicwatch inspect`.
fn gopanic(context: &Context, program: &Path) -> Result<String> {
    let mut inspect = Command::new(&context.panicwatch);
    let json = shell::capture(inspect.args(["inspect", "--format", "json"]).arg(program))?;
    let inspected: serde_json::Value = serde_json::from_str(&json)?;
    let probes = inspected["probes"].as_array().context("no probes")?;
    let probe = probes.iter().find(|probe| probe["name"] == "panic raised").context("no such probe")?;
    Ok(format!("{:#x}", probe["file_offset"].as_u64().context("no offset")?))
}

#[cfg(test)]
mod tests {
    use super::results;

    #[test]
    fn results_have_no_durations_and_no_addresses() {
        let found = results(
            "=== RUN TestAs\n    --- PASS: TestAs/0:As(_0xc000012345) (0.00s)\n--- FAIL: TestB (1.20s)\n",
        );
        let found: Vec<_> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["--- FAIL: TestB", "--- PASS: TestAs/0:As(_0x)"]);
    }
}

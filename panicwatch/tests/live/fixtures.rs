//! The suite's own programs, one shape of panic each, in every release and several builds.
//!
//! Recovered panics are compared with what the program itself printed about them, deaths with what Go
//! printed.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use panicwatch::incident::{Exit, Incident, Kind, Outcome};

use crate::{
    bounds,
    compare::{self, Expect, recovered::Truth},
    go_text::Account,
    gobuild::{self, DEFAULT, FLAVOURS, Flavour},
    judges,
    ledger::{End, Verdict, cell, none},
    need,
    run::{self, Program, Watched},
    special,
    toolchain::{self, Toolchain},
};

/// How a fixture's incidents are judged.
#[derive(Clone, Copy)]
pub(crate) enum Judge {
    /// Every panic is recovered; each incident is compared with what the program prints about it.
    Recovered,
    /// The program dies of a panic; the incident is compared with what Go prints.
    Dies,
    /// By a function of its own.
    By(fn(&Built) -> Result<()>),
}

/// A shape: its name in the table, its directory, its arguments.
struct Shape {
    name: &'static str,
    dir: &'static str,
    args: &'static [&'static str],
    judge: Judge,
    /// Whether every build flavour is tested; the result of the other shapes does not depend on the build.
    builds: bool,
}

const fn shape(name: &'static str, dir: &'static str, args: &'static [&'static str], judge: Judge) -> Shape {
    Shape { name, dir, args, judge, builds: false }
}

const fn every_build(shape: Shape) -> Shape {
    Shape { builds: true, ..shape }
}

const SHAPES: &[Shape] = &[
    every_build(shape("recovered", "recovered", &[], Judge::Recovered)),
    every_build(shape("repanic", "repanic", &[], Judge::Recovered)),
    every_build(shape("values", "values", &["all"], Judge::By(special::values))),
    shape("values, each fatal", "values", &[], Judge::By(special::each_value_fatal)),
    shape("goroutines", "goroutines", &[], Judge::Recovered),
    shape("labels", "labels", &[], Judge::By(special::labels)),
    every_build(shape("deep", "deep", &[], Judge::Dies)),
    every_build(shape("inlined", "inlined", &[], Judge::Dies)),
    every_build(shape("initpanic", "initpanic", &[], Judge::By(special::init))),
    shape("errors of the library", "errors", &[], Judge::Recovered),
    every_build(shape("cold memory", "cold", &[], Judge::By(bounds::cold))),
    shape("cold memory, text", "cold", &["text"], Judge::By(bounds::cold_text)),
    shape("cold memory, fatal", "cold", &["die"], Judge::By(bounds::cold_fatal)),
    shape("bound of labels", "bounds", &[], Judge::By(bounds::labels)),
    shape("bound of texts", "bounds", &[], Judge::By(bounds::texts)),
    shape("bound of objects", "bounds", &[], Judge::By(bounds::objects)),
    shape("bound of places", "bounds", &[], Judge::By(bounds::places)),
    shape("bound of processes", "bounds", &[], Judge::By(bounds::processes)),
    shape("bound of goroutines that lost records", "bounds", &[], Judge::By(bounds::lost_rows)),
    shape("bound of goroutines that panic uncaptured", "bounds", &[], Judge::By(bounds::quiet_rows)),
    shape("bound of defers", "bounds", &[], Judge::By(bounds::defers)),
    every_build(shape("failed type assertion", "bounds", &[], Judge::By(bounds::assertion))),
    shape("initvar", "initvar", &[], Judge::By(special::init_variable)),
    shape("early", "early", &[], Judge::By(special::early)),
    shape("samevalue", "samevalue", &[], Judge::By(special::same_value)),
    shape("goexit in a defer", "ending", &["goexit"], Judge::By(special::goexit)),
    shape("exit in a defer", "ending", &["exit"], Judge::By(special::exit)),
    shape("no panic", "ending", &["normal"], Judge::By(special::no_panic)),
    shape("10 000 recovered", "counter", &["10000"], Judge::By(special::counter)),
    shape("50 000 counted", "counter", &["50000"], Judge::By(special::counted)),
    shape("fatal beyond the rate", "counter", &["3000", "die"], Judge::By(special::fatal_beyond)),
    shape("SIGSEGV sent", "signals", &[], Judge::By(special::segv)),
    shape("SIGQUIT sent", "signals", &[], Judge::By(special::quit)),
    shape("SIGKILL sent", "signals", &[], Judge::By(special::kill)),
    shape("stampede", "stampede", &[], Judge::By(special::stampede)),
    shape("callback recovered", "callback", &["recovered"], Judge::Recovered),
    shape("callback panic", "callback", &["panic"], Judge::Dies),
    shape("crash in C", "callback", &["crash"], Judge::By(special::crash_in_c)),
];

/// A fixture built with one toolchain and flavour.
pub(crate) struct Built {
    /// Toolchain it was built with.
    pub(crate) toolchain: Toolchain,
    /// Path of the program.
    pub(crate) path: PathBuf,
    /// Command-line arguments of the shape.
    pub(crate) args: &'static [&'static str],
}

impl Built {
    /// Returns the program with the shape's arguments.
    pub(crate) fn program(&self) -> Program<'_> {
        Program::new(&self.path, self.args)
    }
}

/// Returns every cell of the group.
pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (version, toolchain) in toolchain::all() {
        for shape in SHAPES {
            for flavour in flavours(shape, &version) {
                let (toolchain, bare) = (toolchain.clone(), toolchain.clone());
                let name = match flavour {
                    DEFAULT => shape.name.to_owned(),
                    other => format!("{} ({})", shape.name, other.name),
                };
                trials
                    .push(cell("fixture", &version, &name, move || judge(shape, flavour, toolchain.clone())));
                if !matches!(shape.judge, Judge::By(_)) || shape.name == "values" {
                    let name = format!("fixture {name}");
                    trials.push(cell("oracle", &version, &name, move || {
                        judge_judges(shape, flavour, bare.clone())
                    }));
                }
            }
        }
    }
    trials
}

/// Returns the flavours of a shape: all of them for the oldest release with the current calling convention's
/// tables and for the newest one; with PANICWATCH_TEST_FULL=1, all of them for every release.
fn flavours(shape: &Shape, version: &str) -> Vec<Flavour> {
    if need::full() || (shape.builds && (version == "1.21" || version == "1.27")) {
        FLAVOURS.to_vec()
    } else {
        vec![DEFAULT]
    }
}

/// Builds a fixture's program, or returns the reason why it cannot be built.
pub(crate) fn build(
    dir: &str,
    flavour: Flavour,
    toolchain: &Result<Toolchain, String>,
) -> Result<Result<(Toolchain, PathBuf), String>> {
    let toolchain = match toolchain {
        Ok(toolchain) => toolchain.clone(),
        Err(reason) => return Ok(Err(reason.clone())),
    };
    if dir == "callback" && !need::on_path("gcc") {
        return Ok(Err("gcc is not installed".to_owned()));
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/go").join(dir);
    let env = [("GO111MODULE", "on"), ("GOFLAGS", "-mod=mod -buildvcs=false"), ("GOPROXY", "off")];
    let path = gobuild::build(&toolchain, &source, flavour, &env)?;
    Ok(Ok((toolchain, path)))
}

fn judge(shape: &Shape, flavour: Flavour, toolchain: Result<Toolchain, String>) -> Verdict {
    if let Some(reason) = need::probes() {
        return Ok(End::Skipped(reason));
    }
    let built = match build(shape.dir, flavour, &toolchain)? {
        Ok((toolchain, path)) => Built { toolchain, path, args: shape.args },
        Err(reason) => return Ok(End::Skipped(reason)),
    };
    match shape.judge {
        Judge::Recovered => recovered(&built).map(drop),
        Judge::Dies => dies(&built, Kind::Panic).map(drop),
        Judge::By(judge) => judge(&built),
    }?;
    Ok(End::Passed)
}

fn judge_judges(shape: &Shape, flavour: Flavour, toolchain: Result<Toolchain, String>) -> Verdict {
    let (toolchain, path) = match build(shape.dir, flavour, &toolchain)? {
        Ok(found) => found,
        Err(reason) => return Ok(End::Skipped(reason)),
    };
    let program = Program::new(&path, shape.args);
    match shape.judge {
        Judge::Recovered => judges::recovered(&program, toolchain.release).map(drop),
        Judge::Dies => judges::dies(&program, toolchain.release).map(drop),
        // Both cells of the fixture `values`: all its values, recovered and fatal.
        Judge::By(_) => judges::values(&path, toolchain.release),
    }?;
    Ok(End::Passed)
}

/// Runs the program and compares each recovered incident with what the program printed about it.
pub(crate) fn recovered(built: &Built) -> Result<(Vec<Truth>, Watched)> {
    let run = run::watched(&built.program())?;
    ensure!(run.output.status == 0, "exit status {}: {}", run.output.status, run.output.stderr);
    ensure!(run.output.stdout.ends_with("done\n"), "the program was cut off: {:?}", run.output.stdout);
    built.program().sane(&run.incidents)?;
    let mut truths = truths(&run.output.stdout)?;
    let mut incidents: Vec<&Incident> = run.incidents.iter().collect();
    // Panics of different goroutines may be reported in another order than printed.
    truths.sort_by_key(|t| t.goroutine());
    incidents.sort_by_key(|i| i.goroutine.as_ref().map(|g| g.id));
    ensure!(
        truths.len() == incidents.len(),
        "the program recovered {}, panicwatch wrote {} incidents: {:?}",
        truths.len(),
        incidents.len(),
        incidents.iter().map(|i| (i.outcome, &i.message)).collect::<Vec<_>>()
    );
    let mut all = Vec::new();
    for (i, (truth, incident)) in truths.iter().zip(incidents).enumerate() {
        let found = compare::recovered::compare(truth, incident, built.toolchain.release);
        all.extend(
            found.into_iter().map(|d| format!("panic {i}, {} {:?}: {d}", truth.type_name, truth.text)),
        );
    }
    none("incidents are not what the program saw", &all)?;
    Ok((truths, run))
}

/// Parses the lines of truth in the program's output.
pub(crate) fn truths(stdout: &str) -> Result<Vec<Truth>> {
    let lines = stdout.lines().filter(|l| l.starts_with('{'));
    lines.map(|l| serde_json::from_str(l).with_context(|| format!("fixture said {l}"))).collect()
}

/// Runs the program bare and watched, and compares its only incident with what Go printed.
pub(crate) fn dies(built: &Built, kind: Kind) -> Result<Incident> {
    let program = built.program();
    let bare = run::bare(&program)?;
    ensure!(bare.status == 2, "the fixture ended with {}", bare.status);
    let run = run::watched(&program)?;
    none("watching changed the program", &compare::runs::compare(&bare, &run.output, false))?;
    fatal(built, run, kind, false)
}

/// Compares the only incident of a run with what Go printed in that run.
pub(crate) fn fatal(built: &Built, run: Watched, kind: Kind, nothing_recovered: bool) -> Result<Incident> {
    let account = Account::parse(&run.output.stderr)
        .with_context(|| format!("no account in {:?}", run.output.stderr))?;
    let exit = Exit { code: Some(run.output.status), signal: None };
    let expect = Expect { kind, release: built.toolchain.release, nothing_recovered, exit };
    let incident = only(run.incidents)?;
    none("the incident is not what Go said", &compare::fatal(&account, &incident, &expect))?;
    ensure!(incident.outcome == Outcome::Fatal, "outcome {:?}", incident.outcome);
    Ok(incident)
}

/// Returns the only incident; fails if there are none or several.
pub(crate) fn only(mut incidents: Vec<Incident>) -> Result<Incident> {
    ensure!(
        incidents.len() == 1,
        "one incident wanted, got {:?}",
        incidents.iter().map(|i| (i.kind, i.outcome, &i.message)).collect::<Vec<_>>()
    );
    incidents.pop().context("no incident")
}
